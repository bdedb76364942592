-- Packing: which of the tasks that need something a worker may take now.
--
-- A run holds what its task needs from the claim on, until its lease lets go of it (`holding`).  What a worker has is free
-- as far as its own runs do not hold it; what stands in `resource` is counted over all workers, under a lock on its row.
-- The claim goes through the tasks by priority and takes what fits into what is left, so that small ones fill the gaps.
-- That alone would starve a large one for ever: so a worker notes the first that fits it but finds no room
-- (`reservation`), and from `worker.reserve_after` on it gives others only what fits beside it.

-- Pack for a claim on a queue without lanes: which tasks that need something, and how many others may go with them.
create or replace function _pack(p_queue queue, p_worker integer, p_wanted integer, p_slots integer, p_levels integer[], p_marks bigint[])
    returns _packed
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_survey _survey := _survey(p_queue, p_worker, least(p_slots, p_wanted));
begin
    select array_agg(u.task_id order by u.first desc, u.level desc, u.seq), array_agg(u.kind order by u.first desc, u.level desc, u.seq),
           array_agg(u.deferred order by u.first desc, u.level desc, u.seq)
    into v_survey.tasks, v_survey.kinds, v_survey.deferred
    from (
        select task_id, level, seq, kind, coalesce(deferred, false) as deferred, task_id is not distinct from v_survey.first as first
        from unnest(v_survey.tasks, v_survey.levels, v_survey.seqs, v_survey.kinds, v_survey.deferred)
             as n (task_id, level, seq, kind, deferred)
        where task_id is distinct from v_survey.noted or not v_survey.binds
        union all
        select v_survey.noted, 0, 0, 0, false, true where v_survey.first is not null
        union all
        select null, p.level, p.seq, null, false, false from (
            select m.level, r.seq
            from (select l.level, greatest(known.mark, l.base) as mark
                  from _levels() l left join unnest(p_levels, p_marks) as known (level, mark) on known.level = l.level
                  where l.queue_id = p_queue.id order by l.level desc) m
            cross join lateral (
                select seq from ready where queue_id = p_queue.id and level = m.level and seq >= m.mark and needs is null
                order by seq limit p_wanted) r
            limit p_wanted) p) u;
    return _fill(v_survey, p_worker, p_wanted, p_slots, true);
end $$;

-- Go through tasks in their order and take what fits into what is left.  A task without needs (of no kind) takes a slot and
-- no more.  A task that needs something is taken only if it starts at once, for it would hold what it only waits with: where
-- one that fits ranks behind the slots, nothing that comes after it may be claimed ahead.
-- Rows of tasks that need something are locked; those that others hold are passed over.  The first that finds no room may
-- be noted.
create or replace function _fill(p_survey _survey, p_worker integer, p_wanted integer, p_slots integer, p_notes boolean) returns _packed
    language plpgsql
    as $$
declare
    v_n       integer := cardinality(p_survey.names);
    v_tasks   uuid[] := p_survey.tasks;
    v_kinds   integer[] := p_survey.kinds;
    v_free    numeric[] := p_survey.free;
    v_amounts numeric[] := p_survey.amounts;
    v_wait    boolean[] := p_survey.deferred;
    v_slots   integer := least(p_slots, p_wanted);
    v_wanted  integer := p_wanted;
    v_out     boolean[] := '{}';
    v_large   integer[] := '{}';
    v_taken   integer := 0;
    v_plain   integer := 0;
    v_kind    integer;
    v_fits    boolean;
    v_place   tid;
    v         _packed;
