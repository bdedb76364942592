-- Hand runs to a worker, with a lease on the batch.

-- What few tasks have, as one JSON text.
create or replace function _details(
    p_headers jsonb, p_tags text[], p_timeout interval, p_max_attempts smallint, p_retry jsonb, p_needs jsonb, p_suspect boolean)
    returns text
    language sql stable
    as $$
        -- Not jsonb_strip_nulls: it would go into results and headers, whose nulls are theirs.
        select jsonb_object_agg(k, v) from jsonb_each(jsonb_build_object(
            'headers', p_headers, 'tags', p_tags, 'timeout', extract(epoch from p_timeout),
            'max_attempts', p_max_attempts, 'retry', p_retry, 'needs', p_needs,
            'suspect', nullif(p_suspect, false))) as d (k, v) where v <> 'null'
    $$;

-- One statement takes the rows and writes the lease.  It is safe at READ COMMITTED: the inner select
-- runs once, its rows are visible to the statement's snapshot (so vacuum cannot free their ctid) and
-- locked (so nobody else moves them).  Split over two statements it would not be.
-- Levels are walked from the highest; each is read from the caller's mark up, which skips the dead
-- entries of what was claimed before, or from its base mark where the caller names none.
-- Tasks that need something stand in an index of their own, and are packed (31_pack.sql) where there are any: one look at
-- the end of that index is all that others pay.  They are looked for from the base mark, so that the caller's marks are
-- those of tasks without needs, and may rise above what is passed over for now.
-- p_slots: how many may start at once (null: all); what needs something is claimed for no more than these.  waits: more waits
-- for slots or room, so that the next claim is due when a run ends, and nothing may be claimed ahead before.
-- A lease that exists already is a claim whose answer was lost: its runs are given again.  Numbers of claims rise, and are
-- those of one worker: one that has run into the next worker's, or below what its worker said to be over, raises AB001.
-- Returns one row of parallel arrays, ordered as the runs should start; null when nothing was claimed.
-- Plans are made once for a session: anew for each claim they would take a third of the time of a small one.
-- Touches lease, ready, level; throttle for a limited queue; resource, affinity, reservation, holding; tally.
create or replace function claim_runs(
    p_lease bigint, p_queue_id integer, p_wanted integer, p_levels integer[], p_marks bigint[], p_slots integer default null,
    out task_ids uuid[], out attempts smallint[], out levels integer[], out seqs bigint[],
    out executor_ids integer[], out params text[], out details text[], out wait_ms integer, out waits boolean)
    language plpgsql security definer
    set search_path from current set jit = off
    set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
    set plan_cache_mode = force_generic_plan
    as $$
#variable_conflict use_column
declare
    v_now      timestamptz := clock_time();
    v_queue    queue;
    v_offers   jsonb;
    v_oldest   bigint;
    v_wanted   integer := p_wanted;
    v_limited  boolean;
    v_needy    boolean;
    v_plain    integer;
    v_packed   _packed;
    v_suspects uuid[];
    v_children boolean;
