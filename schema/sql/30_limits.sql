-- Limits of queues: how many of its tasks run at once, in all and per lane, how many start in a time,
-- and whether lanes take turns.
--
-- Nothing is counted on the side: what runs is read from the leases, under a lock on the queue's row
-- of `throttle`, which a claim holds until it commits.  So two claims never share a free place, and
-- no crash can leave a place taken.

create or replace function _has_limits(p_queue queue) returns boolean
    language sql immutable
    as $$
        select p_queue.max_running is not null or p_queue.max_running_per_lane is not null
            or p_queue.rate is not null or p_queue.fair
    $$;

-- The limits of a queue as a document; what is not limited is not in it.
create or replace function _limits(p_queue queue) returns jsonb
    language sql immutable
    as $$
        select jsonb_strip_nulls(jsonb_build_object(
            'running', p_queue.max_running, 'per_lane', p_queue.max_running_per_lane,
            'rate', p_queue.rate, 'rate_seconds', extract(epoch from p_queue.rate_period)::double precision,
            'fair', nullif(p_queue.fair, false)))
    $$;

-- One limit as a whole number of at least 1; AB001 names it and its value.
create or replace function _limit(p_limits jsonb, p_name text) returns integer
    language sql immutable
    as $$ select _option_number(p_limits, p_name, 1, 1000000000, true)::integer $$;

create or replace function set_queue_limits(p_name text, p_limits jsonb) returns jsonb
    language plpgsql security definer set search_path from current
    as $$
declare
    v_known   constant text[] := array['running', 'per_lane', 'rate', 'rate_seconds', 'fair'];
    v_id      integer := _known_queue_id(p_name);
    v_unknown text;
    v_queue   queue;
begin
    if jsonb_typeof(p_limits) is distinct from 'object' then
        raise exception 'limits are %; they must be a JSON object', coalesce(left(p_limits::text, 100), 'null') using errcode = 'AB001';
    end if;
    select string_agg(k, ', ') into v_unknown from jsonb_object_keys(p_limits) k where k <> all (v_known);
    if v_unknown is not null then
        raise exception 'unknown limit %; known are %', v_unknown, array_to_string(v_known, ', ') using errcode = 'AB001';
    end if;
    select * into v_queue from queue where id = v_id for update;
    if p_limits ? 'running' then
        v_queue.max_running := _limit(p_limits, 'running');
    end if;
    if p_limits ? 'per_lane' then
        v_queue.max_running_per_lane := _limit(p_limits, 'per_lane');
    end if;
    if p_limits ? 'fair' then
        v_queue.fair := coalesce(_option(p_limits, 'fair', 'boolean')::boolean, false);
    end if;
    if p_limits ? 'rate' or p_limits ? 'rate_seconds' then
        v_queue.rate := _limit(p_limits, 'rate');
        v_queue.rate_period := make_interval(secs => _option_number(p_limits, 'rate_seconds', 0.001, 31536000));
        if (v_queue.rate is null) <> (v_queue.rate_period is null) then
            raise exception 'limits rate and rate_seconds go together: so many starts in so many seconds' using errcode = 'AB001';
        end if;
        if v_queue.rate > 1000000 * extract(epoch from v_queue.rate_period) then
            raise exception 'limit rate is % in % seconds; it must be at most 1000000 a second', v_queue.rate, p_limits -> 'rate_seconds'
                using errcode = 'AB001';
        end if;
    end if;
    insert into throttle (queue_id) values (v_id) on conflict do nothing;
    update queue set (max_running, max_running_per_lane, rate, rate_period, fair)
                   = (v_queue.max_running, v_queue.max_running_per_lane, v_queue.rate, v_queue.rate_period, v_queue.fair)
    where id = v_id;
    perform _wake(array[v_id]);
    return _limits(v_queue);
end $$;
comment on function set_queue_limits(text, jsonb) is
    'Change limits of a queue: running, per_lane, rate with rate_seconds, fair; null lifts one. Returns those now in force.';

-- The slots of limited queues may be waited for: tell idle workers that some are free.
create or replace function _wake_limited(p_queue_id integer) returns void
    language plpgsql
    as $$
