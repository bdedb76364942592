-- What the end of tasks means for others: their dependents, their workflows, and whoever waits for them.

-- The name of a condition as `blocked` holds it, and how many parents must complete for it.
create or replace function _condition_name(p_condition text) returns text
    language sql immutable
    as $$ select coalesce(substring(p_condition from '^[a-z_]+'), 'all_success') $$;

create or replace function _quorum(p_condition text, p_parents integer) returns integer
    language sql immutable
    as $$
        select case _condition_name(p_condition)
            when 'all_success' then p_parents
            when 'any_success' then 1
            when 'quorum' then substring(p_condition from '\d+')::integer
            else 0 end
    $$;

-- May a task run whose parents stand so?  Null: that is still open; false: it never may.
create or replace function _verdict(p_condition text, p_quorum integer, p_remaining integer, p_succeeded integer, p_failed integer)
    returns boolean
    language sql immutable
    as $$
        select case
            when p_condition = 'all_done' then case when p_remaining = 0 then true end
            when p_condition = 'any_failed' then case when p_failed > 0 then true when p_remaining = 0 then false end
            when p_succeeded >= p_quorum then true
            when p_succeeded + p_remaining < p_quorum then false
        end
    $$;

-- Tasks have ended, all in one state.  Runs in a statement after the one that wrote their runs and
-- deleted their places, so that sweep_late and this function cannot both miss an edge.
create or replace function _settle(p_tasks uuid[], p_state text) returns void
    language plpgsql
    as $$
begin
    perform _close(p_tasks || _end_parents(p_tasks, p_state));
end $$;

