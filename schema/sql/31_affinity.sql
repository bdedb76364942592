-- Soft affinity: a task that needs a file goes to a host that has it, for a stated time.

-- Which tasks are to wait a little for another host, that has a file of theirs; null: none.  A host has the files that runs
-- of its workers made, and those that a worker there offers by name.
create or replace function _deferred(p_queue queue, p_worker worker, p_tasks uuid[], p_kinds integer[], p_needs jsonb[])
    returns boolean[]
    language plpgsql
    set plan_cache_mode = force_generic_plan
    as $$
#variable_conflict use_column
declare
    v_now       timestamptz := clock_time();
    v_files     text[] := array(
        select distinct k from unnest(p_needs) n cross join lateral jsonb_object_keys(n) k where k ~ '^file:/');
    v_elsewhere text[];  -- files that are not here, but where a worker of the queue is alive
    v_waiting   uuid[];
    v_deferred  boolean[];
begin
    if v_files = '{}' then
        return null;
    end if;
    select array_agg(f.name) into v_elsewhere
    from unnest(v_files) f (name) cross join lateral (select array_agg(h.host) as hosts from _file_hosts(f.name) h) h
    where p_worker.host <> all (h.hosts) and exists (
        select from worker w
        where w.state = 'running' and w.host = any (h.hosts) and p_queue.name = any (w.queues)
          and w.last_seen > v_now - make_interval(secs => w.lease_seconds));
    if v_elsewhere is null then
        return null;
    end if;
    select array_agg(coalesce(d.waits, false) order by u.n), array_agg(u.task order by u.task) filter (where d.waits)
    into v_deferred, v_waiting
    from unnest(p_tasks, p_kinds) with ordinality u (task, kind, n)
    cross join lateral (
        select bool_or(v_now < coalesce(a.noted_at, v_now) + least(e.value::double precision, 1e9) * interval '1 second') as waits
        from jsonb_each_text(p_needs[u.kind]) e left join affinity a on a.task_id = u.task
        where e.key = any (v_elsewhere)) d;
    insert into affinity (task_id, noted_at) select t, v_now from unnest(v_waiting) t on conflict do nothing;
    return v_deferred;
end $$;

-- Hosts that have a file, by the name that tasks need it by.
create or replace function _file_hosts(p_name text) returns table (host text)
    language sql stable
    as $$
        select w.host from artifact a
        join run r on r.task_id = a.task_id and r.finished_at = a.completed_at and r.attempt = a.attempt
        join worker w on w.id = lease_worker(r.lease_id)
        where a.path = substr(p_name, 6)
        union
        select w.host from worker w where w.state = 'running' and w.offers ? p_name
    $$;