begin
    if exists (select from listener where queue_id = p_queue_id)
       and exists (select from queue where id = p_queue_id and (max_running is not null or max_running_per_lane is not null)) then
        perform _wake(array[p_queue_id]);
    end if;
end $$;

-- The time between two starts of an even stream at the queue's rate.
create or replace function _spacing(p_queue queue) returns interval
    language sql immutable
    as $$ select greatest(p_queue.rate_period / p_queue.rate, interval '1 microsecond') $$;

-- How many runs the limits of a queue, which is locked by its throttle, leave for this claim; and, where the
-- rate is what holds it back, in how many milliseconds the next start is due.
-- The rate is GCRA: starts are due evenly, and what a tenth of a second brings may come together.
create or replace function _grant(p_queue queue, p_wanted integer, out granted integer, out wait_ms integer)
    language plpgsql
    as $$
declare
    v_now     timestamptz;
    v_next    timestamptz;
    v_spacing interval;
    v_slack   interval;
    v_starts  bigint;
begin
    granted := p_wanted;
    select next_at into v_next from throttle where queue_id = p_queue.id;
    -- Under the lock each statement sees what the claim before has committed.
    if p_queue.max_running is not null then
        granted := least(granted, p_queue.max_running - (
            select coalesce(sum(cardinality(task_ids)), 0) from _live_leases() where queue_id = p_queue.id));
    end if;
    if p_queue.rate is not null and granted > 0 then
        v_now := clock_time();
        v_spacing := _spacing(p_queue);
        v_slack := greatest(interval '0.1 second' - v_spacing, interval '0');
        -- A clock set back must not close the queue for longer than a period.
        v_next := greatest(v_now, least(v_next, v_now + p_queue.rate_period));
        v_starts := floor(extract(epoch from v_now + v_slack - v_next) / extract(epoch from v_spacing)) + 1;
        if v_starts < granted then
            granted := greatest(v_starts, 0);
            -- The first start that is not granted.
            wait_ms := greatest(1, ceil(1000 * extract(epoch from v_next + granted * v_spacing - v_slack - v_now)));
        end if;
    end if;
    granted := greatest(granted, 0);
end $$;

-- Note the starts of a claim, which count for the rate.
create or replace function _spend(p_queue queue, p_starts integer) returns void
    language plpgsql
    as $$
declare
    v_now timestamptz := clock_time();
begin
    if p_queue.rate is not null and p_starts > 0 then
        update throttle
        set next_at = greatest(v_now, least(next_at, v_now + p_queue.rate_period)) + p_starts * _spacing(p_queue)
        where queue_id = p_queue.id;
    end if;
end $$;

-- Claim from a queue whose lanes count, under the lock of its throttle.  One statement takes the rows and
-- writes the lease, as in claim_runs().  The marks of a worker are neither used nor moved (levels and
-- seqs are 0): what is passed over today may be taken once its lane has room.
create or replace function _claim_lanes(
    p_queue queue, p_lease bigint, p_wanted integer, p_needy boolean, p_slots integer,
    out task_ids uuid[], out attempts smallint[], out levels integer[], out seqs bigint[], out suspects uuid[], out waits boolean)
    language plpgsql
    set enable_hashjoin = on
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_last text;
    v_pack record;
    v_some boolean;
begin
    if p_needy then
        select * into v_pack from _pack_lanes(p_queue, lease_worker(p_lease), p_wanted, p_slots);
    else
        select null::uuid[] as tasks, null::text[] as lanes, false as waits into v_pack;
    end if;
    waits := v_pack.waits;
    with chosen as materialized (
        select task_id, lane, place from _lane_candidates(p_queue, '{}', p_wanted, null, '{}') where not p_needy
        union all
        select * from unnest(v_pack.tasks, v_pack.lanes) with ordinality),
    taken as (
        delete from ready
        where ctid = any (array(
            select r.ctid from chosen c cross join lateral (
                select ctid from ready where task_id = c.task_id for update skip locked) r))
        returning task_id, attempt, suspect, needs),
    ordered as materialized (select t.*, c.lane, c.place from chosen c join taken t on t.task_id = c.task_id order by c.place),
    leased as (
        insert into lease (id, claimed_at, queue_id, task_ids, attempts, suspects, holds)
        select p_lease, v_now, p_queue.id, array_agg(task_id), array_agg(attempt), array_agg(task_id) filter (where suspect),
               bool_or(needs is not null)
        from ordered having count(*) > 0)
    select array_agg(o.task_id), array_agg(o.attempt), array_agg(0), array_agg(0::bigint),
           array_agg(o.task_id) filter (where o.suspect), (array_agg(coalesce(o.lane, '')))[count(*)], bool_or(o.needs is not null)
    into task_ids, attempts, levels, seqs, suspects, v_last, v_some from ordered o;
    if v_some then
        perform _hold(p_lease, task_ids);
    end if;
    update throttle set last_lane = v_last where queue_id = p_queue.id and last_lane <> v_last;
