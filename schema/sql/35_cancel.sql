-- Where a task stands, and cancelling it in any state.

-- The state in which a task ended, by its last run.  Not by the times alone: the clock may have been
-- set back.  An attempt that was cancelled before it started is used again, so it may end twice.
create or replace function _end_state_from(p_task uuid, p_from timestamptz) returns text
    language sql stable
    as $$
        select case when r.state = 'lost' then 'failed' else r.state::text end
        from run r
        where r.task_id = p_task and r.finished_at >= p_from and r.ends
        order by r.attempt desc, r.started_at is null, r.finished_at desc limit 1
    $$;

-- Looks again in all of history if the clock was set back so far since its spawn that the first look finds nothing.
create or replace function _end_state(p_task uuid) returns text
    language sql stable
    as $$
        select coalesce(
            _end_state_from(p_task, _ran_from(p_task)),
            case when exists (select from task where id = p_task) then _end_state_from(p_task, '-infinity') end)
    $$;

-- From when on the runs of an ended task lie: not where _ran_from() says if the clock was set back since its spawn.
create or replace function _ended_from(p_task uuid) returns timestamptz
    language sql stable
    as $$
        select case when _end_state_from(p_task, _ran_from(p_task)) is null then '-infinity' else _ran_from(p_task) end
    $$;

-- When a task ends that has not started: now, but after its end before, from which only the time tells it.
create or replace function _next_end(p_task uuid) returns timestamptz
    language sql stable
    as $$
        select greatest(clock_time(), (
            select max(r.finished_at) + interval '1 us' from run r
            where r.task_id = p_task and r.ends and r.finished_at >= _ran_from(p_task)))
    $$;

-- The leases under which these tasks run.
create or replace function _leases_of(p_tasks uuid[]) returns setof lease
    language sql stable
    set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$ select l.* from _live_leases() l where l.task_ids && p_tasks $$;

-- Where a task stands, in one statement; null for an id that was never a task.
create or replace function get_state(p_task uuid) returns text
    language sql stable security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
        select coalesce(
            (select 'pending' from ready where task_id = p_task),
            (select 'running' from _live_leases() l where p_task = any (l.task_ids)),
            (select 'sleeping' from timer where task_id = p_task),
            (select 'blocked' from blocked where task_id = p_task),
            _end_state(p_task))
    $$;
comment on function get_state(uuid) is 'The state of a task, null for an unknown id.';

-- As get_state.  For more than a few the leases are unnested once instead of searched for each.
create or replace function get_states(p_tasks uuid[]) returns table (task_id uuid, state text)
    language sql stable security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
        select t, coalesce(
            (select 'pending' from ready where task_id = t),
            case when case when cardinality(p_tasks) < 10 then exists (select from _live_leases() l where t = any (l.task_ids))
                           else t in (select unnest(l.task_ids) from _live_leases() l) end then 'running' end,
            (select 'sleeping' from timer where task_id = t),
            (select 'blocked' from blocked where task_id = t),
            _end_state(t))
        from unnest(p_tasks) t
    $$;
comment on function get_states(uuid[]) is 'States of several tasks; null for unknown ids.';

-- Cancel a task, and what can no longer run because of it; with p_subtree everything that depends on
-- it, directly or not, even what has started or would run all the same.  What runs is taken from its
-- lease at once, so that nothing it reports from now on counts, and its worker is told to stop it.
-- A task that has ended stays as it is.  Returns the state afterwards.  Raises AB003, AB004.
create or replace function cancel_task(p_task uuid, p_reason text default null, p_subtree boolean default false) returns text
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
declare
    v_tasks uuid[];
begin
    perform _require_read_committed();
    for i in 1..100 loop
        begin
            v_tasks := case when p_subtree then _descendants(array[p_task], false) else array[p_task] end;
            perform from task where id = any (v_tasks) order by id for no key update;
            if not exists (select from task where id = p_task) then
                raise exception 'there is no task %', coalesce(p_task::text, 'null') using errcode = 'AB003';
            end if;
            if p_subtree and not _descendants(array[p_task], false) <@ v_tasks then  -- spawned while we waited
                raise sqlstate 'AB099';
            end if;
            v_tasks := _cancel_tasks(v_tasks, _cancellation(p_reason));
            insert into audit (at, task_id, action, detail) select clock_time(), t, 'cancel', p_reason from unnest(v_tasks) t;
            perform _close(v_tasks || _end_parents(v_tasks, 'cancelled', p_locked => true));
            return get_state(p_task);
        exception when sqlstate 'AB099' then
            null;  -- see _cancel_tasks
        end;
    end loop;
    raise exception 'task %, or what depends on it, moves too fast to be cancelled; try again', p_task using errcode = 'AB004';
