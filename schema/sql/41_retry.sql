-- Ended tasks come back: one more attempt, or a whole part of a graph run anew.

-- Give a task that has ended one more attempt, in place: same id, history and checkpoints kept.
-- Raises AB003, AB004.
create or replace function retry_task(p_task uuid) returns text
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_state    text;
    v_upstream uuid[] := _ended_upstream_of(array[p_task]);
begin
    perform _require_read_committed();
    -- The locks first, then the look: two retries of one task would else make two rows.
    perform from task where id = any (p_task || v_upstream) order by id for no key update;
    if not exists (select from task where id = p_task) then
        raise exception 'there is no task %', coalesce(p_task::text, 'null') using errcode = 'AB003';
    end if;
    v_state := get_state(p_task);
    if v_state is null or v_state not in ('completed', 'failed', 'cancelled') then
        raise exception 'task % is %; only a task that has ended can be retried', p_task, coalesce(v_state, 'moving') using errcode = 'AB004';
    end if;
    insert into audit (at, task_id, action, detail) values (clock_time(), p_task, 'retry', 'was ' || v_state);
    perform _revive(array[p_task], array(select u from unnest(v_upstream) u where _ended_upstream(u) order by u));
    return 'pending';
end $$;
comment on function retry_task(uuid) is 'Give an ended task one more attempt; its descendants that ended as upstream wait again.';

-- Run an ended task anew, and with p_descendants all that depends on it; the rest of the graph is
-- left as it is, and its results are used again.  Checkpoints go, so that no step is passed over.
-- Returns how many tasks run again.  Raises AB003, AB004.
create or replace function rerun_task(p_task uuid, p_descendants boolean default true) returns integer
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_tasks uuid[] := case when p_descendants then _descendants(array[p_task], false) else array[p_task] end;
    v_ended uuid[];
    v_busy  record;
begin
    perform _require_read_committed();
    perform from task where id = any (v_tasks) order by id for no key update;
    if not exists (select from task where id = p_task) then
        raise exception 'there is no task %', coalesce(p_task::text, 'null') using errcode = 'AB003';
    end if;
    -- Blocked descendants wait on; whatever else is unfinished would run beside its own parent.
    select s.task_id, coalesce(s.state, 'moving') as state into v_busy from get_states(v_tasks) s
        where s.state is null or s.state in ('pending', 'sleeping', 'running') or (s.state = 'blocked' and s.task_id = p_task) limit 1;
    if found then
        raise exception 'task % is %; only what has ended can run again: wait for it, or cancel it first', v_busy.task_id, v_busy.state
            using errcode = 'AB004';
    end if;
    v_ended := array(select s.task_id from get_states(v_tasks) s where s.state in ('completed', 'failed', 'cancelled') order by 1);
    delete from checkpoint where task_id = any (v_ended);
    insert into audit (at, task_id, action, detail) select clock_time(), t, 'rerun', 'from ' || p_task from unnest(v_ended) t;
    perform _revive(array[p_task], array_remove(v_ended, p_task));
    return cardinality(v_ended);
end $$;
comment on function rerun_task(uuid, boolean) is
    'Run an ended task and its descendants anew, reusing the results of the rest; returns how many run again.';

