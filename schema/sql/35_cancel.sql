-- Cancel a task in any state; retry one that has ended.

-- The state in which a task ended, by its last run.
create or replace function _end_state(p_task uuid) returns text
    language sql stable
    as $$
        select case when r.state = 'lost' then 'failed' else r.state::text end
        from run r
        where r.task_id = p_task and r.finished_at >= _id_time(p_task) - interval '1 day' and r.ends
        order by r.finished_at desc limit 1
    $$;

-- Where a task stands, in one statement; null for an id that was never a task.
create or replace function get_state(p_task uuid) returns text
    language sql stable security definer set search_path from current
    as $$
        select coalesce(
            (select 'pending' from ready where task_id = p_task),
            (select 'running' from lease where p_task = any (task_ids)),
            (select 'sleeping' from timer where task_id = p_task),
            (select 'blocked' from blocked where task_id = p_task),
            _end_state(p_task))
    $$;
comment on function get_state(uuid) is 'The state of a task, null for an unknown id.';

create or replace function get_states(p_tasks uuid[]) returns table (task_id uuid, state text)
    language sql stable security definer set search_path from current
    as $$ select t, get_state(t) from unnest(p_tasks) t $$;
comment on function get_states(uuid[]) is 'States of several tasks; null for unknown ids.';

-- Cancel a task and all that waits for it.  What runs is taken from its lease at once, so that
-- nothing it reports from now on counts, and its worker is told to stop it.  A task that has ended
-- stays as it is.  Returns the state afterwards.  Raises AB003.
create or replace function cancel_task(p_task uuid, p_reason text default null) returns text
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_now   timestamptz := clock_time();
    v_state text;
    v_lease lease;
    v_place record;
begin
    perform _require_read_committed();
    perform from task where id = p_task for update;
    if not found then
        raise exception 'there is no task %', coalesce(p_task::text, 'null') using errcode = 'AB003';
    end if;
    -- A row that moves between the look and the lock is looked for again.
    for i in 1..100 loop
        v_state := get_state(p_task);
        case v_state
        when 'running' then
            select * into v_lease from lease where p_task = any (task_ids) for update;
            continue when not found or p_task <> all (v_lease.task_ids);
            select h.attempt, h.claimed_at, h.lease_id, h.queue_id into v_place from _take_claims(array[v_lease.id], array[p_task]) h;
            insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
            values (p_task, v_place.claimed_at, v_now, v_place.lease_id, 'cancelled', v_place.attempt, true, _cancellation(p_reason));
            insert into tally (queue_id, running, cancelled) values (v_place.queue_id, -1, 1);
            perform pg_notify(current_schema() || '_lease', v_lease.id::text);
            perform _settle(array[p_task], false);
        when 'pending' then
            delete from ready where task_id = p_task returning queue_id, attempt into v_place;
            continue when not found;
            insert into run (task_id, finished_at, state, attempt, ends, error)
            values (p_task, v_now, 'cancelled', v_place.attempt, true, _cancellation(p_reason));
            insert into tally (queue_id, pending, cancelled) values (v_place.queue_id, -1, 1);
            perform _settle(array[p_task], false);
        when 'sleeping' then
            delete from timer where task_id = p_task returning queue_id, attempt into v_place;
            continue when not found;
            delete from wait where task_id = p_task;
            insert into run (task_id, finished_at, state, attempt, ends, error)
            values (p_task, v_now, 'cancelled', v_place.attempt, true, _cancellation(p_reason));
            insert into tally (queue_id, sleeping, cancelled) values (v_place.queue_id, -1, 1);
            perform _settle(array[p_task], false);
        when 'blocked' then
            continue when p_task <> all (coalesce(_cancel_blocked(array[p_task], p_task, p_reason), '{}'));
        when 'completed', 'failed', 'cancelled' then
            return v_state;
        else
            continue;  -- between two places of an uncommitted move
        end case;
        insert into audit (at, task_id, action, detail) values (v_now, p_task, 'cancel', p_reason);
        return 'cancelled';
    end loop;
    raise exception 'task % moves too fast to be cancelled; try again', p_task using errcode = 'AB004';