end $$;
comment on function cancel_task(uuid, text, boolean) is
    'Cancel a task and what cannot run without it, or all that depends on it; returns the state afterwards.';

-- Those of the tasks that have not ended; one that is between two places has not.
create or replace function _unended(p_tasks uuid[]) returns uuid[]
    language sql stable
    as $$
        select array(select s.task_id from get_states(p_tasks) s
                     where coalesce(s.state, 'moving') not in ('completed', 'failed', 'cancelled') order by 1)
    $$;

-- Take tasks, whose bodies are locked, from wherever they stand and end them as cancelled.  Those
-- that have ended stay as they are.  Returns what was cancelled; its dependents are the caller's.
-- Raises AB099 when one has moved meanwhile.  All is to be done anew then, for leases come in order and before blocked
-- tasks: the caller catches it in a block, which lets go of the locks.  One block and not two, one within the other:
-- who waits for a lock that the inner one has passed on to the outer would wait for the end of the transaction.
create or replace function _cancel_tasks(p_tasks uuid[], p_cause jsonb) returns uuid[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_cancelled uuid[] := _cancel_running(p_tasks, p_cause) || _cancel_waiting(p_tasks, p_cause);
    v_left      uuid[] := _unended(array(select unnest(p_tasks) except select unnest(v_cancelled)));
begin
    perform from blocked where task_id = any (_descendants(p_tasks)) order by task_id for update;
    if exists (select unnest(v_left) except select task_id from blocked where task_id = any (v_left)) then
        raise sqlstate 'AB099';
    end if;
    return v_cancelled || _cancel_blocked(v_left, p_cause);
end $$;

-- Those that run.
create or replace function _cancel_running(p_tasks uuid[], p_cause jsonb) returns uuid[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_held _held[];
begin
    v_held := array(
        select h
        from (select array_agg(l.id order by l.id, u.task) as leases, array_agg(u.task order by l.id, u.task) as tasks
              from _leases_of(p_tasks) l cross join lateral unnest(l.task_ids) u (task)
              where u.task = any (p_tasks)) found
        cross join lateral _take_claims(found.leases, found.tasks) h);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, h.claimed_at, clock_time(), h.lease_id, 'cancelled', h.attempt, true, p_cause from unnest(v_held) h;
    insert into tally (queue_id, running, cancelled) select queue_id, -count(*), count(*) from unnest(v_held) group by queue_id;
    perform _feed_ended(v_held, 'cancelled');
    perform pg_notify(current_schema() || '_lease', h.lease_id::text) from unnest(v_held) h;
    return array(select h.task_id from unnest(v_held) h);
end $$;

-- Those that are pending or asleep.
create or replace function _cancel_waiting(p_tasks uuid[], p_cause jsonb) returns uuid[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_cancelled uuid[];
begin
    perform from ready where task_id = any (p_tasks) order by task_id for update;
    perform from timer where task_id = any (p_tasks) order by task_id for update;
    with pending as (delete from ready where task_id = any (p_tasks) returning task_id, queue_id, attempt),
    sleeping as (delete from timer where task_id = any (p_tasks) returning task_id, queue_id, attempt),
    gone as (select *, true as pending from pending union all select *, false from sleeping),
    written as (
        insert into run (task_id, finished_at, state, attempt, ends, error)
        select task_id, _next_end(task_id), 'cancelled', attempt, true, p_cause from gone),
    counted as (
        insert into tally (queue_id, pending, sleeping, cancelled)
        select queue_id, -count(*) filter (where pending), -count(*) filter (where not pending), count(*) from gone group by queue_id)
    select coalesce(array_agg(task_id), '{}') into v_cancelled from gone;
    delete from wait where task_id = any (v_cancelled);
    perform _feed_cancelled(v_cancelled);
    return v_cancelled;
end $$;
