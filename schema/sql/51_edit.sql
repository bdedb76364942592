-- People's changes of a task before it is claimed.

-- JSON with a merge patch (RFC 7396) applied.
create or replace function _merged(p_value jsonb, p_patch jsonb) returns jsonb
    language plpgsql immutable
    as $$
declare
    v_key    text;
    v_result jsonb := case when jsonb_typeof(p_value) = 'object' then p_value else '{}' end;
begin
    if jsonb_typeof(p_patch) is distinct from 'object' then
        return p_patch;
    end if;
    for v_key in select jsonb_object_keys(p_patch) loop
        v_result := case when p_patch -> v_key = 'null' then v_result - v_key
                         else v_result || jsonb_build_object(v_key, _merged(v_result -> v_key, p_patch -> v_key)) end;
    end loop;
    return v_result;
end $$;

-- JSON with one value put at a path (a.b or a.0); objects on the way are made.  Raises AB001.
create or replace function _with_value(p_value jsonb, p_path text, p_new jsonb) returns jsonb
    language plpgsql immutable
    as $$
declare
    v_path  text[] := string_to_array(p_path, '.');
    v_value jsonb := p_value;
begin
    for n in 1..cardinality(v_path) - 1 loop
        if v_value #> v_path[:n] is null then
            v_value := jsonb_set(v_value, v_path[:n], '{}');
        end if;
    end loop;
    v_value := jsonb_set(v_value, v_path, p_new);
    if v_value #> v_path is distinct from p_new then
        raise exception 'nothing can be put at % in the params', quote_literal(left(p_path, 200)) using errcode = 'AB001';
    end if;
    return v_value;
exception when invalid_text_representation or invalid_parameter_value then
    raise exception 'nothing can be put at % in the params: %', quote_literal(left(p_path, 200)), sqlerrm using errcode = 'AB001';
end $$;

-- Params as a merge patch and values at paths ({"a.b": 1}) make them.  Raises AB001, AB009.
create or replace function _edited(p_params jsonb, p_patch jsonb, p_set jsonb) returns jsonb
    language plpgsql immutable
    as $$
declare
    v_params jsonb := case when p_patch is null then p_params else _merged(p_params, p_patch) end;
    v_path   text;
begin
    if jsonb_typeof(p_set) <> 'object' then
        raise exception 'set is %; it must be a JSON object of paths and values', left(p_set::text, 100) using errcode = 'AB001';
    end if;
    for v_path in select k from jsonb_object_keys(p_set) k order by k loop
        v_params := _with_value(v_params, v_path, p_set -> v_path);
    end loop;
    perform _check_size('params', v_params);
    return v_params;
end $$;

-- What differs between two JSON objects, as {"old": {...}, "new": {...}}.
create or replace function _difference(p_old jsonb, p_new jsonb) returns jsonb
    language sql immutable
    as $$
        select case when jsonb_typeof(p_old) = 'object' and jsonb_typeof(p_new) = 'object' then jsonb_build_object(
            'old', coalesce((select jsonb_object_agg(k, v) from jsonb_each(p_old) o (k, v) where p_new -> k is distinct from v), '{}'),
            'new', coalesce((select jsonb_object_agg(k, v) from jsonb_each(p_new) n (k, v) where p_old -> k is distinct from v), '{}'))
        else jsonb_build_object('old', p_old, 'new', p_new) end
    $$;

-- Change a task before it is claimed: priority; run_at or delay; params whole, as a merge patch (`merge`),
-- or value by value (`set`: {"a.b": 1}).  The place is locked first: a claim that came before wins and the
-- edit is refused, one that comes after passes the row over until the edit is committed.
-- Returns what was changed, as old and new.  Raises AB001, AB003, AB004, AB009.
create or replace function edit_task(p_task uuid, p_changes jsonb) returns jsonb
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_known  constant text[] := array['priority', 'run_at', 'delay', 'params', 'merge', 'set'];
    v_bad    text;
    v_task   task;
    v_new    task;
    v_now    timestamptz := clock_time();
    v_timed  boolean := p_changes ?| array['run_at', 'delay'];
    v_place  text;
    v_change jsonb := '{}';
