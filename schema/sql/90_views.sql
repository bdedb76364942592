-- Every read the command line and the interfaces make.

-- Counts of all queues: totals and what is not folded yet, read in one statement.
create or replace function _counts() returns table (queue_id integer, stats queue_stats)
    language sql stable
    set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
        select c.queue_id, row(sum(blocked), sum(pending), sum(sleeping), sum(running), sum(completed), sum(failed), sum(cancelled))::queue_stats
        from (select queue_id, blocked, pending, sleeping, running, completed, failed, cancelled from total
              union all
              select queue_id, blocked, pending, sleeping, running, completed, failed, cancelled
              from tally where id >= (select tally_base from horizon)) c
        group by c.queue_id
    $$;

create or replace function get_queue_stats(p_queue text) returns queue_stats
    language plpgsql stable security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_id    integer := _known_queue_id(p_queue);
    v_stats queue_stats;
begin
    select (c.stats).* into v_stats from _counts() c where c.queue_id = v_id;
    return v_stats;
end $$;
comment on function get_queue_stats(text) is 'How many tasks of a queue are in each state; its cost does not depend on how many there are.';

create or replace function list_queues()
    returns table (name text, paused boolean, blocked bigint, pending bigint, sleeping bigint, running bigint,
                   completed bigint, failed bigint, cancelled bigint, oldest_pending_seconds double precision, limits jsonb)
    language sql volatile security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
        select q.name, q.paused_at is not null, (c.stats).*,
               extract(epoch from clock_time() - oldest.created_at)::double precision, _limits(q)
        from queue q join _counts() c on c.queue_id = q.id
        left join lateral (
            -- No join, which statistics of an empty table would have read all of it.
            select min(least(
                (select t.created_at from task t where t.id = (
                    select r.task_id from ready r
                    where r.queue_id = l.queue_id and r.level = l.level and r.seq >= l.base and r.needs is null order by r.seq limit 1)),
                (select t.created_at from task t where t.id = (
                    select r.task_id from ready r
                    where r.queue_id = l.queue_id and r.level = l.level and r.seq >= l.base and r.needs is not null
                    order by r.seq limit 1)))) as created_at
            from _levels() l where l.queue_id = q.id) oldest on true
        order by q.name
    $$;
comment on function list_queues() is 'Queues with their counts, the age of their oldest pending task, and their limits.';

create or replace function list_workers(p_all boolean default false)
    returns table (id integer, name text, host text, pid integer, state text, queues text[], concurrency integer, running integer,
                   started_at timestamptz, last_seen timestamptz, versions jsonb, offers jsonb, load jsonb,
                   held_up_since timestamptz, draining boolean, wanted_concurrency integer, held jsonb, lease_seconds double precision)
    language sql stable security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
        select id, name, host, pid, state, queues, concurrency,
               (select coalesce(sum(cardinality(l.task_ids)), 0)::integer from lease l
                where l.id >= (w.id::bigint << 32) + w.oldest_claim and l.id < (w.id + 1)::bigint << 32),
               started_at, last_seen, versions, offers, load, held_up_since, draining, wanted_concurrency,
               (select coalesce(jsonb_object_agg(g.resource, g.amount), '{}') from (
                    select h.resource, sum(h.amount) as amount from holding h
                    where h.lease_id >= w.id::bigint << 32 and h.lease_id < (w.id + 1)::bigint << 32 and _is_held(h)
                    group by h.resource) g),
               lease_seconds
        from worker w
        where state in ('running', 'stopping') or p_all or (state = 'lost' and last_seen > clock_time() - interval '1 hour')
        order by id
    $$;
comment on function list_workers(boolean) is 'Workers that are alive, and those lost within the hour; with p_all all that ever were.';

create or replace function list_executors()
    returns table (name text, queue text, runs_in text, description text, max_attempts smallint, timeout double precision,
                   params_schema jsonb, registered_at timestamptz, needs jsonb)
    language sql stable security definer set search_path from current
    as $$
        select name, queue, runs_in, description, max_attempts, extract(epoch from timeout)::double precision, params_schema, registered_at, coalesce(needs, '{}')
        from executor where registered_at is not null order by name
    $$;
comment on function list_executors() is 'Executors that workers have registered.';

