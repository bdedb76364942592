-- What a claim finds before it packs: tasks that need something, and what is free for them.

-- The first thousand tasks of a queue that could ever fit a worker, by level and seq, each with its kind: as many kinds as
-- there are different needs, so that each is judged once; of a kind no more than p_most.  They are looked for among the first p_look, and where fewer than
-- a hundred are among the first thousand, among more of them and (p_beyond) as many of each level from anywhere: whatever
-- stands before them, none is hidden for ever.
-- p_offers: what could be had, of the worker's own and of what is shared.
create or replace function _candidates(
    p_queue_id integer, p_offers jsonb, p_most integer, p_look integer, p_beyond boolean,
    out looked integer, out fit integer, out tasks uuid[], out levels integer[], out seqs bigint[], out kinds integer[], out needs jsonb[])
    language plpgsql
    set plan_cache_mode = force_generic_plan set enable_sort = off
    as $$
#variable_conflict use_column
begin
    with first as materialized (
        select r.* from (select l.level, l.base from _levels() l where l.queue_id = p_queue_id order by l.level desc) m
        cross join lateral (
            select r.task_id, r.level, r.seq, r.needs from ready r
            where r.queue_id = p_queue_id and r.level = m.level and r.seq >= m.base and r.needs is not null
            order by r.seq limit p_look) r
        limit p_look),
    looked as materialized (
        select * from first
        union all
        select r.* from (
            select l.level, l.base + floor(random() * (last.seq - l.base + 1))::bigint as start
            from _levels() l cross join lateral (
                select r.seq from ready r
                where r.queue_id = l.queue_id and r.level = l.level and r.needs is not null order by r.seq desc limit 1) last
            where p_beyond and l.queue_id = p_queue_id) m
        cross join lateral (
            select r.task_id, r.level, r.seq, r.needs from ready r
            where r.queue_id = p_queue_id and r.level = m.level and r.seq >= m.start and r.needs is not null
            order by r.seq limit p_look) r
        where r.task_id not in (select f.task_id from first f)),
    -- The rows come in order, and so they stand in the arrays: they are hashed, and never sorted.
    alike as materialized (
        select l.needs, array_agg(l.task_id) as tasks, array_agg(l.level) as levels, array_agg(l.seq) as seqs, count(*)::integer as n
        from looked l group by l.needs),
    kind as materialized (
        select a.*, row_number() over ()::integer as kind from alike a where _fits(a.needs, p_offers)),
    fitting as materialized (
        select u.*, k.kind from kind k cross join lateral unnest(k.tasks[:p_most], k.levels[:p_most], k.seqs[:p_most]) u (task, level, seq)
        order by u.level desc, u.seq limit 1000)
    select coalesce((select sum(a.n) from alike a), 0), (select sum(k.n) from kind k), coalesce(array_agg(f.task), '{}'), array_agg(f.level),
           array_agg(f.seq), array_agg(f.kind), (select coalesce(array_agg(k.needs order by k.kind), '{}') from kind k)
    into looked, fit, tasks, levels, seqs, kinds, needs from fitting f;
end $$;

-- What a worker may count on, with locks on what it shares.  `free` is what it may give to any task; a task that it has
-- noted, and whose time has come, is in `first` once it fits.  For it, and of what is shared for those that others have
-- noted, room is kept: of all that starts from then on there must be no more than fits beside it.  What another has noted
-- becomes `first` here where it can start at once.
create or replace function _survey(p_queue queue, p_worker integer, p_slots integer) returns _survey
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_now     timestamptz := clock_time();
    v_low     bigint := p_worker::bigint << 32;
    v_high    bigint := (p_worker + 1)::bigint << 32;
    v_worker  worker;
    v_found   record;
    v_needs   jsonb[];
    v_note    record;
    v_gone    boolean;
    v_foreign boolean;
    v         _survey;
