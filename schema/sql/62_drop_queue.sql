-- Queues that are done with: their ended tasks go elsewhere, and they go.

-- Remove a queue of which no task is kept; its limits and the keys of its tasks go with it.  Spawning into its
-- name makes another.  Returns false if there is none (p_dry_run: changes nothing, but is refused the same).
-- Raises AB004 while tasks or dead letters of it are kept, a worker serves it, or a transaction that lasts is in the way.
create or replace function drop_queue(p_name text, p_dry_run boolean default false) returns boolean
    language plpgsql security definer set search_path from current set lock_timeout = '1s'
    as $$
#variable_conflict use_column
declare
    v_id      integer;
    v_kept    bigint;
    v_letters bigint;
    v_workers text;
begin
    if not p_dry_run then
        perform _require_read_committed();
        begin
            -- A round may hold rows of `total` when it comes to read `queue`; it takes this lock first.
            perform pg_advisory_xact_lock(hashtext(current_schema() || '.tallies'));
            -- Whoever looked up the id may still hand in a task under it, and has read this table.  Nobody waits long
            -- for a queue to go: behind a dump or a long transaction the lock is given up.
            lock table queue in access exclusive mode;
        exception when lock_not_available then
            raise exception 'queue % cannot go now: a transaction that has looked at queues, a dump perhaps, goes on for longer than a second; try again after it', p_name
                using errcode = 'AB004';
        end;
    end if;
    select id into v_id from queue where name = p_name;
    if v_id is null then
        return false;
    end if;
    -- Every task is counted, in whatever state, until it is pruned.
    select (c.stats).blocked + (c.stats).pending + (c.stats).sleeping + (c.stats).running
           + (c.stats).completed + (c.stats).failed + (c.stats).cancelled
        into v_kept from _counts() c where c.queue_id = v_id;
    v_kept := coalesce(v_kept, 0);
    select count(*) into v_letters from dead_letter where queue_id = v_id;
    if v_kept > 0 or v_letters > 0 then
        raise exception 'queue % cannot go: % and % dead letters of it are kept; `absurd queue prune %` and `absurd dlq purge --queue %` remove what has ended',
            p_name, _tasks(v_kept), v_letters, p_name, p_name using errcode = 'AB004';
    end if;
    select string_agg(format('%s (%s)', name, id), ', ' order by id) into v_workers
        from worker where state in ('running', 'stopping') and p_name = any (queues);
    if v_workers is not null then
        raise exception 'queue % cannot go: it is served by the workers %; stop them first', p_name, v_workers
            using errcode = 'AB004';
    end if;
    if p_dry_run then
        return true;
    end if;
    delete from listener where queue_id = v_id;
    delete from task_key where queue_id = v_id;
    delete from level where queue_id = v_id;
    delete from base_mark where queue_id = v_id;
    delete from throttle where queue_id = v_id;
    delete from pruning where queue_id = v_id;
    delete from total where queue_id = v_id;  -- a tally without a total is folded into nothing
    delete from queue where id = v_id;
    return true;
end $$;
comment on function drop_queue(text, boolean) is
    'Remove a queue of which no task is kept and that no worker serves; false if there is none.';

-- Move what has ended of a queue, from the task p_first on, to another queue, with its dead letters; so that a
-- queue that was made for one task can go.  Its keys become free.  Returns how many tasks moved.  Raises AB005, AB007.
create or replace function move_ended(p_from text, p_into text, p_first uuid) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_from  integer := _known_queue_id(p_from);
    v_into  integer;
    v_tasks uuid[];
begin
    perform _require_read_committed();
    v_into := _queue_id(p_into);
    if v_from = v_into then
        return 0;
    end if;
    -- The bodies first, as a retry does: either it comes first and the task stays, or it finds the task moved.
    v_tasks := array(select id from task where id >= p_first and queue_id = v_from order by id for no key update);
    v_tasks := array(select id from task where id = any (v_tasks) and get_state(id) in ('completed', 'failed', 'cancelled'));
    update task set queue_id = v_into where id = any (v_tasks);
    delete from task_key where task_id = any (v_tasks);
    update dead_letter set queue_id = v_into where task_id = any (v_tasks);
    insert into tally (queue_id, completed, failed, cancelled)
        select q.id, q.sign * count(*) filter (where state = 'completed'), q.sign * count(*) filter (where state = 'failed'),
               q.sign * count(*) filter (where state = 'cancelled')
        from (select _end_state(t) as state from unnest(v_tasks) t) e, (values (v_from, -1), (v_into, 1)) q (id, sign)
        group by q.id, q.sign;
    insert into audit (at, task_id, action, detail)
        select clock_time(), t, 'move', jsonb_build_object('queue', jsonb_build_object('old', p_from, 'new', p_into))::text
        from unnest(v_tasks) t;
    return cardinality(v_tasks);
end $$;
comment on function move_ended(text, text, uuid) is
    'Move the ended tasks of a queue, from one on, to another queue; returns how many.';