begin
    perform _require_read_committed();
    -- The same claim may still be under way in a session whose connection was cut: it ends first.
    perform pg_advisory_xact_lock(hashtextextended(current_schema() || '.claim', p_lease));
    if exists (select from lease where id = p_lease) then
        select l.task_ids, l.attempts, l.suspects into task_ids, attempts, v_suspects from lease l where l.id = p_lease;
        -- Nothing for the marks to learn.
        levels := array_fill(0, array[cardinality(task_ids)]);
        seqs := array_fill(0::bigint, array[cardinality(task_ids)]);
    elsif p_wanted > 0 then
        select * into v_queue from queue where id = p_queue_id and paused_at is null;
        select w.offers, w.oldest_claim, exists (
            select from _levels() l cross join lateral (
                select from ready r where r.queue_id = l.queue_id and r.level = l.level and r.seq >= l.base and r.needs is not null limit 1) n
            where l.queue_id = p_queue_id)
        into v_offers, v_oldest, v_needy from worker w where w.id = lease_worker(p_lease) and w.state in ('running', 'stopping');
        if p_lease & 4294967295 < greatest(v_oldest, 1) then
            raise exception 'claim % of worker % comes too late: the numbers of claims rise, up to 4294967295', p_lease & 4294967295, lease_worker(p_lease)
                using errcode = 'AB001';
        end if;
        if v_queue.id is null or v_offers is null then
            return;
        end if;
        v_limited := _has_limits(v_queue);
        if v_limited then
            -- Read anew under the lock: while we waited for it the limits may have changed, or a pause have come.
            perform from throttle where queue_id = p_queue_id for update;
            select * into v_queue from queue where id = p_queue_id and paused_at is null;
            if v_queue.id is null then
                return;
            end if;
            select * into v_wanted, wait_ms from _grant(v_queue, p_wanted);
        end if;
        if v_queue.fair or v_queue.max_running_per_lane is not null then
            if v_wanted > 0 then
                select * into task_ids, attempts, levels, seqs, v_suspects, waits
                from _claim_lanes(v_queue, p_lease, v_wanted, v_needy, coalesce(p_slots, v_wanted));
            end if;
        elsif v_wanted > 0 then
            v_plain := v_wanted;
            if v_needy then
                v_packed := _pack(v_queue, lease_worker(p_lease), v_wanted, coalesce(p_slots, v_wanted), p_levels, p_marks);
                v_plain := v_packed.plain;
                waits := v_packed.waits;
            end if;
            with taken as (
                delete from ready
                where ctid = any (array(
                    select r.ctid
                    from (select l.level, greatest(known.mark, l.base) as mark
                          from _levels() l left join unnest(p_levels, p_marks) as known (level, mark) on known.level = l.level
                          where l.queue_id = p_queue_id order by l.level desc) m
                    cross join lateral (
                        select ctid from ready
                        where queue_id = p_queue_id and level = m.level and seq >= m.mark and needs is null
                        order by seq limit v_plain
                        for update skip locked) r
                    limit v_plain) || v_packed.places)
                returning task_id, attempt, level, seq, suspect),
            ordered as materialized (select * from taken order by level desc, seq),
            leased as (
                insert into lease (id, claimed_at, queue_id, task_ids, attempts, suspects, holds)
                select p_lease, v_now, p_queue_id, array_agg(task_id), array_agg(attempt), array_agg(task_id) filter (where suspect),
                       cardinality(v_packed.tasks) > 0 is true
                from ordered having count(*) > 0)
            select array_agg(o.task_id), array_agg(o.attempt), array_agg(o.level), array_agg(o.seq),
                   array_agg(o.task_id) filter (where o.suspect)
            into task_ids, attempts, levels, seqs, v_suspects from ordered o;
            if cardinality(v_packed.tasks) > 0 then
                perform _hold(p_lease, v_packed.tasks);
            end if;
        end if;
        if task_ids is not null then
            insert into tally (queue_id, pending, running)
            values (p_queue_id, -cardinality(task_ids), cardinality(task_ids));
            if exists (select from watch where singleton and until > v_now) then
                perform _feed_tasks(p_queue_id, 'running', task_ids);
            end if;
        end if;
        if v_limited and v_wanted > 0 then
            perform _spend(v_queue, coalesce(cardinality(task_ids), 0));
            if coalesce(cardinality(task_ids), 0) < v_wanted then
                wait_ms := null;  -- it is not the rate that kept more from starting
            end if;
        end if;
    end if;
    if task_ids is not null then
        select array_agg(b.executor_id), array_agg(b.params), array_agg(b.details), bool_or(b.child)
        into executor_ids, params, details, v_children
        from (select t.executor_id, t.params::text as params, t.depends_on is not null as child,
                     -- A call for each task would be felt, and so would `t` whole, which is made of each row, called or not.
                     case when num_nonnulls(t.headers, t.tags, t.timeout, t.max_attempts, t.retry, v_suspects) > 0
                              then _details(t.headers, t.tags, t.timeout, t.max_attempts, t.retry, t.needs,
                                            coalesce(t.id = any (v_suspects), false))
                          when t.needs is not null then jsonb_build_object('needs', t.needs)::text end as details
              from unnest(task_ids) with ordinality as wanted (id, n)
              join task t on t.id = wanted.id
              order by n) b;
        if v_children then
            perform _await_partitions();
            details := _with_parents(task_ids, details);
        end if;
    end if;
