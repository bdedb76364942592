-- Children spawned on parents that existed already, and runs that wait for tasks.
--
-- Such a parent may be ending while its child is spawned: the completion does not see the edge, the
-- spawn does not see the end, and the child would wait for ever.  So the spawn only notes the child
-- in `late`, and after its commit this sweep takes the count: it locks the places where the parents
-- stand (their ends delete those places first), and reads in a new statement.  Every child it looks at is
-- counted, so that none is in the way of the others.  Returns how many.
create or replace function sweep_late(p_limit integer default 500) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_children uuid[];
    v_parents  uuid[];
    v_counted  uuid[];
    v_free     uuid[];
    v_never    uuid[];
    v_waiting  uuid[];
    v_ended    uuid[];
begin
    perform _require_read_committed();
    if not pg_try_advisory_xact_lock(hashtext(current_schema() || '.late')) then
        return 0;  -- another session sweeps
    end if;
    -- Not locked: a row of `late` is its child's, and whoever touches it holds that one's place.
    v_children := array(select child_id from late order by child_id limit p_limit);
    if cardinality(v_children) = 0 then
        return 0;
    end if;
    perform _await_partitions();
    v_parents := array(select distinct parent_id from edge where child_id = any (v_children));
    -- The lock order of the house: leases by id, ready and timer by task, blocked by task.
    perform from lease where id = any (array(select l.id from _leases_of(v_parents) l)) and task_ids && v_parents order by id for share;
    perform from ready where task_id = any (v_parents) order by task_id for share;
    perform from timer where task_id = any (v_parents) order by task_id for share;
    perform from blocked where task_id = any (v_parents || _descendants(v_children)) order by task_id for update;

    with parent as materialized (
        -- A parent whose history is gone will never complete.  None is between two places: this is one snapshot.
        select e.child_id, coalesce(get_state(e.parent_id), 'cancelled') as state
        from edge e join blocked b on b.task_id = e.child_id and b.awaiting = e.awaited
        where e.child_id = any (v_children)),
    counted as materialized (
        select b.task_id, b.condition, b.quorum,
               count(p.state) filter (where p.state not in ('completed', 'failed', 'cancelled'))::integer as remaining,
               count(p.state) filter (where p.state = 'completed')::integer as succeeded,
               count(p.state) filter (where p.state = 'failed')::integer as failed
        from blocked b left join parent p on p.child_id = b.task_id
        where b.task_id = any (v_children) and exists (select from late l where l.child_id = b.task_id)
        group by b.task_id, b.condition, b.quorum),
    judged as materialized (
        select c.*, _verdict(c.condition, c.quorum, c.remaining, c.succeeded, c.failed) as verdict from counted c),
    updated as (
        update blocked b set (remaining, succeeded, failed) = (j.remaining, j.succeeded, j.failed)
        from judged j where b.task_id = j.task_id and j.verdict is null)
    select array_agg(j.task_id), array_agg(j.task_id order by j.task_id) filter (where j.verdict),
           array_agg(j.task_id order by j.task_id) filter (where not j.verdict),
           array_agg(j.task_id order by j.task_id) filter (where j.verdict is null)
    into v_counted, v_free, v_never, v_waiting from judged j;

    delete from late l where l.child_id = any (v_counted)
        or (l.child_id = any (v_children) and not exists (select from blocked b where b.task_id = l.child_id));
    perform _unblock(v_free);
    v_ended := _cancel_blocked(v_never, '{"code": "upstream", "type": "cancelled", "message": "upstream"}');
    -- Only a run that waits for tasks can close a circle, and only here can all its edges be seen.
    v_ended := v_ended || _cancel_blocked(
        array(select w from unnest(v_waiting) w where _waits_for_itself(w) order by w),
        '{"code": "cycle", "type": "cancelled", "message": "it waited for a task that waits for it"}');
    if cardinality(v_ended) > 0 then
        perform _settle(v_ended, 'cancelled');
    end if;
    return coalesce(cardinality(v_counted), 0);
end $$;
comment on function sweep_late(integer) is 'Count the parents of children that were spawned on existing tasks.';

-- Whether a blocked task is among the blocked tasks that it waits for, directly or not.
create or replace function _waits_for_itself(p_task uuid) returns boolean
    language sql stable
    as $$
        with recursive up (id) as (
            select e.parent_id
            from edge e join blocked b on b.task_id = e.child_id and b.awaiting = e.awaited
            where e.child_id = p_task and exists (select from edge f where f.parent_id = p_task)
            union
            select e.parent_id
            from up u join blocked b on b.task_id = u.id join edge e on e.child_id = u.id and e.awaited = b.awaiting)
        select exists (select from up where id = p_task)
    $$;
