-- A fresh task like an old one.

-- Spawn a task with the body of one that has ended, which stays as it is.  Key, parents, workflow and start time
-- are the old one's alone.  Returns the new id.  Raises AB003, AB004.
create or replace function respawn_task(p_task uuid) returns uuid
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_task  task;
    v_state text;
    v_new   uuid;
begin
    select * into v_task from task where id = p_task;
    if not found then
        raise exception 'there is no task %', coalesce(p_task::text, 'null') using errcode = 'AB003';
    end if;
    v_state := get_state(p_task);
    if v_state is null or v_state not in ('completed', 'failed', 'cancelled') then
        raise exception 'task % is %; only a task that has ended can be spawned anew', p_task, coalesce(v_state, 'moving') using errcode = 'AB004';
    end if;
    select s.task_id into v_new from spawn_task(
        (select name from queue where id = v_task.queue_id), (select name from executor where id = v_task.executor_id), v_task.params,
        jsonb_build_object(
            'priority', v_task.priority, 'headers', v_task.headers, 'tags', v_task.tags, 'max_attempts', v_task.max_attempts,
            'timeout', extract(epoch from v_task.timeout), 'retry', v_task.retry, 'needs', v_task.needs, 'lane', v_task.lane)) s;
    insert into audit (at, task_id, action, detail) values (clock_time(), p_task, 'respawn', 'as ' || v_new);
    return v_new;
end $$;
comment on function respawn_task(uuid) is 'Spawn a fresh task with the body of one that has ended; returns its id.';
