-- Deadlines: tasks that had to start, or to end, by a time are cancelled when it has come.

-- Cancel what is overdue, and forget deadlines that were kept.  A start deadline is kept by a claim, a
-- finish deadline by the end.  Those of one kind at a time: blocked tasks are locked once in a
-- transaction.  Returns how many tasks were cancelled, without their dependents.
-- Touches task, lease, ready, timer, blocked, run, audit, deadline, and what the end of a task does.
create or replace function cancel_overdue(p_limit integer default 100) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_now   timestamptz := clock_time();
    v_kind  text := (select kind from deadline where due_at <= v_now order by due_at limit 1);
    v_due   uuid[];
    v_held  uuid[];
    v_tasks uuid[];
begin
    perform _require_read_committed();
    if v_kind is null then
        return 0;
    end if;
    v_due := array(select task_id from deadline where due_at <= v_now and kind = v_kind order by due_at limit p_limit);
    -- The bodies first, as everywhere: who prunes a task holds it when it comes to the deadline.  What others hold
    -- is left to the next round.
    v_held := array(select id from task where id = any (v_due) order by id for no key update skip locked);
    v_tasks := _cancel_tasks(
        _unended(array(select t from unnest(v_held) t where v_kind = 'finish' or not _has_started(t))),
        jsonb_build_object('code', 'deadline', 'type', 'cancelled', 'message',
                           case v_kind when 'start' then 'deadline: it had not started in time'
                                       else 'deadline: it had not ended in time' end));
    insert into audit (at, task_id, action, detail) select v_now, t, 'cancel', 'deadline' from unnest(v_tasks) t;
    delete from deadline d where d.kind = v_kind and d.task_id = any (v_due)
        and (d.task_id = any (v_held) or not exists (select from task t where t.id = d.task_id));
    perform _close(v_tasks || _end_parents(v_tasks, 'cancelled'));
    return cardinality(v_tasks);
end $$;
comment on function cancel_overdue(integer) is 'Cancel tasks whose deadline has passed; returns how many.';

-- Has a run of it ever started, or is it claimed?
create or replace function _has_started(p_task uuid) returns boolean
    language sql stable
    as $$
        select exists (select from lease where p_task = any (task_ids))
            or exists (select from run r where r.task_id = p_task and r.started_at is not null
                       and r.finished_at >= _id_time(p_task) - interval '1 day')
    $$;
