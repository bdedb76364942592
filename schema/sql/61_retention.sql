-- Ended tasks leave when they are older than their queue keeps them.

-- How long a queue keeps ended tasks, in seconds; null: for ever.  Raises AB001, AB005.
create or replace function set_queue_retention(p_name text, p_seconds double precision) returns void
    language plpgsql security definer set search_path from current
    as $$
declare
    v_id integer := _known_queue_id(p_name);
begin
    if not p_seconds between 1 and 3153600000 then
        raise exception 'retention is % s; it must be from 1 s to 100 years', p_seconds using errcode = 'AB001';
    end if;
    update queue set retention = make_interval(secs => p_seconds) where id = v_id;
    -- A shorter one than before: all of the history is looked at again.
    delete from pruning where queue_id = v_id;
end $$;
comment on function set_queue_retention(text, double precision) is 'Keep ended tasks of a queue for so many seconds; null keeps them for ever.';

-- Remove, of these tasks, those that ended before p_before, with everything that is theirs.  Kept are: what
-- has not ended, parents of what has not or not so long ago, nodes of workflows that have not, and files still on their way.
-- Dead letters stay until they are purged, and the audit of their tasks with them.  Keys become free.
-- The body is locked first: either a retry, or a spawn of a child, comes first and the task is kept, or it finds none.
-- Waits for nobody: what somebody else holds is kept.
-- Without bitmap scans: by the BRIN index all of the history since p_before would be read for each task.  Arrays, where joins
-- would do: these read all bodies, for each edge, and all keys, if statistics are far off.
-- Returns how many tasks went.
create or replace function _prune(p_tasks uuid[], p_before timestamptz) returns integer
    language plpgsql
    set enable_bitmapscan = off
    as $$
#variable_conflict use_column
declare
    v_tasks     uuid[];
    v_others    uuid[];  -- children
    v_keyed     uuid[];
    v_workflows uuid[];
begin
    v_tasks := array(select id from task where id = any (p_tasks) order by id for update skip locked);
    v_tasks := _prunable(v_tasks, p_before);
    -- A retry of a child locks that alone, and a spawn holds a key when it comes to wait for the body of a parent.
    v_others := array(
        select id from task where id = any (array(select e.child_id from edge e where e.parent_id = any (v_tasks))) and id <> all (v_tasks)
        order by id for no key update skip locked);
    v_keyed := array(select k.task_id from task_key k where k.task_id = any (v_tasks) order by k.queue_id, k.key for update skip locked);
    v_tasks := _prunable(array(
        select t from unnest(v_tasks) t
        where t <> all (array(select e.parent_id from edge e
                              where e.parent_id = any (v_tasks) and e.child_id <> all (v_tasks || v_others)
                                and (select true from task c where c.id = e.child_id)))
          and t <> all (array(select k.task_id from task_key k where k.task_id = any (v_tasks) and k.task_id <> all (v_keyed)))), p_before);
    if cardinality(v_tasks) = 0 then
        return 0;
    end if;
    insert into tally (queue_id, completed, failed, cancelled)
        select queue_id, -count(*) filter (where state = 'completed'), -count(*) filter (where state = 'failed'),
               -count(*) filter (where state = 'cancelled')
        from (select queue_id, _end_state(id) as state from task where id = any (v_tasks)) t group by queue_id;
    delete from run where task_id = any (v_tasks);
    delete from task where id = any (v_tasks);
    delete from edge where parent_id = any (v_tasks);
    delete from edge where child_id = any (v_tasks);
    delete from task_key where task_id = any (v_tasks);
    delete from checkpoint where task_id = any (v_tasks);
    delete from progress where task_id = any (v_tasks);
    delete from log where task_id = any (v_tasks);
    delete from artifact where task_id = any (v_tasks);
    delete from deadline where task_id = any (v_tasks);
    delete from waiter where task_id = any (v_tasks);
    delete from audit where task_id = any (v_tasks) and task_id not in (select d.task_id from dead_letter d where d.task_id = any (v_tasks));
    v_workflows := array(
        select distinct n.workflow_id from node n where n.task_id = any (v_tasks)
          and not exists (select from node o join task t on t.id = o.task_id where o.workflow_id = n.workflow_id));
    delete from node where workflow_id = any (v_workflows);
    delete from workflow where id = any (v_workflows);
    return cardinality(v_tasks);
end $$;

-- Looked up one by one: as `not exists` these are joins, which read all of the history if statistics are far off.
create or replace function _prunable(p_tasks uuid[], p_before timestamptz) returns uuid[]
    language sql stable
    set enable_bitmapscan = off
    as $$
        select array(
            select t.id
            from task t
            where t.id = any (p_tasks)
              and get_state(t.id) in ('completed', 'failed', 'cancelled')
              and (select true from run r where r.task_id = t.id and r.finished_at >= p_before limit 1) is null
              -- A child that may still be retried reads its parents' results.
              and (select true from edge e where e.parent_id = t.id
                     and (coalesce(get_state(e.child_id), 'moving') not in ('completed', 'failed', 'cancelled')
                          or (select true from run r where r.task_id = e.child_id and r.finished_at >= p_before limit 1)) limit 1) is null
              and (select true from node n join workflow w on w.id = n.workflow_id
                   where n.task_id = t.id and (w.ended_at is null or w.ended_at >= p_before) limit 1) is null
              and (select true from artifact a where a.task_id = t.id and a.published_at is null limit 1) is null
            order by t.id)
    $$;