end $$;

-- Which pending tasks a claim takes from a queue whose lanes are held to a limit or take turns, in the
-- order in which they start.  Lanes at their limit are passed over, whatever stands in them.
--
-- Lanes are read one after the other from their index, beginning after the one that had the last turn:
-- at most 1,000 beside those that run, and of each so many rows that it is 10,000 together, or 100: what needs more than
-- is offered must not be read without end while others wait for the lock.  No row stands below the lowest base mark, so
-- what is dead there is passed over without a look at the table.  Tasks without a lane have no such index: they are
-- looked for among the first 10,000 of the queue, and where these are too few among 2,000 from anywhere, so that none is
-- hidden behind lanes for ever.
-- Fair: the lane with the fewest running goes first, among equals the one whose turn was longest ago;
-- tasks without a lane are one lane.  Otherwise by level and seq.
-- Of what needs something only what fits p_free goes, and p_first before all others; not p_deferred.
create or replace function _lane_candidates(p_queue queue, p_free jsonb, p_wanted integer, p_first uuid, p_deferred uuid[])
    returns table (task_id uuid, lane text, place bigint, needs jsonb)
    language plpgsql stable
    set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off
    as $$
#variable_conflict use_column
declare
    v_last text := (select last_lane from throttle where queue_id = p_queue.id);
    v_base bigint := (select min(base) from _levels() where queue_id = p_queue.id);