begin
    -- Two claims of one worker must not both find the same free.
    perform pg_advisory_xact_lock(hashtextextended(current_schema() || '.pack.' || p_worker, 0));
    select * into v_worker from worker where id = p_worker;
    v.offers := v_worker.offers || coalesce((select jsonb_object_agg(name, total) from resource), '{}');
    -- Of tasks that need the same no more than there are slots will go; some others may be locked, or noted elsewhere.
    select * into v_found from _candidates(p_queue.id, v.offers, p_slots + 20, 1000, false);
    if v_found.looked >= 1000 and coalesce(v_found.fit, 0) < 100 then
        select * into v_found from _candidates(p_queue.id, v.offers, p_slots + 20, 4000, true);
    end if;
    v.tasks := v_found.tasks;
    v.levels := v_found.levels;
    v.seqs := v_found.seqs;
    v.kinds := v_found.kinds;
    v_needs := v_found.needs;

    select n.task_id, n.noted_at, r.needs, r.queue_id, q.paused_at into v_note
        from reservation n left join ready r on r.task_id = n.task_id left join queue q on q.id = r.queue_id where n.worker_id = p_worker;
    if v_note.task_id is not null then
        v_gone := v_note.needs is null or not _fits(v_note.needs, v.offers);
        if not v_gone then
            v.noted := v_note.task_id;
        end if;
    end if;
    v.binds := v.noted is not null and v_note.paused_at is null and v_note.noted_at <= v_now - make_interval(secs => v_worker.reserve_after);
    v_foreign := v.noted is null and p_slots > 0;
    if v_foreign then
        select n.task_id, n.noted_at, n.needs, p_queue.id as queue_id into v_note from _noted_elsewhere(p_queue, v_worker, v.offers) n;
        v_foreign := found;
        v.noted := v_note.task_id;
        v.binds := v_foreign;
    end if;
    if v.binds then
        v_needs := array_append(v_needs, v_note.needs);
    end if;

    v.names := array(
        select distinct k from unnest(v_needs) n cross join lateral jsonb_object_keys(n) k where k !~ '^file:/' order by k);
    perform from resource where name = any (v.names) order by name for update;
    if v_gone then
        delete from reservation where worker_id = p_worker;
    end if;
    v.amounts := array(
        select coalesce((k.needs -> n.name)::numeric, 0)
        from unnest(v_needs) with ordinality k (needs, o) cross join unnest(v.names) with ordinality n (name, o) order by k.o, n.o);
    -- In a new statement, which sees what was committed while the locks were waited for.
    with bound as materialized (
        select r.needs, n.task_id = v.noted as mine, n.worker_id = p_worker as here, n.noted_at + make_interval(secs => w.reserve_after) as since,
               (n.noted_at, n.task_id) < (v_note.noted_at, v.noted) as older
        from reservation n join ready r on r.task_id = n.task_id join worker w on w.id = n.worker_id join queue q on q.id = r.queue_id
        where q.paused_at is null and n.noted_at <= v_now - make_interval(secs => w.reserve_after)
          and (n.worker_id = p_worker or _may_claim(w, v_now))),
    asked as materialized (
        select n.name, n.o, s.name is not null as shared, coalesce(s.total, (v_worker.offers -> n.name)::numeric, 0) as total, b.*
        from unnest(v.names) with ordinality n (name, o) left join resource s on s.name = n.name
        cross join lateral (
            select coalesce(sum(d.amount) filter (where d.here or s.name is not null), 0) as kept,
                   min(d.since) filter (where d.here or s.name is not null) as since,
                   coalesce(sum(d.amount) filter (where d.mine), 0) as mine,
                   coalesce(sum(d.amount) filter (where d.older), 0) as older, min(d.since) filter (where d.older) as older_since
            from (select (needs -> n.name)::numeric as amount, mine, here, since, older from bound
                  where needs ? n.name and (mine or s.name is not null)) d) b),
    known as materialized (
        select a.*, a.total - h.held as free,
               -- What has started since room is kept must fit beside what it is kept for.
               a.total - a.kept - h.fresh as beside, a.total - a.older - h.older_fresh as beside_older
        from asked a cross join lateral (
            select coalesce(sum(t.amount), 0) as held, coalesce(sum(t.amount) filter (where l.claimed_at >= a.since), 0) as fresh,
                   coalesce(sum(t.amount) filter (where l.claimed_at >= a.older_since), 0) as older_fresh
            from (select h.lease_id, h.task_id, h.amount from holding h where a.shared and h.resource = a.name
                  union all
                  select h.lease_id, h.task_id, h.amount from holding h
                  where not a.shared and h.lease_id >= v_low and h.lease_id < v_high and h.resource = a.name) t
            join lease l on l.id = t.lease_id and t.task_id = any (l.task_ids)) h),
    chosen as (
        select bool_and(k.free >= k.mine and (k.older_since is null or k.beside_older >= k.mine)) as fits,
               bool_and(k.shared or k.free >= k.mine) as alone from known k where k.mine > 0)
    select case when v.binds and v_note.queue_id = p_queue.id and c.fits then v.noted end,
           -- Where only what is shared keeps it from starting no slot need become free with that: one is kept.
           v.binds and c.alone and not (v_note.queue_id = p_queue.id and c.fits),
           coalesce(array_agg(k.shared order by k.o) filter (where k.o is not null), '{}'),
           coalesce(array_agg(least(k.free - case when v_note.queue_id = p_queue.id and c.fits then k.mine else 0 end, k.beside) order by k.o)
                    filter (where k.o is not null), '{}')
    into v.first, v.kept, v.shared, v.free
    from chosen c left join known k on true group by c.fits, c.alone;
    if v_foreign and v.first is null then
        v.noted := null;
        v.binds := false;
        v.kept := false;
    end if;
    v.deferred := _deferred(p_queue, v_worker, v.tasks, v.kinds, v_needs);
    return v;
end $$;

-- What another worker keeps room for, of what all share, and this one could start now with what it has of its own: the
-- oldest.  Without it that share stood idle for as long as the other is busy.  The locks of the caller decide in the end.
create or replace function _noted_elsewhere(p_queue queue, p_worker worker, p_offers jsonb)
    returns table (task_id uuid, noted_at timestamptz, needs jsonb)
    language sql stable
    as $$
        select n.task_id, n.noted_at, r.needs
        from reservation n join worker w on w.id = n.worker_id join ready r on r.task_id = n.task_id
        where n.worker_id <> p_worker.id and r.queue_id = p_queue.id
          and n.noted_at <= clock_time() - make_interval(secs => w.reserve_after) and _may_claim(w, clock_time())
          and _fits(r.needs, p_offers) and not jsonb_path_exists(r.needs, '$.keyvalue() ? (@.key starts with "file:/")')
          and exists (select from resource s where r.needs ? s.name)
          and not exists (
            select from jsonb_each(r.needs) e left join resource s on s.name = e.key
            where e.value::numeric > coalesce(s.total, (p_offers -> e.key)::numeric, 0) - (
                select coalesce(sum(h.amount), 0) from holding h
                where h.resource = e.key and _is_held(h)
                  and (s.name is not null or h.lease_id >= p_worker.id::bigint << 32 and h.lease_id < (p_worker.id + 1)::bigint << 32)))
        order by n.noted_at, n.task_id limit 1
    $$;