-- The regular round: for each queue with a retention the next ends in order of time, p_limit at most.  Each end
-- is looked at once: what was kept then for its child's or workflow's sake is looked at again when these end.
-- For all that is kept for other reasons (a file on its way, a lock, a child in another queue, a commit that came
-- late) a second look goes round and round over the old bodies, some in each call, whatever queue they are of.
-- A slice of time is read by the BRIN index of the history; its length follows how much lies in it.
-- Returns how many tasks went.
create or replace function prune_ended(p_limit integer default 1000) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_queue  record;
    v_before timestamptz;
    v_seen   integer;
    v_ids    uuid[];
    v_last   record;
    v_walk   integer;
    v_bodies uuid[];
    v_pruned integer := 0;
begin
    if not exists (select from queue where retention is not null) then
        return 0;
    end if;
    perform _require_read_committed();
    if not pg_try_advisory_xact_lock(hashtext(current_schema() || '.pruning')) then
        return 0;
    end if;
    insert into pruning (queue_id, up_to) select id, created_at - interval '1 day' from queue where retention is not null on conflict do nothing;
    for v_queue in
        select q.id, p.up_to, p.last_id, p.slice, p.again_id, clock_time() - q.retention as before
        from pruning p join queue q on q.id = p.queue_id where p.up_to < clock_time() - q.retention order by q.id
    loop
        v_before := least(v_queue.before, v_queue.up_to + v_queue.slice);
        select count(*), array_agg(task_id) into v_seen, v_ids from (
            select task_id from run
            where ends and finished_at >= v_queue.up_to and finished_at < v_before and (finished_at, task_id) > (v_queue.up_to, v_queue.last_id)
            order by finished_at, task_id limit p_limit) r;
        if v_seen = p_limit then
            select finished_at, task_id into v_last from run
            where ends and finished_at >= v_queue.up_to and finished_at < v_before and task_id = v_ids[v_seen] order by finished_at desc limit 1;
            update pruning set (up_to, last_id, slice) = (v_last.finished_at, v_last.task_id, greatest(slice / 2, interval '1 ms'))
            where queue_id = v_queue.id;
        else
            update pruning set (up_to, last_id, slice) = (v_before, '00000000-0000-0000-0000-000000000000', least(slice * 2, interval '1 year'))
            where queue_id = v_queue.id;
        end if;
        v_ids := v_ids || array(select e.parent_id from edge e where e.child_id = any (v_ids))
                       || array(select o.task_id from node n join workflow w on w.id = n.workflow_id join node o on o.workflow_id = w.id
                                where n.task_id = any (v_ids) and w.ended_at < v_queue.before);
        v_walk := least(p_limit - v_seen, 200);
        v_bodies := array(select id from task where id > v_queue.again_id and id < _id_floor(v_queue.before + interval '1 day') order by id limit v_walk);
        update pruning set again_id = coalesce(v_bodies[v_walk], '00000000-0000-0000-0000-000000000000') where queue_id = v_queue.id and v_walk > 0;
        v_ids := v_ids || v_bodies;
        v_pruned := v_pruned + _prune(array(select id from task where id = any (v_ids) and queue_id = v_queue.id), v_queue.before);
    end loop;
    return v_pruned;
end $$;
comment on function prune_ended(integer) is 'Remove what ended longer ago than its queue keeps it, a batch of each queue; returns how many tasks went.';

-- By hand: remove ended tasks of a queue that ended more than p_seconds ago, p_limit at most.  Reads bodies from
-- the oldest on, so a call may pass over many that are kept.  Returns how many went (p_dry_run: would go, up to p_limit).
-- Raises AB001, AB005.
create or replace function prune_queue(p_queue text, p_seconds double precision, p_limit integer default 1000, p_dry_run boolean default false)
    returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_queue  integer := _known_queue_id(p_queue);
    v_before timestamptz;
    v_after  uuid := '00000000-0000-0000-0000-000000000000';
    v_ids    uuid[];
    v_count  integer := 0;
begin
    perform _require_read_committed();
    if p_seconds is null or p_seconds < 0 then
        raise exception 'the age is % s; it must be at least 0', coalesce(p_seconds::text, 'null') using errcode = 'AB001';
    end if;
    v_before := clock_time() - make_interval(secs => p_seconds);
    loop
        v_ids := array(select id from task where id > v_after and id < _id_floor(v_before + interval '1 day') and queue_id = v_queue
                       order by id limit least(1000, p_limit - v_count));
        exit when cardinality(v_ids) = 0;
        v_after := v_ids[cardinality(v_ids)];
        v_count := v_count + case when p_dry_run then cardinality(_prunable(v_ids, v_before)) else _prune(v_ids, v_before) end;
    end loop;
    return v_count;
end $$;
comment on function prune_queue(text, double precision, integer, boolean) is
    'Remove ended tasks of a queue that ended longer ago than so many seconds; returns how many went, or would go.';