-- Workflows count the ended tasks down, and who waits for one is told.  Comes after all locks on
-- `blocked`, because it locks workflows.
create or replace function _close(p_tasks uuid[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_sorted uuid[];
begin
    -- Nodes are looked up only where one lies between these ids; not where a workflow runs, because beside a held
    -- snapshot that question walks through all that have ended.
    if exists (select from workflow) then
        v_sorted := array(select t from unnest(p_tasks) t order by t);
        if exists (select from node where task_id between v_sorted[1] and v_sorted[cardinality(v_sorted)]) then
            perform _count_down(p_tasks);
        end if;
    end if;
    perform pg_notify(current_schema() || '_ended', w.task_id::text) from waiter w where w.task_id = any (p_tasks);
end $$;

-- Count ended parents off their children; release those that may run now, cancel those that never
-- may, and go on with the children of these.  Returns what was cancelled.
-- A child whose count is late stands as if none of its parents had ended: what is certain even so
-- holds, and the rest is left to sweep_late, which will see these ends.
create or replace function _end_parents(p_parents uuid[], p_state text, p_locked boolean default false) returns uuid[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_ended     uuid[] := p_parents;
    v_state     text := p_state;
    v_locked    uuid[];
    v_free      uuid[];
    v_never     uuid[];
    v_late      uuid[];
    v_cancelled uuid[] := '{}';
begin
    if not exists (select from edge where parent_id = any (p_parents)) then
        return v_cancelled;
    end if;
    v_locked := _lock_dependents(p_parents, p_state, p_locked);
    while cardinality(v_ended) > 0 loop
        -- Grouped by child: joined plainly, a child of two ended parents would lose only one.
        -- In one statement what goes is told from what stays, so that no row is changed twice.
        with ended as materialized (
            select e.child_id, e.awaited, count(*)::integer as n
            from edge e
            where e.parent_id = any (v_ended) and e.child_id = any (v_locked)
            group by e.child_id, e.awaited),
        counted as materialized (
            select b.task_id, b.condition, b.quorum, exists (select from late l where l.child_id = b.task_id) as late,
                   b.remaining - e.n as remaining,
                   b.succeeded + case v_state when 'completed' then e.n else 0 end as succeeded,
                   b.failed + case v_state when 'failed' then e.n else 0 end as failed
            from ended e join blocked b on b.task_id = e.child_id and b.awaiting = e.awaited),
        judged as materialized (
            select c.*, _verdict(c.condition, c.quorum, c.remaining, c.succeeded, c.failed) as verdict from counted c),
        updated as (
            update blocked b set (remaining, succeeded, failed) = (j.remaining, j.succeeded, j.failed)
            from judged j where b.task_id = j.task_id and j.verdict is null and not j.late)
        select array_agg(j.task_id order by j.task_id) filter (where j.verdict),
               array_agg(j.task_id order by j.task_id) filter (where not j.verdict),
               array_agg(j.task_id) filter (where j.late and j.verdict is not null)
        into v_free, v_never, v_late from judged j;
        if v_late is not null then
            delete from late where child_id = any (v_late);
        end if;
        perform _unblock(v_free);
        v_ended := _cancel_blocked(v_never, jsonb_build_object('code', 'upstream', 'type', 'cancelled', 'message', 'upstream'));
        v_state := 'cancelled';
        v_cancelled := v_cancelled || v_ended;
    end loop;
    return v_cancelled;
end $$;

-- Lock, once and in id order, all blocked tasks that these ends may move: level by level two
-- overlapping cascades would deadlock even though each level is sorted.  A completion can end a
-- child only if that waits for a failure; any other end may cancel whatever lies below.
-- p_locked: the caller has locked all of them that there were.  Others have come since and are late, so that
-- sweep_late will see these ends; what somebody else holds of them is left to it, for waiting would be out of order.
-- Returns those locked.
create or replace function _lock_dependents(p_parents uuid[], p_state text, p_locked boolean) returns uuid[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_children uuid[];
    v_below    uuid[];
begin
    v_children := array(select distinct child_id from edge where parent_id = any (p_parents));
    v_below := case when p_state = 'completed'
        then array(select task_id from blocked where task_id = any (v_children) and condition = 'any_failed')
        else v_children end;
    if cardinality(v_below) > 0 then
        v_children := array(select unnest(v_children) union select unnest(_descendants(v_below)));
    end if;
    if p_locked then
        return array(select task_id from blocked where task_id = any (v_children) order by task_id for update skip locked);
    end if;
    perform from blocked where task_id = any (v_children) order by task_id for update;
    return v_children;
end $$;

-- The tasks and all that waits for them, directly or not; p_awaited: counting runs that await tasks too.
create or replace function _descendants(p_tasks uuid[], p_awaited boolean default true) returns uuid[]
    language sql stable
    as $$
        with recursive down (id) as (
            select unnest(p_tasks)
            union
            select e.child_id from down d join edge e on e.parent_id = d.id where p_awaited or not e.awaited)
        select coalesce(array_agg(id order by id), '{}') from down
    $$;

-- Move blocked tasks, already locked, to where their own start time sends them.
create or replace function _unblock(p_tasks uuid[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_now    timestamptz := clock_time();
    v_queues integer[];
    v_next   timestamptz;
begin
    if coalesce(cardinality(p_tasks), 0) = 0 then
        return;
    end if;
    with freed as (
        delete from blocked where task_id = any (p_tasks)
        returning task_id, queue_id, level, attempt, suspect, lane, needs, case when not awaiting then run_at end as run_at),
    slept as (
        insert into timer (task_id, wake_at, queue_id, level, attempt, suspect, lane, needs, reason)
        select task_id, run_at, queue_id, level, attempt, suspect, lane, needs, 'delay' from freed where run_at > v_now),
    readied as (
        insert into ready (task_id, queue_id, level, attempt, suspect, lane, needs)
        select task_id, queue_id, level, attempt, suspect, lane, needs
        from freed where run_at is null or run_at <= v_now order by task_id
        returning queue_id),
    counted as (
        insert into tally (queue_id, blocked, sleeping, pending)
        select queue_id, -count(*), count(*) filter (where run_at > v_now), count(*) filter (where run_at is null or run_at <= v_now)
        from freed group by queue_id)
    select array_agg(distinct queue_id), (select min(run_at) from freed where run_at > v_now) into v_queues, v_next from readied;
    perform _wake(v_queues);
    if v_next is not null then
        perform _tell_due(v_next);
    end if;
end $$;

-- End blocked tasks, already locked, as cancelled.  Returns those that were blocked.
create or replace function _cancel_blocked(p_tasks uuid[], p_cause jsonb) returns uuid[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_cancelled uuid[];
begin
    if coalesce(cardinality(p_tasks), 0) = 0 then
        return '{}';
    end if;
    with gone as (
        delete from blocked where task_id = any (p_tasks) returning task_id, queue_id, attempt),
    written as (
        insert into run (task_id, finished_at, state, attempt, ends, error)
        select task_id, _next_end(task_id), 'cancelled', attempt, true, p_cause from gone),
    counted as (
        insert into tally (queue_id, blocked, cancelled) select queue_id, -count(*), count(*) from gone group by queue_id)
    select coalesce(array_agg(task_id), '{}') into v_cancelled from gone;
    delete from late where child_id = any (v_cancelled);
    perform _feed_cancelled(v_cancelled);
    return v_cancelled;
end $$;

create or replace function _cancellation(p_reason text) returns jsonb
    language sql immutable
    as $$ select jsonb_build_object('code', 'cancelled', 'type', 'cancelled', 'message', coalesce(p_reason, 'by request')) $$;
