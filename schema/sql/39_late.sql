-- Children spawned on parents that existed already.
--
-- Such a parent may be ending while its child is spawned: the completion does not see the edge, the
-- spawn does not see the end, and the child would wait for ever.  So the spawn only notes the child
-- in `late`, and after its commit this sweep takes the count: it locks the places where the parents
-- stand (their ends delete those places first), and reads in a new statement.  Returns how many
-- children were counted; those with a parent in motion are left for the next sweep.
create or replace function sweep_late(p_limit integer default 500) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_children uuid[];
    v_parents  uuid[];
    v_ready    uuid[];
    v_dead     uuid[];
    v_counted  uuid[];
begin
    perform _require_read_committed();
    v_children := array(select child_id from late order by child_id limit p_limit for update skip locked);
    if cardinality(v_children) = 0 then
        return 0;
    end if;
    v_parents := array(select distinct parent_id from edge where child_id = any (v_children));
    -- The lock order of the house: leases by id, ready and timer by task, blocked by task.
    perform from lease where task_ids && v_parents order by id for share;
    perform from ready where task_id = any (v_parents) order by task_id for share;
    perform from timer where task_id = any (v_parents) order by task_id for share;
    perform from blocked where task_id = any (v_parents || v_children) order by task_id for update;

    with parent as materialized (
        select e.child_id, coalesce(get_state(e.parent_id), 'moving') as state from edge e where e.child_id = any (v_children)),
    child as (
        select c.id as child_id,
               coalesce(bool_or(p.state = 'moving'), false) as moving,
               coalesce(bool_or(p.state in ('failed', 'cancelled')), false) as dead,
               count(p.state) filter (where p.state not in ('completed', 'failed', 'cancelled')) as remaining
        from unnest(v_children) c (id) left join parent p on p.child_id = c.id group by c.id),
    updated as (
        update blocked b set remaining = c.remaining from child c
        where b.task_id = c.child_id and not c.moving and not c.dead and c.remaining > 0)
    select array_agg(child_id) filter (where not moving),
           array_agg(child_id) filter (where not moving and not dead and remaining = 0),
           array_agg(child_id) filter (where not moving and dead)
    into v_counted, v_ready, v_dead from child;

    delete from late where child_id = any (v_counted);
    perform _unblock(coalesce(v_ready, '{}'));
    if v_dead is not null then
        perform _cancel_blocked(v_dead, null, null);
    end if;
    return coalesce(cardinality(v_counted), 0);
end $$;
comment on function sweep_late(integer) is 'Count the parents of children that were spawned on existing tasks.';