begin
    perform _require_read_committed();
    if jsonb_typeof(p_changes) is distinct from 'object' then
        raise exception 'changes are %; they must be a JSON object', left(p_changes::text, 100) using errcode = 'AB001';
    end if;
    select string_agg(k, ', ') into v_bad from jsonb_object_keys(p_changes) k where k <> all (v_known);
    if v_bad is not null then
        raise exception 'unknown change %; known are %', v_bad, array_to_string(v_known, ', ') using errcode = 'AB001';
    end if;
    select * into v_task from task where id = p_task for no key update;
    if not found then
        raise exception 'there is no task %', coalesce(p_task::text, 'null') using errcode = 'AB003';
    end if;
    v_new := v_task;
    v_new.priority := coalesce(_option_number(p_changes, 'priority', -10000, 10000, true), v_task.priority);
    if v_timed then
        v_new.run_at := coalesce(_option_start(p_changes), v_now);
    end if;
    v_new.params := _edited(coalesce(p_changes -> 'params', v_task.params), p_changes -> 'merge', p_changes -> 'set');

    v_place := _lock_place(p_task);
    if v_place is null or exists (select from wait where task_id = p_task) or exists (select from blocked where task_id = p_task and awaiting) then
        raise exception 'task % is %; it can be edited only before it is claimed', p_task,
            case when v_place is null then coalesce(get_state(p_task), 'moving') else 'in the middle of a run that waits' end
            using errcode = 'AB004';
    end if;
    if v_new.priority <> v_task.priority then
        v_change := v_change || jsonb_build_object('priority', jsonb_build_object('old', v_task.priority, 'new', v_new.priority));
    end if;
    if v_timed then
        v_change := v_change || jsonb_build_object('run_at', jsonb_build_object(
            'old', coalesce((select wake_at from timer where task_id = p_task), v_task.run_at), 'new', v_new.run_at));
    end if;
    if v_new.params <> v_task.params then
        v_change := v_change || jsonb_build_object('params', _difference(v_task.params, v_new.params));
    end if;
    if v_change = '{}' then
        return v_change;
    end if;
    update task set (priority, run_at, params) = (v_new.priority, v_new.run_at, v_new.params) where id = p_task;
    perform _move_place(p_task, v_place, v_new.priority, case when v_timed then v_new.run_at end);
    insert into audit (at, task_id, action, detail) values (v_now, p_task, 'edit', v_change::text);
    return v_change;
end $$;
comment on function edit_task(uuid, jsonb) is
    'Change priority, run_at or delay, params (whole, merge, set) of a task that is not claimed; returns old and new.';

-- Lock the row where a task waits and tell which table that is: ready, timer or blocked; null when it waits nowhere.
create or replace function _lock_place(p_task uuid) returns text
    language plpgsql
    as $$
begin
    -- It may move while we wait for its row.
    for i in 1..100 loop
        perform from ready where task_id = p_task for update;
        if found then
            return 'ready';
        end if;
        perform from timer where task_id = p_task for update;
        if found then
            return 'timer';
        end if;
        perform from blocked where task_id = p_task for update;
        if found then
            return 'blocked';
        end if;
        exit when get_state(p_task) in ('running', 'completed', 'failed', 'cancelled');
    end loop;
    return null;
end $$;

-- Give a waiting task, whose place is locked, another priority and (unless null) another time.  A row of
-- `ready` is never updated: a claim could pass it over.
create or replace function _move_place(p_task uuid, p_place text, p_priority integer, p_run_at timestamptz) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_later boolean := p_run_at > clock_time();
    v_queue integer := (select queue_id from task where id = p_task);
begin
    perform _use_level(v_queue, 2 * p_priority + b) from generate_series(0, 1) b
        where b = 0 or exists (select from ready where task_id = p_task and level & 1 = 1);
    if p_place = 'blocked' then
        update blocked set (level, run_at) = (2 * p_priority, coalesce(p_run_at, run_at)) where task_id = p_task;
    elsif p_place = 'timer' and coalesce(v_later, true) then
        update timer set (level, wake_at) = (2 * p_priority + (level & 1), coalesce(p_run_at, wake_at)) where task_id = p_task;
        perform _tell_due(p_run_at);
    elsif p_place = 'timer' then
        with gone as (delete from timer where task_id = p_task returning *)
        insert into ready (task_id, queue_id, level, attempt, suspect, lane, needs)
            select task_id, queue_id, 2 * p_priority, attempt, suspect, lane, needs from gone;
        insert into tally (queue_id, sleeping, pending) values (v_queue, -1, 1);
        perform _wake(array[v_queue]);
    elsif v_later then
        with gone as (delete from ready where task_id = p_task returning *)
        insert into timer (task_id, wake_at, queue_id, level, attempt, suspect, lane, needs, reason)
            select task_id, p_run_at, queue_id, 2 * p_priority, attempt, suspect, lane, needs, 'delay' from gone;
        perform _tell_due(p_run_at);
        insert into tally (queue_id, pending, sleeping) values (v_queue, -1, 1);
    elsif exists (select from ready where task_id = p_task and level - (level & 1) <> 2 * p_priority) then
        with gone as (delete from ready where task_id = p_task returning *)
        insert into ready (task_id, queue_id, level, attempt, suspect, lane, needs)
            select task_id, queue_id, 2 * p_priority + (level & 1), attempt, suspect, lane, needs from gone;
    end if;
end $$;