create or replace function get_task(p_task uuid) returns jsonb
    language plpgsql stable security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_task  task;
    v_state text;
    v_from  timestamptz;
    v_last  run;
    v_lease lease;
    v_runs  jsonb;
    v_timer timer;
begin
    select * into v_task from task where id = p_task;
    if not found then
        return null;
    end if;
    -- A stable function sees one snapshot: state, place and history agree.
    v_state := get_state(p_task);
    v_from := case when v_state in ('completed', 'failed', 'cancelled') then _ended_from(p_task) else _ran_from(p_task) end;
    select * into v_lease from _leases_of(array[p_task]);
    select * into v_timer from timer where task_id = p_task;
    select * into v_last from run
        where task_id = p_task and finished_at >= v_from
        order by attempt desc, ends desc, started_at is null, finished_at desc limit 1;
    select coalesce(jsonb_agg(to_jsonb(r) order by r.finished_at nulls last), '[]') into v_runs from (
        select attempt, state::text, (select w.name from worker w where w.id = lease_worker(lease_id)) as worker,
               started_at, finished_at, error
        from run where task_id = p_task and finished_at >= v_from
        union all
        select v_lease.attempts[array_position(v_lease.task_ids, p_task)], 'running',
               (select w.name from worker w where w.id = lease_worker(v_lease.id)), v_lease.claimed_at, null, null
        where v_lease.id is not null) r;
    return jsonb_build_object(
        'id', v_task.id,
        'queue', (select name from queue where id = v_task.queue_id),
        'name', (select name from executor where id = v_task.executor_id),
        'state', v_state,
        'priority', v_task.priority,
        'params', v_task.params,
        'headers', coalesce(v_task.headers, '{}'),
        'tags', coalesce(to_jsonb(v_task.tags), '[]'),
        'key', v_task.key,
        'workflow_id', v_task.workflow_id,
        'workflow', (select name from workflow where id = v_task.workflow_id),
        'node', (select n.name from node n where n.task_id = p_task),
        'depends_on', coalesce(to_jsonb(v_task.depends_on), '[]'),
        'children', (select coalesce(jsonb_agg(e.child_id order by e.child_id), '[]') from (
            select child_id from edge where parent_id = p_task and not awaited limit 1000) e),
        'attempts', (select count(distinct (r ->> 'attempt')) from jsonb_array_elements(v_runs) r where r -> 'started_at' <> 'null'),
        'max_attempts', v_task.max_attempts,
        'timeout', extract(epoch from v_task.timeout),
        'created_at', v_task.created_at,
        'run_at', case when v_timer.task_id is null then v_task.run_at when isfinite(v_timer.wake_at) then v_timer.wake_at end,
        'started_at', (select min(started_at) from jsonb_to_recordset(v_runs) as r (started_at timestamptz)),
        'finished_at', case when v_state in ('completed', 'failed', 'cancelled') then v_last.finished_at end,
        'result', case when v_state = 'completed' then v_last.result end,
        'error', case when v_state = 'failed' then v_last.error
                      when v_state in ('pending', 'sleeping', 'running') and v_last.state in ('failed', 'lost') then v_last.error end,
        'reason', case when v_state = 'cancelled' then v_last.error ->> 'message' else v_timer.reason end,
        'progress', (select jsonb_build_object('done', done, 'total', total, 'message', message, 'updated_at', updated_at)
                     from progress where task_id = p_task),
        'log', (select jsonb_build_object('bytes', sum(bytes), 'lines', sum(breaks), 'dropped_bytes', sum(upto) - sum(bytes))
                from (select sum(bytes) as bytes, sum(breaks) as breaks, max(upto) as upto from log where task_id = p_task
                      group by attempt) l having count(*) > 0),
        'runs', v_runs,
        'artifacts', (select coalesce(jsonb_agg(jsonb_build_object('path', path, 'kind', kind, 'sha256', sha256, 'bytes', bytes)
                                                order by path), '[]') from artifact where task_id = p_task),
        'history', _history_of(p_task),
        'lane', v_task.lane,
        'needs', coalesce(v_task.needs, '{}'),
        'when', coalesce(v_task.condition, 'all_success'),
        'deadlines', (select coalesce(jsonb_object_agg(kind, due_at), '{}') from deadline where task_id = p_task));
end $$;
comment on function get_task(uuid) is 'Everything about a task as one document; null for an unknown id.';
