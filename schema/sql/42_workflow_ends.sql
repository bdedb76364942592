-- How workflows end, and how they are cancelled and retried as a whole.

-- Nodes have ended: count them off their workflows.  Whoever counts the last one decides how the
-- workflow ended, exactly once, because it holds the row.
create or replace function _count_down(p_tasks uuid[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_part record;
begin
    for v_part in
        select workflow_id as id, count(*)::integer as ended from node where task_id = any (p_tasks) group by 1 order by 1
    loop
        update workflow set remaining = remaining - v_part.ended where id = v_part.id;
        update workflow set state = _workflow_verdict(id), ended_at = clock_time() where id = v_part.id and remaining = 0;
        if found then
            perform pg_notify(current_schema() || '_ended', w.task_id::text) from waiter w where w.task_id = v_part.id;
        end if;
    end loop;
end $$;

-- Ended nodes are back: their workflows run again.
create or replace function _count_up(p_tasks uuid[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_part record;
begin
    for v_part in
        select workflow_id as id, count(*)::integer as back from node where task_id = any (p_tasks) group by 1 order by 1
    loop
        update workflow set (remaining, state, ended_at, reason) = (remaining + v_part.back, 'running', null, null)
        where id = v_part.id;
    end loop;
end $$;

-- How a workflow ended whose nodes have all ended: cancelled if that was asked of the whole; failed
-- if a node failed and none that depends on it took the failure on; else completed.
create or replace function _workflow_verdict(p_workflow uuid) returns text
    language sql stable
    as $$
        select case
            when (select reason is not null from workflow where id = p_workflow) then 'cancelled'
            when exists (
                select from node n
                where n.workflow_id = p_workflow
                  -- Asked of those alone that ever ended badly: few have an entry in the index of these.
                  and case when exists (select from run r where r.task_id = n.task_id and r.ends and r.state <> 'completed')
                      then _end_state(n.task_id) = 'failed' else false end
                  and not exists (
                    select from edge e join task t on t.id = e.child_id
                    where e.parent_id = n.task_id and not e.awaited and coalesce(t.condition, 'all_success') <> 'all_success'
                      and not _ended_upstream(e.child_id))) then 'failed'
            else 'completed' end
    $$;

-- Cancel all nodes of a workflow that have not ended.  Returns the state afterwards, which a workflow
-- that has ended keeps.  Raises AB011.
create or replace function cancel_workflow(p_workflow uuid, p_reason text default null) returns text
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_nodes uuid[];
    v_ended uuid[];
begin
    perform _require_read_committed();
    if not exists (select from workflow where id = p_workflow) then
        raise exception 'there is no workflow %', coalesce(p_workflow::text, 'null') using errcode = 'AB011';
    end if;
    for i in 1..100 loop
        begin
            v_nodes := _unended(array(select n.task_id from node n where n.workflow_id = p_workflow));
            perform from task where id = any (v_nodes) order by id for no key update;
            v_nodes := _cancel_tasks(v_nodes, _cancellation(coalesce(p_reason, 'with its workflow')));
            v_ended := v_nodes || _end_parents(v_nodes, 'cancelled', p_locked => true);
            -- Comes after all other locks, and lets no node in.
            update workflow set reason = coalesce(p_reason, 'by request') where id = p_workflow and ended_at is null;
            if cardinality(_unended(array(select n.task_id from node n where n.workflow_id = p_workflow))) > 0 then
                raise sqlstate 'AB099';
            end if;
            perform _close(v_ended);
            return (select state from workflow where id = p_workflow);
        exception when sqlstate 'AB099' then
            null;  -- see _cancel_tasks; or a run that completed meanwhile has added nodes
        end;
    end loop;
    raise exception 'workflow % grows too fast to be cancelled; try again', p_workflow using errcode = 'AB004';
end $$;
comment on function cancel_workflow(uuid, text) is 'Cancel all of a workflow that has not ended; returns its state afterwards.';

-- Give all nodes that have failed or were cancelled another attempt; the completed ones are reused.
-- Returns how many run again.  Raises AB004, AB011.
create or replace function retry_workflow(p_workflow uuid) returns integer
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_nodes   uuid[];
    v_at_once uuid[];
begin
    perform _require_read_committed();
    if not exists (select from workflow where id = p_workflow) then
        raise exception 'there is no workflow %', coalesce(p_workflow::text, 'null') using errcode = 'AB011';
    end if;
    perform _await_partitions();
    v_nodes := array(select n.task_id from node n where n.workflow_id = p_workflow order by 1);
    perform from task where id = any (v_nodes) order by id for no key update;
    v_nodes := array(select s.task_id from get_states(v_nodes) s where s.state in ('failed', 'cancelled') order by 1);
    if cardinality(v_nodes) = 0 then
        raise exception 'workflow % has no node that failed or was cancelled', p_workflow using errcode = 'AB004';
    end if;
    -- A failed node has had its parents; any other one waits for them again.
    v_at_once := array(
        select t.id from task t where t.id = any (v_nodes) and (t.depends_on is null or _end_state(t.id) = 'failed') order by 1);
    insert into audit (at, task_id, action, detail) select clock_time(), n, 'retry', 'with its workflow' from unnest(v_nodes) n;
    perform _revive(v_at_once, array(select unnest(v_nodes) except select unnest(v_at_once) order by 1));
    return cardinality(v_nodes);
end $$;
comment on function retry_workflow(uuid) is 'Run what failed or was cancelled of a workflow again; returns how many nodes.';
