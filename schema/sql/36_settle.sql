-- What the end of tasks means for others: their dependents, and whoever waits for them.

-- p_completed: whether the tasks completed (else failed or cancelled).  Runs in a statement after
-- the one that wrote their runs and deleted their places, so that sweep_late and this function
-- cannot both miss an edge.
create or replace function _settle(p_tasks uuid[], p_completed boolean) returns void
    language plpgsql
    as $$
#variable_conflict use_column
begin
    if exists (select from edge where parent_id = any (p_tasks)) then
        if p_completed then
            perform _release_children(p_tasks);
        else
            perform _cancel_blocked(array(select child_id from edge where parent_id = any (p_tasks)), null, null);
        end if;
    end if;
    perform pg_notify(current_schema() || '_ended', w.task_id::text) from waiter w where w.task_id = any (p_tasks);
end $$;

-- Count the completed parents off their children and release those that wait for nothing more.
-- Children whose count is still late are left to sweep_late, which will see these ends.
create or replace function _release_children(p_parents uuid[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_children uuid[];
    v_free     uuid[];
begin
    v_children := array(
        select distinct e.child_id from edge e
        where e.parent_id = any (p_parents) and not exists (select from late l where l.child_id = e.child_id)
        order by e.child_id);
    -- Locked in id order first: "update ... from" promises none, and two batches would deadlock.
    perform from blocked where task_id = any (v_children) order by task_id for update;
    -- Grouped by child: joined plainly, a child of two parents in this batch would lose only one.
    v_free := array(
        select b.task_id
        from (select child_id, count(*) as ended from edge
              where parent_id = any (p_parents) and child_id = any (v_children) group by child_id) e
        join blocked b on b.task_id = e.child_id
        where b.remaining <= e.ended);
    update blocked b set remaining = b.remaining - e.ended
    from (select child_id, count(*)::integer as ended from edge
          where parent_id = any (p_parents) and child_id = any (v_children) and child_id <> all (v_free)
          group by child_id) e
    where b.task_id = e.child_id;
    perform _unblock(v_free);
end $$;

-- Move blocked tasks, already locked, to where their own start time sends them.
create or replace function _unblock(p_tasks uuid[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_now    timestamptz := clock_time();
    v_queues integer[];
begin
    if cardinality(p_tasks) = 0 then
        return;
    end if;
    with freed as (
        delete from blocked where task_id = any (p_tasks)
        returning task_id, queue_id, level, attempt, suspect, lane, needs, run_at),
    slept as (
        insert into timer (task_id, wake_at, queue_id, level, attempt, suspect, lane, needs, reason)
        select task_id, run_at, queue_id, level, attempt, suspect, lane, needs, 'delay' from freed where run_at > v_now),
    readied as (
        insert into ready (task_id, queue_id, level, attempt, suspect, lane, needs)
        select task_id, queue_id, level, attempt, suspect, lane, needs from freed where run_at is null or run_at <= v_now order by task_id
        returning queue_id),
    counted as (
        insert into tally (queue_id, blocked, sleeping, pending)
        select queue_id, -count(*), count(*) filter (where run_at > v_now), count(*) filter (where run_at is null or run_at <= v_now)
        from freed group by queue_id)
    select array_agg(distinct queue_id) into v_queues from readied;
    perform _wake(v_queues);
end $$;

-- Cancel blocked tasks and all that depends on them; p_root, if it is among them, for p_reason, the
-- others as "upstream".  The closure is read first without locks, then locked once in id order: level
-- by level two overlapping cancels deadlock even though each level is sorted.
create or replace function _cancel_blocked(p_tasks uuid[], p_root uuid, p_reason text) returns uuid[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_closure   uuid[];
    v_cancelled uuid[];
    v_now       timestamptz := clock_time();
begin
    v_closure := array(
        with recursive down (id) as (
            select unnest(p_tasks)
            union
            select e.child_id from down d join edge e on e.parent_id = d.id)
        select id from down order by id);
    perform from blocked where task_id = any (v_closure) order by task_id for update;
    with gone as (
        delete from blocked where task_id = any (v_closure) returning task_id, queue_id, attempt),
    written as (
        insert into run (task_id, finished_at, state, attempt, ends, error)
        select task_id, v_now, 'cancelled', attempt, true,
               case when task_id = p_root then _cancellation(p_reason)
                    else '{"code": "upstream", "type": "cancelled", "message": "upstream"}' end
        from gone),
    counted as (
        insert into tally (queue_id, blocked, cancelled) select queue_id, -count(*), count(*) from gone group by queue_id)
    select array_agg(task_id) into v_cancelled from gone;
    delete from late where child_id = any (v_cancelled);
    perform pg_notify(current_schema() || '_ended', w.task_id::text) from waiter w where w.task_id = any (v_cancelled);
    return v_cancelled;
end $$;

create or replace function _cancellation(p_reason text) returns jsonb
    language sql immutable
    as $$ select jsonb_build_object('code', 'cancelled', 'type', 'cancelled', 'message', coalesce(p_reason, 'by request')) $$;