-- Put ended tasks back, whose bodies are locked: p_ready may be claimed at once, p_blocked wait for
-- their parents again.  Children that are blocked already may have counted them off, so they are
-- counted anew.
create or replace function _revive(p_ready uuid[], p_blocked uuid[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_blocked uuid[] := p_blocked;
    v_all     uuid[];
    v_missed  uuid[];
begin
    for i in 1..100 loop
        begin
            v_all := _put_back(p_ready, v_blocked);
            v_missed := _ended_upstream_of(v_all);
            if cardinality(v_missed) > 0 then
                raise sqlstate 'AB099';
            end if;
            -- A key that counts until the end of a task is this one's again, unless another unfinished task has it.
            perform from task_key k
                where k.until_ended and (k.queue_id, k.key) in (select t.queue_id, t.key from task t where t.id = any (v_all) and t.key is not null)
                order by k.queue_id, k.key for update;
            update task_key k set task_id = t.id
                from (select distinct on (queue_id, key) queue_id, key, id from task where id = any (v_all) and key is not null
                      order by queue_id, key, id) t
                where k.queue_id = t.queue_id and k.key = t.key and k.until_ended and k.task_id <> t.id
                  and coalesce(get_state(k.task_id), 'completed') in ('completed', 'failed', 'cancelled');
            perform _count_up(v_all);
            return;
        exception when sqlstate 'AB099' then
            -- A sweep that still saw the old end has cancelled children of these while we waited for them.  Bodies
            -- come before blocked tasks, so the locks of these are let go before all is done anew.
        end;
        perform from task where id = any (v_missed) order by id for no key update;
        v_blocked := v_blocked || array(select m from unnest(v_missed) m where _ended_upstream(m) order by m);
    end loop;
    raise exception 'what depends on task % ends too fast to be put back; try again', v_all[1] using errcode = 'AB004';
end $$;

-- The places of _revive.  Returns all that were put back.
create or replace function _put_back(p_ready uuid[], p_blocked uuid[]) returns uuid[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_all    uuid[] := p_ready || p_blocked;
    v_queues integer[];
begin
    with revived as materialized (
        select t.id, t.queue_id, 2 * t.priority as level, t.lane, _counted(t.needs) as needs, t.run_at, t.condition, t.depends_on,
               _end_state(t.id) as state, t.id = any (p_ready) as at_once,
               -- A run that was cancelled before it started has used no attempt.
               coalesce((select max(r.attempt + (r.started_at is not null)::integer) from run r
                         where r.task_id = t.id and r.finished_at >= _ended_from(t.id)), 1) as attempt
        from task t where t.id = any (v_all)),
    readied as (
        insert into ready (task_id, queue_id, level, attempt, lane, needs)
        select id, queue_id, level, attempt, lane, needs from revived where at_once),
    waiting as (
        insert into blocked (task_id, queue_id, level, attempt, lane, needs, run_at, condition, quorum, remaining)
        select id, queue_id, level, attempt, lane, needs, run_at, _condition_name(condition),
               _quorum(condition, cardinality(depends_on)), coalesce(cardinality(depends_on), 0)
        from revived where not at_once),
    counted as (
        insert into tally (queue_id, pending, blocked, completed, failed, cancelled)
        select queue_id, count(*) filter (where at_once), count(*) filter (where not at_once),
               -count(*) filter (where state = 'completed'), -count(*) filter (where state = 'failed'),
               -count(*) filter (where state = 'cancelled')
        from revived group by queue_id)
    select array_agg(distinct queue_id) filter (where at_once) into v_queues from revived;
    delete from dead_letter where task_id = any (v_all);
    perform _use_level(l.queue_id, l.level)
        from (select distinct queue_id, 2 * priority as level from task where id = any (v_all) order by 1, 2) l;
    perform _count_anew(array(
        select unnest(p_blocked)
        union
        select b.task_id from edge e join blocked b on b.task_id = e.child_id where e.parent_id = any (v_all)));
    perform _wake(v_queues);
    return v_all;
end $$;

-- Have sweep_late count the parents of blocked tasks.  Until then they stand as if none had ended.
create or replace function _count_anew(p_children uuid[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
begin
    if cardinality(p_children) = 0 then
        return;
    end if;
    perform from blocked where task_id = any (p_children) order by task_id for update;
    update blocked b
    set (remaining, succeeded, failed)
      = ((select count(*) from edge e where e.child_id = b.task_id and e.awaited = b.awaiting), 0, 0)
    where b.task_id = any (p_children);
    insert into late (child_id) select c from unnest(p_children) c where exists (select from blocked b where b.task_id = c) order by 1
        on conflict do nothing;
    perform pg_notify(current_schema() || '_ready', '');
end $$;

-- Whether a task was cancelled only because a parent could not complete.
create or replace function _ended_upstream(p_task uuid) returns boolean
    language sql stable
    as $$
        select get_state(p_task) = 'cancelled' and (
            select r.started_at is null and r.error ->> 'code' = 'upstream'
            from run r where r.task_id = p_task and r.ends
            order by r.attempt desc, r.started_at is null, r.finished_at desc limit 1)
    $$;

-- Descendants that were cancelled only because these tasks could not complete.
create or replace function _ended_upstream_of(p_tasks uuid[]) returns uuid[]
    language sql stable
    as $$
        select array(select d from unnest(_descendants(p_tasks)) d where d <> all (p_tasks) and _ended_upstream(d) order by d)
    $$;