begin
    v.tasks := '{}';
    v.places := '{}';
    v.chosen := '{}';
    v.waits := false;
    if p_survey.kept then
        v_slots := greatest(v_slots - 1, 0);
        v_wanted := v_slots;
        v.waits := true;
    end if;
    for i in 1 .. coalesce(cardinality(v_tasks), 0) loop
        v_kind := v_kinds[i];
        if v_kind is null then
            continue when v_taken >= v_wanted;
            v_taken := v_taken + 1;
            v_plain := v_plain + 1;
            v.chosen := v.chosen || i;
            continue;
        end if;
        continue when v_out[v_kind] or v_wait[i];
        v_fits := true;
        if v_kind > 0 then  -- room for the noted one was made before
            for j in 1 .. v_n loop
                if v_amounts[(v_kind - 1) * v_n + j] > v_free[j] then
                    v_fits := false;
                    exit;
                end if;
            end loop;
        end if;
        if not v_fits then
            v_out[v_kind] := true;
            if p_notes and p_survey.noted is null and cardinality(v_large) < 20 then
                v_large := v_large || v_kind;
            end if;
        elsif v_taken >= v_slots then
            v.waits := true;
            exit;
        else
            select ctid into v_place from ready where task_id = v_tasks[i] for update skip locked;
            continue when not found;
            v_taken := v_taken + 1;
            v.tasks := v.tasks || v_tasks[i];
            v.places := array_append(v.places, v_place);
            v.chosen := v.chosen || i;
            if v_kind > 0 then
                for j in 1 .. v_n loop
                    v_free[j] := v_free[j] - v_amounts[(v_kind - 1) * v_n + j];
                end loop;
            end if;
        end if;
    end loop;
    v.plain := case when v.waits then v_plain else v_wanted - cardinality(v.tasks) end;
    if cardinality(v_large) > 0 then
        p_survey.free := v_free;
        v_large := array(select k from unnest(v_large) k where _may_starve(p_survey, p_worker, k, v.tasks));
        perform _note_large(p_worker, array(
            select u.task from unnest(v_tasks, v_kinds, v_wait) with ordinality u (task, kind, wait, n)
            where u.kind = any (v_large) and not coalesce(u.wait, false) and u.task <> all (v.tasks) order by u.n));
    end if;
    return v;
end $$;

-- Whether smaller tasks could go before one that finds no room, again and again.  Not where all that hold what it lacks
-- have as much of it as it needs: then it is one of a line, and the first that gives back lets it in.  For one that stands
-- in a line at something shared no room is kept, whatever else it lacks: its host would be emptied for the others' sake.
create or replace function _may_starve(p_survey _survey, p_worker integer, p_kind integer, p_taken uuid[]) returns boolean
    language plpgsql stable
    as $$
declare
    v_n        integer := cardinality(p_survey.names);
    v_low      bigint := p_worker::bigint << 32;
    v_high     bigint := (p_worker + 1)::bigint << 32;
    v_amount   numeric;
    v_overtaken boolean;
    v_starves  boolean := false;
begin
    for j in 1 .. v_n loop
        v_amount := p_survey.amounts[(p_kind - 1) * v_n + j];
        continue when v_amount <= p_survey.free[j];
        v_overtaken := case when p_survey.shared[j]
            then exists (select from holding h where h.resource = p_survey.names[j] and h.amount < v_amount and _is_held(h))
            else exists (select from holding h where h.lease_id >= v_low and h.lease_id < v_high and h.resource = p_survey.names[j]
                                                 and h.amount < v_amount and _is_held(h)) end
            or exists (select from ready r where r.task_id = any (p_taken) and (r.needs -> p_survey.names[j])::numeric < v_amount);
        if p_survey.shared[j] and not v_overtaken then
            return false;
        end if;
        v_starves := v_starves or v_overtaken;
    end loop;
    return v_starves;
end $$;

-- Whether a worker will claim again, as far as is known: one that leaves, or is silent, keeps no room for anything.
create or replace function _may_claim(p_worker worker, p_now timestamptz) returns boolean
    language sql stable
    as $$
        select p_worker.state = 'running' and not p_worker.draining
           and p_worker.last_seen > p_now - make_interval(secs => p_worker.lease_seconds)
    $$;

