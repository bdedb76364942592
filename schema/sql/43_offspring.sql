-- What a run spawns, and what it waits for: ctx.spawn and ctx.wait_for.

-- Spawn what held runs have spawned: [{task (the spawner), id, queue, name, params, options}], params
-- and options as JSON texts.  Children of a workflow's node join its workflow.  With p_save the ids
-- are saved as checkpoints (`checkpoint` of each), so that the task's next run does not spawn them again.
-- Returns the ids that differ from those asked for, because a key was taken.
-- Comes after all locks on `blocked`: joining locks the workflow.
create or replace function _spawn_offspring(p_held _held[], p_spawns jsonb, p_save boolean, p_ended uuid[] default '{}') returns jsonb
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_now         timestamptz := clock_time();
    v_spawners    uuid[];
    v_checkpoints text[];
    v_ids         uuid[];
    v_queues      text[];
    v_names       text[];
    v_params      jsonb[];
    v_options     jsonb[];
    v_specs       _spawn[];
begin
    select array_agg(s.task order by o), array_agg(s.checkpoint order by o), array_agg(s.id order by o), array_agg(s.queue order by o),
           array_agg(s.name order by o), array_agg(s.params::jsonb order by o),
           array_agg(nullif(case when t.workflow_id is null then '{}' else jsonb_build_object('workflow', t.workflow_id) end
                            || coalesce(s.options::jsonb, '{}'), '{}') order by o)
    into v_spawners, v_checkpoints, v_ids, v_queues, v_names, v_params, v_options
    from rows from (jsonb_to_recordset(p_spawns)
                    as (task uuid, checkpoint text, id uuid, queue text, name text, params text, options text))
         with ordinality as s (task, checkpoint, id, queue, name, params, options, o)
    join unnest(p_held) h on h.task_id = s.task
    join task t on t.id = s.task;
    if v_ids is null then
        return '{}';
    end if;
    if cardinality(v_ids) > 100000 then
        raise exception 'runs have spawned % tasks in one report; at most 100000 are taken', cardinality(v_ids) using errcode = 'AB001';
    end if;
    -- An id was made when the run asked for it, which may be days ago.
    if exists (select from unnest(v_ids, v_spawners) u (id, spawner)
               where u.id is null or u.id not between _id_floor(_id_time(u.spawner) - interval '1 day') and _id_floor(v_now + interval '1 day')) then
        raise exception 'the id of a task that a run has spawned is not a UUIDv7 of the time since its spawner''s own' using errcode = 'AB001';
    end if;
    if cardinality(v_ids) <> (select count(distinct i) from unnest(v_ids) i) then
        raise exception 'runs have spawned two tasks of one id' using errcode = 'AB001';
    end if;
    perform _check_size('params', p) from unnest(v_params) p;
    v_specs := _spawn_all(v_ids, v_queues, v_names, v_params, v_options, v_now, p_ended);
    if p_save then
        insert into checkpoint (task_id, name, value, created_at)
            select v_spawners[s.ordinal], v_checkpoints[s.ordinal], to_jsonb(s.id), v_now from unnest(v_specs) s
            on conflict (task_id, name) do update set (value, created_at) = (excluded.value, excluded.created_at);
    end if;
    return (select coalesce(jsonb_object_agg(v_ids[s.ordinal], s.id) filter (where s.id <> v_ids[s.ordinal]), '{}') from unnest(v_specs) s);
end $$;

-- For _end_waits.  Stands here because an upgrade runs this file again.
create index if not exists blocked_overdue on blocked (run_at) where awaiting;