end $$;
comment on function cancel_task(uuid, text) is 'Cancel a task and its dependents; returns the state afterwards.';

-- Give a task that has ended one more attempt, in place: same id, history kept.
-- Raises AB003, AB004.
create or replace function retry_task(p_task uuid) returns text
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_task    task;
    v_state   text;
    v_attempt integer;
begin
    perform _require_read_committed();
    -- The lock first, then the look: two retries of one task would else make two rows.
    select * into v_task from task where id = p_task for update;
    if not found then
        raise exception 'there is no task %', coalesce(p_task::text, 'null') using errcode = 'AB003';
    end if;
    v_state := get_state(p_task);
    if v_state is null or v_state not in ('completed', 'failed', 'cancelled') then
        raise exception 'task % is %; only a task that has ended can be retried', p_task, coalesce(v_state, 'moving') using errcode = 'AB004';
    end if;
    -- A run that was cancelled before it started has used no attempt.
    select max(r.attempt + (r.started_at is not null)::integer) into v_attempt
        from run r where r.task_id = p_task and r.finished_at >= _id_time(p_task) - interval '1 day';
    delete from dead_letter where task_id = p_task;
    delete from edge where child_id = p_task;
    insert into ready (task_id, queue_id, level, attempt, lane, needs)
    values (p_task, v_task.queue_id, 2 * v_task.priority, v_attempt, v_task.lane, v_task.needs);
    insert into tally (queue_id, pending, completed, failed, cancelled)
    values (v_task.queue_id, 1, -(v_state = 'completed')::integer, -(v_state = 'failed')::integer, -(v_state = 'cancelled')::integer);
    insert into audit (at, task_id, action, detail) values (clock_time(), p_task, 'retry', 'was ' || v_state);
    perform _restore_children(p_task);
    -- Children still blocked may have counted it off already: sweep_late counts them anew.
    insert into late (child_id)
        select b.task_id from edge e join blocked b on b.task_id = e.child_id where e.parent_id = p_task
        on conflict do nothing;
    if found then
        perform pg_notify(current_schema() || '_ready', '');
    end if;
    perform _wake(array[v_task.queue_id]);
    return 'pending';
end $$;
comment on function retry_task(uuid) is 'Give an ended task one more attempt; its descendants that ended as upstream wait again.';

-- Descendants that were cancelled only because this task could not complete wait for it again.
create or replace function _restore_children(p_task uuid) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_children uuid[];
begin
    v_children := array(
        with recursive down (id) as (
            select e.child_id from edge e where e.parent_id = p_task
            union
            select e.child_id from down d join edge e on e.parent_id = d.id)
        select d.id from down d where _ended_upstream(d.id) order by d.id);
    if cardinality(v_children) = 0 then
        return;
    end if;
    perform from task where id = any (v_children) order by id for update;
    insert into blocked (task_id, queue_id, level, attempt, lane, needs, run_at, condition, quorum, remaining)
        select t.id, t.queue_id, 2 * t.priority, 1, t.lane, t.needs, t.run_at,
               coalesce(substring(t.condition from '^[a-z_]+'), 'all_success'), substring(t.condition from '\d+')::integer,
               cardinality(t.depends_on)
        from task t where t.id = any (v_children) and _ended_upstream(t.id);
    insert into tally (queue_id, blocked, cancelled)
        select t.queue_id, count(*), -count(*) from task t where t.id = any (v_children) group by t.queue_id;
    -- Other parents may have ended: sweep_late counts anew.
    insert into late (child_id) select unnest(v_children) on conflict do nothing;
    perform pg_notify(current_schema() || '_ready', '');
end $$;

create or replace function _ended_upstream(p_task uuid) returns boolean
    language sql stable
    as $$
        select not exists (select from blocked where task_id = p_task)
           and not exists (select from ready where task_id = p_task)
           and not exists (select from timer where task_id = p_task)
           and coalesce((
            select r.state = 'cancelled' and r.started_at is null and r.error ->> 'code' = 'upstream'
            from run r where r.task_id = p_task and r.ends order by r.finished_at desc limit 1), false)
    $$;
