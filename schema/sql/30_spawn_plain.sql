-- Spawn one task without options: the spawn that somebody waits for.

-- One task without options under an id that the caller has made: what spawn_tasks() does, for what is spawned most
-- often.  Nothing is an array here, all that has to be looked up is one statement, and helpers are called where they have
-- something to do: each statement less is felt.
-- Raises AB001, AB004, AB007, AB009.  Touches queue, executor, task, ready, level, tally.
create or replace function spawn_plain(p_id uuid, p_queue text, p_name text, p_params jsonb) returns void
    language plpgsql security definer set search_path from current set enable_seqscan = off
    as $$
declare
    v_now      timestamptz := clock_time();
    v_queue    integer;
    v_executor integer;
    v_level    boolean;
    v_listened boolean;
begin
    perform _require_no_upgrade();
    perform _check_id(p_id, v_now);
    if pg_column_size(p_params) > 4000 then
        perform _check_size('params', p_params);
    end if;
    select q.id, x.id, exists (select from level where queue_id = q.id and level = 0), exists (select from listener where queue_id = q.id)
        into v_queue, v_executor, v_level, v_listened
        from queue q, executor x where q.name = p_queue and x.name = p_name;
    if v_queue is null then
        v_queue := _queue_id(p_queue);
        v_executor := _executor_id(p_name);
        v_level := false;
        v_listened := true;  -- perhaps, if it is the executor that is new
    end if;
    insert into task (id, created_at, queue_id, executor_id, params)
        values (p_id, v_now, v_queue, v_executor, coalesce(p_params, '{}'))
        on conflict do nothing;
    if not found then  -- the same spawn come again: it has its place
        return;
    end if;
    insert into ready (task_id, queue_id, level, attempt) values (p_id, v_queue, 0, 1);
    insert into tally (queue_id, pending) values (v_queue, 1);
    if not v_level then
        perform _use_level(v_queue, 0);
    end if;
    if v_listened then
        perform _wake(array[v_queue]);
    end if;
end $$;
comment on function spawn_plain(uuid, text, text, jsonb) is
    'Spawn one task that has no options, under the UUIDv7 given; once, however often it is called.';

-- Refuse an id that is no UUIDv7 of these days.  Raises AB001.
create or replace function _check_id(p_id uuid, p_now timestamptz) returns void
    language plpgsql immutable
    as $$
begin
    if p_id is null or _id_time(p_id) not between p_now - interval '1 day' and p_now + interval '1 day' then
        raise exception 'a task id is not a UUIDv7 of the last or next day by the database''s clock' using errcode = 'AB001';
    end if;
end $$;