end $$;
comment on function claim_runs(bigint, integer, integer, integer[], bigint[], integer) is
    'Claim up to p_wanted runs of a queue under one lease, with needs only p_slots; one row of parallel arrays, in how many milliseconds a rate lets more start, and whether more waits for slots.';

-- Add the results of parents to the details of the tasks that have any, and which of these have files that are not in
-- their places yet: they get their names after the commit, and a child may be claimed in between.  Siblings share their
-- parents: all this is read once for each set of these, and not for each child.
create or replace function _with_parents(p_tasks uuid[], p_details text[]) returns text[]
    language plpgsql stable
    as $$
#variable_conflict use_column
declare
    v_child   record;
    v_set     uuid[];
    v_told    jsonb;
begin
    for v_child in
        select n, t.depends_on from unnest(p_tasks) with ordinality as wanted (id, n) join task t on t.id = wanted.id
        where t.depends_on is not null order by t.depends_on
    loop
        if v_child.depends_on is distinct from v_set then
            v_set := v_child.depends_on;
            v_told := jsonb_strip_nulls(jsonb_build_object('publishing', (
                select jsonb_agg(distinct a.task_id) from artifact a where a.task_id = any (v_set) and a.published_at is null)))
                || jsonb_build_object('parents', _parent_results(v_set));
        end if;
        continue when v_told -> 'parents' = 'null';  -- none has completed
        p_details[v_child.n] := (coalesce(p_details[v_child.n]::jsonb, '{}') || v_told)::text;
    end loop;
    return p_details;
end $$;

-- Results of parents that have completed, by task id: of their last run (as in _end_state), for one may have run anew.
create or replace function _parent_results(p_parents uuid[]) returns jsonb
    language sql stable
    as $$
        select jsonb_object_agg(last.task_id, last.result) from (
            select distinct on (r.task_id) r.task_id, r.state, r.result
            from run r
            where r.task_id = any (p_parents) and r.ends
              and r.finished_at >= (select min(_ran_from(p)) from unnest(p_parents) p)
            order by r.task_id, r.attempt desc, r.started_at is null, r.finished_at desc) last
        where last.state = 'completed'
    $$;

-- Close finished runs and claim the next in one round trip: what a busy worker does all day.
create or replace function step(
    p_leases bigint[], p_tasks uuid[], p_ages integer[], p_results text[],
    p_lease bigint, p_queue_id integer, p_wanted integer, p_levels integer[], p_marks bigint[], p_slots integer default null,
    out stale uuid[], out task_ids uuid[], out attempts smallint[], out levels integer[], out seqs bigint[],
    out executor_ids integer[], out params text[], out details text[], out wait_ms integer, out waits boolean)
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_released text[];
begin
    if cardinality(p_tasks) > 0 then
        -- What they held may be taken again below: others are told after that.
        perform set_config('absurd.step', 'on', true);
        stale := complete_runs(p_leases, p_tasks, p_ages, p_results);
        perform set_config('absurd.step', 'off', true);
    end if;
    select c.task_ids, c.attempts, c.levels, c.seqs, c.executor_ids, c.params, c.details, c.wait_ms, c.waits
    into task_ids, attempts, levels, seqs, executor_ids, params, details, wait_ms, waits
    from claim_runs(p_lease, p_queue_id, p_wanted, p_levels, p_marks, p_slots) c;
    v_released := nullif(current_setting('absurd.released', true), '')::text[];
    if v_released is not null then
        perform set_config('absurd.released', '', true);
        perform _pass_on(v_released);
    end if;
end $$;
comment on function step(bigint[], uuid[], integer[], text[], bigint, integer, integer, integer[], bigint[], integer) is
    'complete_runs and claim_runs in one round trip.';
