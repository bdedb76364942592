-- Why a pending task that needs something is not taken, in a sentence for people.

-- What could be had of a worker: of its own, and of what all share.
create or replace function _attainable(p_offers jsonb) returns jsonb
    language sql stable
    as $$ select p_offers || coalesce((select jsonb_object_agg(name, total) from resource), '{}') $$;

-- Workers that claim from a queue.
create or replace function _serving(p_queue text) returns setof worker
    language sql stable
    as $$
        select * from worker
        where state = 'running' and not draining and p_queue = any (queues)
          and last_seen > clock_time() - make_interval(secs => lease_seconds)
    $$;

-- How much of a name the runs of a worker hold.
create or replace function _held_by(p_worker integer, p_name text) returns numeric
    language sql stable
    as $$
        select coalesce(sum(h.amount), 0) from holding h
        where h.lease_id >= p_worker::bigint << 32 and h.lease_id < (p_worker + 1)::bigint << 32 and h.resource = p_name and _is_held(h)
    $$;

-- What it needs and no live worker of its queue offers; null when one offers all of it.
create or replace function _why_unfit(p_queue text, p_needs jsonb) returns text
    language plpgsql stable
    as $$
declare
    v_text text;
begin
    if p_needs is null or exists (select from _serving(p_queue) w where _fits(p_needs, _attainable(w.offers))) then
        return null;
    end if;
    select string_agg(case when s.name is null then format('%s %s (the largest offer is %s)', n.value, n.key, coalesce(best.offer, 0))
                           else format('%s %s (all workers share %s)', n.value, n.key, s.total) end, ', ' order by n.key)
    into v_text
    from jsonb_each_text(p_needs) n
    left join resource s on s.name = n.key
    left join lateral (select max((w.offers ->> n.key)::numeric) as offer from _serving(p_queue) w) best on true
    where n.key !~ '^file:/';
    return format('No worker of its queue offers what it needs: %s; start one with `absurd-worker --queue %s %s`.', v_text, p_queue,
                  case when p_needs ? 'dask' then '--dask tcp://HOST:8786' else '--offers ...' end);
end $$;

-- What it has to wait for of what a worker that could take it has, or all share; null when there is room for it.
create or replace function _why_short(p_queue text, p_task uuid, p_needs jsonb) returns text
    language plpgsql stable
    as $$
#variable_conflict use_column
declare
    v_text text;
begin
    select string_agg(format('It waits for %s %s, of which all workers share %s and %s free: %s.', (p_needs -> s.name)::numeric, s.name, s.total,
                             case when s.total - h.held = 1 then '1 is' else greatest(s.total - h.held, 0) || ' are' end,
                             coalesce('held by ' || _task_list(h.tasks), 'nothing is held')), ' ' order by s.name)
    into v_text
    from resource s
    cross join lateral (
        select coalesce(sum(h.amount), 0) as held, array_agg(h.task_id order by h.lease_id, h.task_id) as tasks
        from holding h where h.resource = s.name and _is_held(h)) h
    where p_needs ? s.name and (p_needs -> s.name)::numeric > s.total - h.held;
    if v_text is not null then
        return v_text;
    end if;
    -- On each worker that could take it, what is short there; null where nothing is.
    with could as (select * from _serving(p_queue) w where _fits(p_needs, _attainable(w.offers))),
    short as (
        select w.id, w.name, string_agg(format('%s %s (%s of %s free on worker %s)', n.value, n.key,
                                               greatest((w.offers -> n.key)::numeric - _held_by(w.id, n.key), 0), w.offers -> n.key, w.name),
                                        ', ' order by n.key)
               filter (where (n.value)::numeric > (w.offers -> n.key)::numeric - _held_by(w.id, n.key)) as text
        from could w cross join lateral jsonb_each(p_needs) n
        where n.key !~ '^file:/' and n.value::numeric > 0 and not exists (select from resource s where s.name = n.key)
        group by w.id, w.name)
    select case when bool_and(s.text is not null) then
        format('It waits for %s.', string_agg(s.text, '; or for ' order by s.id) filter (where s.id <= third.id)) end
    into v_text
    from short s cross join (select coalesce(max(id), 0) as id from (select id from short order by id limit 3) f) third;
    return coalesce(v_text, (
        select format('Worker %s has room, but keeps it for task %s, which has waited since %s.', w.name, n.task_id, _moment(n.noted_at))
        from reservation n join _serving(p_queue) w on w.id = n.worker_id
        join ready r on r.task_id = n.task_id join queue q on q.id = r.queue_id and q.paused_at is null
        where n.task_id <> p_task and n.noted_at <= clock_time() - make_interval(secs => w.reserve_after) order by n.worker_id limit 1));
end $$;

-- Which worker keeps room for it, or will; which host it prefers.
create or replace function _why_noted(p_queue text, p_task uuid, p_needs jsonb) returns text
    language sql stable
    as $$
        select concat_ws(' ',
            (select format(case when at.time <= clock_time() then 'Worker %s keeps room for it since %s.'
                                else 'Worker %s keeps room for it from %s on.' end, w.name, _moment(at.time))
             from reservation n join worker w on w.id = n.worker_id
             cross join lateral (select n.noted_at + make_interval(secs => w.reserve_after) as time) at
             where n.task_id = p_task),
            (select string_agg(format('Until %s it prefers a host that has %s: %s.', _moment(at.time), substr(e.key, 6), h.hosts), ' ' order by e.key)
             from affinity a cross join lateral jsonb_each_text(p_needs) e
             cross join lateral (select a.noted_at + least(e.value::double precision, 1e9) * interval '1 second' as time) at
             cross join lateral (select string_agg(distinct f.host, ', ') as hosts from _file_hosts(e.key) f join _serving(p_queue) w on w.host = f.host) h
             where a.task_id = p_task and e.key ~ '^file:/' and at.time > clock_time() and h.hosts is not null))
    $$;

-- What nobody can have: needs of pending tasks of queues that are served, among the first thousand of each level, which no
-- worker of the queue offers.
create or replace function _unmet() returns table (queue text, needs jsonb, tasks bigint)
    language sql stable
    as $$
        select q.name, n.needs, count(*)
        from queue q join _levels() l on l.queue_id = q.id cross join lateral (
            select r.needs from ready r
            where r.queue_id = l.queue_id and r.level = l.level and r.seq >= l.base and r.needs is not null
            order by r.seq limit 1000) n
        where q.paused_at is null and exists (select from _serving(q.name))
        group by q.name, n.needs
        having not exists (select from _serving(q.name) w where _fits(n.needs, _attainable(w.offers)))
        order by q.name, n.needs limit 20
    $$;
