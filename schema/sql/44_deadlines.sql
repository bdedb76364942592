-- Deadlines: tasks that had to start, or to end, by a time are cancelled when it has come.

-- Cancel what is overdue, and forget deadlines that were kept.  A start deadline is kept by a run that certainly
-- has begun: a claim alone may be handed back as it came, so it is asked after again.  A finish deadline is kept by
-- the end.  Those of one kind at a time: blocked tasks are locked once in a transaction.  Returns how many tasks were
-- cancelled, without their dependents.
-- Touches task, lease, ready, timer, blocked, run, audit, deadline, and what the end of a task does.
create or replace function cancel_overdue(p_limit integer default 100) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
declare
    v_now   timestamptz := clock_time();
    v_kind  text;
    v_due   uuid[];
    v_held  uuid[];
    v_doubt uuid[] := '{}';
    v_tasks uuid[];
begin
    perform _require_read_committed();
    for v_kind in
        select k.kind
        from (values ('start'), ('finish')) k (kind)
        cross join lateral (select d.due_at from deadline d where d.due_at <= v_now and d.kind = k.kind order by d.due_at limit 1) d
        order by d.due_at, k.kind
    loop
        v_due := array(select task_id from deadline where due_at <= v_now and kind = v_kind order by due_at limit p_limit);
        -- The bodies first, as everywhere: who prunes a task holds it when it comes to the deadline.  What others hold
        -- is left to a later round, and holds up no deadline of the other kind.
        v_held := array(select id from task where id = any (v_due) order by id for no key update skip locked);
        exit when cardinality(v_held) > 0;
    end loop;
    if v_due is null then
        return 0;
    end if;
    if v_kind = 'start' then
        v_doubt := array(select t from unnest(v_held) t where _has_started(t) is null);
        update deadline set due_at = v_now + interval '5 seconds' where kind = 'start' and task_id = any (v_doubt);
    end if;
    for i in 1..10 loop
        begin
            v_tasks := _cancel_tasks(
                _unended(array(select t from unnest(v_held) t where v_kind = 'finish' or not _has_started(t))),
                jsonb_build_object('code', 'deadline', 'type', 'cancelled', 'message',
                                   case v_kind when 'start' then 'deadline: it had not started in time'
                                               else 'deadline: it had not ended in time' end));
            insert into audit (at, task_id, action, detail) select v_now, t, 'cancel', 'deadline' from unnest(v_tasks) t;
            delete from deadline d where d.kind = v_kind and d.task_id = any (v_due) and d.task_id <> all (v_doubt)
                and (d.task_id = any (v_held) or not exists (select from task t where t.id = d.task_id));
            perform _close(v_tasks || _end_parents(v_tasks, 'cancelled', p_locked => true));
            return cardinality(v_tasks);
        exception when sqlstate 'AB099' then
            null;  -- see _cancel_tasks
        end;
    end loop;
    return 0;  -- the next round tries again
end $$;
comment on function cancel_overdue(integer) is 'Cancel tasks whose deadline has passed; returns how many.';

-- Has a run of it ever started?  Null: it is claimed, and its worker has not yet said that it has begun it.
create or replace function _has_started(p_task uuid) returns boolean
    language sql stable
    as $$
        select case
            when exists (select from run r where r.task_id = p_task and r.started_at is not null
                         and r.finished_at >= _ran_from(p_task)) then true
            when not exists (select from _leases_of(array[p_task])) then false
            when exists (select from _leases_of(array[p_task]) l left join worker w on w.id = lease_worker(l.id)
                         where (cardinality(l.task_ids) = 1 and not l.narrowed) or p_task = any (w.started)) then true
        end
    $$;
