-- Workflows: graphs of tasks that are looked at as one.

-- Make fresh tasks nodes of the workflow they name.  A workflow that has ended takes none.
-- Raises AB004 and AB011.
create or replace function _join_workflows(p_specs _spawn[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_joined record;
begin
    for v_joined in
        select workflow_id as id, count(*)::integer as nodes from unnest(p_specs)
        where fresh and workflow_id is not null group by 1 order by 1
    loop
        update workflow set (nodes, remaining) = (nodes + v_joined.nodes, remaining + v_joined.nodes)
        where id = v_joined.id and ended_at is null;
        if not found then
            if exists (select from workflow where id = v_joined.id) then
                raise exception 'workflow % has ended; it takes no more nodes', v_joined.id using errcode = 'AB004';
            end if;
            raise exception 'there is no workflow %', v_joined.id using errcode = 'AB011';
        end if;
        -- A name that is taken gets the end of the task's id behind it: joining never fails for a name.
        insert into node (workflow_id, name, task_id)
            select v_joined.id,
                   case when o = 1 and not exists (select from node n where n.workflow_id = v_joined.id and n.name = s.name) then name
                        else name || '#' || right(s.id::text, 8) end, s.id
            from (select id, coalesce(node, (select x.name from executor x where x.id = executor_id)) as name,
                         row_number() over (partition by coalesce(node, executor_id::text) order by ordinal) as o
                  from unnest(p_specs) where fresh and workflow_id = v_joined.id) s;
    end loop;
end $$;