begin
    return query
        with recursive
        busy as materialized (
            select t.lane, count(*)::integer as n
            from _live_leases() l cross join lateral unnest(l.task_ids) u (id) join task t on t.id = u.id
            where l.queue_id = p_queue.id group by t.lane),
        after_last (lane, n) as (
            (select r.lane, 1 from ready r where r.queue_id = p_queue.id and r.lane > v_last and r.seq >= v_base order by r.lane limit 1)
            union all
            select (select r.lane from ready r where r.queue_id = p_queue.id and r.lane > a.lane and r.seq >= v_base order by r.lane limit 1), a.n + 1
            from after_last a where a.lane is not null and a.n < 1000 + (select count(*) from busy)),
        up_to_last (lane, n) as (
            (select r.lane, 1 from ready r
             where r.queue_id = p_queue.id and r.lane > '' and r.lane <= v_last and r.seq >= v_base order by r.lane limit 1)
            union all
            select (select r.lane from ready r
                    where r.queue_id = p_queue.id and r.lane > u.lane and r.lane <= v_last and r.seq >= v_base
                    order by r.lane limit 1), u.n + 1
            from up_to_last u where u.lane is not null and u.n < 1000 + (select count(*) from busy)),
        found as materialized (
            select f.lane, row_number() over (order by f.part, f.n) as turn
            from (select a.lane, 1 as part, a.n from after_last a where a.lane is not null
                  union all
                  select u.lane, 2, u.n from up_to_last u where u.lane is not null) f
            order by 2 limit 1000 + (select count(*) from busy)),
        open as materialized (
            select f.lane, f.turn, coalesce(b.n, 0) as running, count(*) over () as lanes
            from found f left join busy b on b.lane = f.lane
            where p_queue.max_running_per_lane is null or coalesce(b.n, 0) < p_queue.max_running_per_lane),
        laned as (
            select h.task_id, o.lane, o.turn, h.level, h.seq, h.needs,
                   o.running + row_number() over (partition by o.lane order by h.level desc, h.seq) as nth
            from open o
            cross join lateral (
                select l.task_id, l.level, l.seq, l.needs
                from (select r.task_id, r.level, r.seq, r.needs from ready r
                      where r.queue_id = p_queue.id and r.lane = o.lane and r.seq >= v_base
                      order by r.level desc, r.seq limit greatest(100, 10000 / o.lanes)) l
                where l.needs is null or l.task_id = p_first or (l.task_id <> all (p_deferred) and _fits(l.needs, p_free))
                limit least(p_wanted, p_queue.max_running_per_lane - o.running, greatest(1, 10000 / o.lanes))) h),
        first as (
            select h.* from (select * from _levels() l where l.queue_id = p_queue.id order by l.level desc) m
            cross join lateral (
                select r.task_id, r.level, r.seq, r.lane from ready r
                where r.queue_id = p_queue.id and r.level = m.level and r.seq >= m.base and r.needs is null order by r.seq limit 10000) h
            limit 10000),
        needy as (
            select h.* from (select * from _levels() l where l.queue_id = p_queue.id order by l.level desc) m
            cross join lateral (
                select r.task_id, r.level, r.seq, r.lane, r.needs from ready r
                where r.queue_id = p_queue.id and r.level = m.level and r.seq >= m.base and r.needs is not null order by r.seq limit 10000) h
            limit 10000),
        -- Not sorted before they are limited: the look ends with the last that is wanted.
        ahead as materialized (
            (select f.task_id, f.level, f.seq, null::jsonb as needs from first f where f.lane is null limit p_wanted)
            union all
            (select f.task_id, f.level, f.seq, f.needs from needy f
             where f.lane is null and (f.task_id = p_first or (f.task_id <> all (p_deferred) and _fits(f.needs, p_free))) limit p_wanted)),
        -- Lanes at their limit may fill the first look for days.
        beyond as (
            select h.* from (
                select l.level, k.needy, l.base + floor(random() * (last.seq - l.base + 1))::bigint as start
                from _levels() l cross join (values (false), (true)) k (needy) cross join lateral (
                    select case when k.needy
                        then (select r.seq from ready r where r.queue_id = l.queue_id and r.level = l.level and r.needs is not null order by r.seq desc limit 1)
                        else (select r.seq from ready r where r.queue_id = l.queue_id and r.level = l.level and r.needs is null order by r.seq desc limit 1) end as seq) last
                where l.queue_id = p_queue.id and last.seq is not null and (select count(*) from ahead) < p_wanted order by random()) m
            cross join lateral (
                (select r.task_id, r.level, r.seq, r.lane, r.needs from ready r
                 where not m.needy and r.queue_id = p_queue.id and r.level = m.level and r.seq >= m.start and r.needs is null
                 order by r.seq limit 2000)
                union all
                (select r.task_id, r.level, r.seq, r.lane, r.needs from ready r
                 where m.needy and r.queue_id = p_queue.id and r.level = m.level and r.seq >= m.start and r.needs is not null
                 order by r.seq limit 2000)) h
            limit 2000),
        without as (
            select * from ahead
            union
            (select b.task_id, b.level, b.seq, b.needs from beyond b
             where b.lane is null
               and (b.needs is null or b.task_id = p_first or (b.task_id <> all (p_deferred) and _fits(b.needs, p_free))) limit p_wanted)),
        loose as (
            select w.task_id, null::text as lane,
                   -- Its turn in the circle of lanes: before the first of them.
                   case when v_last = '' then 1000000000 else (select count(*) + 0.5 from found where lane > v_last) end as turn,
                   w.level, w.seq, w.needs,
                   (select coalesce(sum(n), 0) from busy where lane is null) + row_number() over (order by w.level desc, w.seq) as nth
            from without w)
        select c.task_id, c.lane,
               row_number() over (order by c.task_id is not distinct from p_first desc,
                                           case when p_queue.fair then c.nth end, case when p_queue.fair then c.turn end,
                                           c.level desc, c.seq),
               c.needs
        from (select * from laned union all select * from loose) c
        order by 3 limit p_wanted;
end $$;

-- Whether what a task needs is offered, or free; a name that is not there counts as 0.  Files only draw it to a host.
create or replace function _fits(p_needs jsonb, p_offers jsonb) returns boolean
    language sql immutable
    as $$
        select not exists (select from jsonb_each(p_needs) n
                           where n.key !~ '^file:/' and n.value::numeric > coalesce((p_offers -> n.key)::numeric, 0))
    $$;