-- Note the first of some tasks that no worker has noted that will claim again.
create or replace function _note_large(p_worker integer, p_tasks uuid[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_task uuid;
begin
    if cardinality(p_tasks) = 0 then
        return;
    end if;
    select t into v_task from unnest(p_tasks) with ordinality u (t, n)
    where not exists (
        select from reservation r join worker w on w.id = r.worker_id
        where r.task_id = t and _may_claim(w, v_now))
    order by n limit 1;
    if v_task is not null then  -- it has not waited less because its worker went
        insert into reservation (task_id, worker_id, noted_at) values (v_task, p_worker, v_now)
        on conflict (task_id) do update set worker_id = excluded.worker_id;
    end if;
end $$;

-- Pack for a claim on a queue whose lanes count: the same among what its lanes let go, in their order.
create or replace function _pack_lanes(p_queue queue, p_worker integer, p_wanted integer, p_slots integer, out tasks uuid[], out lanes text[], out waits boolean)
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_survey _survey := _survey(p_queue, p_worker, least(p_slots, p_wanted));
    v_free   jsonb := (select coalesce(jsonb_object_agg(n, f), '{}') from unnest(v_survey.names, v_survey.free) u (n, f));
    v_out    integer[];
    v_large  uuid[];
    v_needs  jsonb[];
    v_packed _packed;
begin
    if v_survey.noted is null then
        v_out := array(
            select min(u.kind) from unnest(v_survey.tasks, v_survey.kinds) u (task, kind) join ready r on r.task_id = u.task
            group by u.kind having not bool_or(_fits(r.needs, v_free)));
        v_out := array(select k from unnest(v_out) k where _may_starve(v_survey, p_worker, k, '{}'));
        v_large := array(
            select u.task
            from unnest(v_survey.tasks, v_survey.kinds, v_survey.deferred) with ordinality u (task, kind, deferred, n)
            join ready r on r.task_id = u.task
            where u.kind = any (v_out) and u.deferred is not true
              and (r.lane is null or p_queue.max_running_per_lane is null or p_queue.max_running_per_lane > (
                select count(*) from _live_leases() l cross join lateral unnest(l.task_ids) i (id) join task t on t.id = i.id
                where l.queue_id = p_queue.id and t.lane = r.lane))
            order by u.n limit 20);
        perform _note_large(p_worker, v_large);
    end if;
    select array_agg(c.task_id order by c.place), array_agg(c.lane order by c.place), array_agg(c.needs order by c.place)
    into v_survey.tasks, lanes, v_needs
    from _lane_candidates(p_queue, v_free, p_wanted, v_survey.first,
                          array(select t from unnest(v_survey.tasks, v_survey.deferred) u (t, d) where d)) c;
    with kind as materialized (
        select d.needs, row_number() over ()::integer as kind
        from (select distinct n.needs from unnest(v_needs) n (needs) where n.needs is not null) d)
    select array(select case when u.task = v_survey.first then 0 else k.kind end
                 from unnest(v_survey.tasks, v_needs) with ordinality u (task, needs, n)
                 left join kind k on k.needs = u.needs order by u.n),
           array(select coalesce((k.needs -> n.name)::numeric, 0)
                 from kind k cross join unnest(v_survey.names) with ordinality n (name, o) order by k.kind, n.o)
    into v_survey.kinds, v_survey.amounts;
    v_survey.deferred := null;
    v_packed := _fill(v_survey, p_worker, p_wanted, p_slots, false);
    tasks := array(select v_survey.tasks[i] from unnest(v_packed.chosen) with ordinality u (i, n) order by n);
    -- What did not fit together may have hidden what fits: it is worth another look.
    waits := v_packed.waits or cardinality(tasks) > 0 and cardinality(tasks) < least(p_wanted, cardinality(v_survey.tasks));
    lanes := array(select lanes[i] from unnest(v_packed.chosen) with ordinality u (i, n) order by n);
end $$;

-- What taken tasks hold from now on; and nobody has to wait for them any more.
create or replace function _hold(p_lease bigint, p_tasks uuid[]) returns void
    language plpgsql
    as $$
begin
    insert into holding (lease_id, task_id, resource, amount)
        select p_lease, t.id, n.key, n.value::numeric
        from task t cross join lateral jsonb_each(_counted(t.needs)) n
        where t.id = any (p_tasks) and n.key !~ '^file:/' and n.value::numeric > 0;
    delete from reservation where task_id = any (p_tasks);
    delete from affinity where task_id = any (p_tasks);
end $$;