-- Put runs whose claim was just taken where they wait for tasks: p_awaits is [{task, on: [ids], seconds}].
-- After so many seconds (`run_at`, which means nothing else once a task has started) they go on all the same.
create or replace function _place_waiting(p_held _held[], p_awaits jsonb) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_suspects uuid[] := _suspects(array(select a.task from jsonb_to_recordset(p_awaits) as a (task uuid)));
begin
    with item as (
        select distinct on (h.task_id) h.task_id, h.attempt, clock_time() + make_interval(secs => a.seconds) as until
        from unnest(p_held) h join jsonb_to_recordset(p_awaits) as a (task uuid, seconds double precision) on a.task = h.task_id),
    placed as (
        insert into blocked (task_id, queue_id, level, attempt, suspect, lane, needs, run_at, condition, awaiting, quorum, remaining)
        select t.id, t.queue_id, 2 * t.priority, i.attempt, t.id = any (v_suspects), t.lane, _counted(t.needs), i.until, 'all_done', true, 0, 0
        from item i join task t on t.id = i.task_id
        returning queue_id)
    insert into tally (queue_id, running, blocked) select queue_id, -count(*), count(*) from placed group by queue_id;
    perform _tell_due(clock_time() + make_interval(secs => min(a.seconds)))
        from jsonb_to_recordset(p_awaits) as a (seconds double precision) having min(a.seconds) is not null;
end $$;

-- Note for which tasks such runs wait, and have sweep_late count them.  p_taken tells which ids are others' by now.
-- Raises AB001.
create or replace function _await_tasks(p_held _held[], p_awaits jsonb, p_taken jsonb) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_itself uuid;
begin
    select h.task_id into v_itself
        from unnest(p_held) h join jsonb_to_recordset(p_awaits) as a (task uuid, "on" jsonb) on a.task = h.task_id
        cross join jsonb_array_elements_text(a."on") u (id)
        where coalesce(p_taken ->> u.id, u.id)::uuid = h.task_id;
    if found then
        raise exception 'task % would wait for itself; what it spawns under a key of its own is itself', v_itself using errcode = 'AB001';
    end if;
    -- What an earlier wait left behind does not count any more.
    delete from edge e using unnest(p_held) h, jsonb_to_recordset(p_awaits) as a (task uuid)
        where e.child_id = h.task_id and a.task = h.task_id and e.awaited;
    insert into edge (parent_id, child_id, awaited)
        select distinct coalesce(p_taken ->> u.id, u.id)::uuid, h.task_id, true
        from unnest(p_held) h join jsonb_to_recordset(p_awaits) as a (task uuid, "on" jsonb) on a.task = h.task_id
        cross join jsonb_array_elements_text(a."on") u (id) order by 2, 1;
    perform _count_anew(array(
        select h.task_id from unnest(p_held) h join jsonb_to_recordset(p_awaits) as a (task uuid) on a.task = h.task_id order by 1));
end $$;

-- Runs that have waited for tasks long enough go on.  Returns how many.
create or replace function _end_waits() returns integer
    language plpgsql
    as $$
declare
    v_tasks uuid[];
begin
    -- Skipping what is locked: whoever holds it moves it, or the next round does.
    v_tasks := array(select task_id from blocked where awaiting and run_at <= clock_time() order by task_id for update skip locked);
    if cardinality(v_tasks) > 0 then
        delete from late where child_id = any (v_tasks);
        perform _unblock(v_tasks);
    end if;
    return cardinality(v_tasks);
end $$;

-- How tasks stand, and how they ended: what a run that waits for them is given.
create or replace function get_results(p_tasks uuid[])
    returns table (task_id uuid, name text, state text, result jsonb, error jsonb, publishing boolean)
    language sql stable security definer set search_path from current
    as $$
        select s.task_id, (select x.name from task t join executor x on x.id = t.executor_id where t.id = s.task_id), s.state,
               case when s.state = 'completed' then r.result end,
               case when s.state in ('failed', 'cancelled') then r.error end,
               s.state = 'completed' and exists (select from artifact a where a.task_id = s.task_id and a.published_at is null)
        from get_states(p_tasks) s
        left join lateral (
            select r.result, r.error from run r
            where r.task_id = s.task_id and r.ends and r.finished_at >= _ended_from(s.task_id)
            order by r.attempt desc, r.started_at is null, r.finished_at desc limit 1) r on s.state in ('completed', 'failed', 'cancelled')
    $$;
comment on function get_results(uuid[]) is 'State of tasks, result or error of those that have ended, and whether files of one are not in their places yet; a state of null: no such task.';
