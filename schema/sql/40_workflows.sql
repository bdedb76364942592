-- Workflows: graphs of tasks that are looked at as one.

-- Make fresh tasks nodes of the workflow they name.  A workflow that has ended takes none.
-- Raises AB004 and AB011.
create or replace function _join_workflows(p_specs _spawn[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_joined record;
    v_named  integer;
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
        -- A name that is taken gets the end of the task's id behind it, or should that be taken too, all of it:
        -- joining never fails for a name.  The workflow's row is locked, so no other session names nodes of it.
        insert into node (workflow_id, name, task_id)
            select v_joined.id,
                   case when o = 1 and not exists (select from node n where n.workflow_id = v_joined.id and n.name = s.name) then name
                        else name || '#' || right(s.id::text, 8) end, s.id
            from (select id, coalesce(node, (select x.name from executor x where x.id = executor_id)) as name,
                         row_number() over (partition by coalesce(node, executor_id::text) order by ordinal) as o
                  from unnest(p_specs) where fresh and workflow_id = v_joined.id) s
            on conflict (workflow_id, name) do nothing;
        get diagnostics v_named = row_count;
        if v_named < v_joined.nodes then
            insert into node (workflow_id, name, task_id)
                select v_joined.id, coalesce(s.node, (select x.name from executor x where x.id = s.executor_id)) || '#' || s.id, s.id
                from unnest(p_specs) s
                where s.fresh and s.workflow_id = v_joined.id and not exists (select from node n where n.task_id = s.id);
        end if;
    end loop;
end $$;

-- Spawn a graph of tasks as one: spawn_tasks, with a workflow around them.
-- The id is a UUIDv7 made by the caller: the same id is the same spawn come again.
-- Raises AB001, AB004, AB007, AB008.  Touches workflow, then what spawn_tasks does.
create or replace function spawn_workflow(
    p_id uuid, p_name text, p_ids uuid[], p_queues text[], p_names text[], p_params jsonb[], p_options jsonb[] default null)
    returns table (ordinal integer, task_id uuid, created boolean)
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
declare
    v_now     timestamptz := clock_time();
    v_options jsonb[];
begin
    if p_id is null or p_id not between _id_floor(v_now - interval '1 day') and _id_floor(v_now + interval '1 day') then
        raise exception 'the workflow''s id is not a UUIDv7 of the last or next day by the database''s clock' using errcode = 'AB001';
    end if;
    if p_name is null or length(p_name) not between 1 and 500 then
        raise exception 'workflow name has % characters; it must have 1 to 500', coalesce(length(p_name), 0) using errcode = 'AB007';
    end if;
    if cardinality(p_options) <> cardinality(p_ids) then
        raise exception 'the arrays of spawn_workflow differ in length' using errcode = 'AB001';
    end if;
    insert into workflow (id, name, created_at, nodes, remaining) values (p_id, p_name, v_now, 0, 0) on conflict do nothing;
    v_options := array(
        select coalesce(p_options[n], '{}') || jsonb_build_object('workflow', p_id) from generate_subscripts(p_ids, 1) n order by n);
    return query select s.ordinal, s.task_id, s.created from spawn_tasks(p_ids, p_queues, p_names, p_params, v_options) s;
    -- Without a node of its own it has nothing to wait for.
    update workflow set (state, ended_at) = ('completed', v_now) where id = p_id and nodes = 0 and ended_at is null;
end $$;
comment on function spawn_workflow(uuid, text, uuid[], text[], text[], jsonb[], jsonb[]) is
    'Spawn a graph of tasks as a workflow, all or nothing; the option node of each task is its name there.';

create or replace function get_workflow_state(p_workflow uuid) returns text
    language sql stable security definer set search_path from current
    as $$ select state from workflow where id = p_workflow $$;
comment on function get_workflow_state(uuid) is 'How a workflow stands; null for an unknown id.';

-- A workflow with its nodes, the failed ones first, then in the order of their spawn; p_limit bounds
-- them, the counts are of all.
create or replace function get_workflow(p_workflow uuid, p_limit integer default 1000) returns jsonb
    language plpgsql stable security definer set search_path from current set jit = off
    as $$
#variable_conflict use_column
declare
    v_workflow workflow;
    v_document jsonb;
begin
    select * into v_workflow from workflow where id = p_workflow;
    if not found then
        return null;
    end if;
    with member as materialized (
        select n.name, n.task_id, s.state
        from node n join get_states(array(select task_id from node where workflow_id = p_workflow)) s on s.task_id = n.task_id
        where n.workflow_id = p_workflow),
    shown as (
        select m.*, row_number() over (order by (m.state is distinct from 'failed'), m.task_id) as place from member m
        order by place limit least(greatest(p_limit, 0), 10000)),
    held as materialized (
        select u.task_id, min(l.claimed_at) as claimed_at
        from _leases_of(array(select s.task_id from shown s where s.state = 'running')) l, unnest(l.task_ids) as u (task_id) group by 1)
    select jsonb_build_object(
        'id', v_workflow.id, 'name', v_workflow.name, 'state', v_workflow.state, 'reason', v_workflow.reason,
        'created_at', v_workflow.created_at, 'ended_at', v_workflow.ended_at,
        'size', v_workflow.nodes, 'remaining', v_workflow.remaining,
        'counts', (select coalesce(jsonb_object_agg(c.state, c.n), '{}')
                   from (select coalesce(state, 'moving') as state, count(*) as n from member group by 1) c),
        'nodes', (select coalesce(jsonb_agg(jsonb_build_object(
                'node', s.name, 'id', s.task_id, 'name', (select x.name from executor x where x.id = t.executor_id),
                'queue', (select q.name from queue q where q.id = t.queue_id), 'state', coalesce(s.state, 'moving'),
                'depends_on', coalesce(to_jsonb(t.depends_on), '[]'), 'when', coalesce(t.condition, 'all_success'),
                'started_at', least(e.started_at, h.claimed_at),
                'finished_at', case when s.state in ('completed', 'failed', 'cancelled') then e.finished_at end,
                'error', case when s.state in ('failed', 'cancelled') then (
                    select r.error from run r where r.task_id = s.task_id and r.ends
                    order by r.attempt desc, r.started_at is null, r.finished_at desc limit 1) end)
                order by s.place), '[]')
            from shown s left join task t on t.id = s.task_id
            left join lateral (select min(r.started_at) as started_at, max(r.finished_at) as finished_at from run r where r.task_id = s.task_id) e on true
            left join held h on h.task_id = s.task_id))
    into v_document;
    return v_document;
end $$;
comment on function get_workflow(uuid, integer) is 'A workflow with counts of its nodes by state and the nodes, failed ones first; null for an unknown id.';

-- Workflows, newest first, from below p_after.  Null means any.  Those that run, and those that failed or were cancelled, have
-- indexes of their own.  p_look: as in list_tasks().
create or replace function list_workflows(p_state text default null, p_name text default null, p_after uuid default null,
                                          p_limit integer default 50, p_look integer default null)
    returns setof jsonb
    language plpgsql stable security definer set search_path from current
    set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off
    as $$
declare
    v_place text := case when p_state = 'running' then 'ended_at is null'
                         when p_state in ('failed', 'cancelled') then $s$state in ('failed', 'cancelled')$s$ else 'true' end;
    v_floor uuid;
    v_count integer;
begin
    if p_state not in ('running', 'completed', 'failed', 'cancelled') then
        raise exception 'state % is unknown; it must be running, completed, failed or cancelled', quote_literal(p_state)
            using errcode = 'AB001';
    end if;
    if p_look is not null and coalesce(p_state, p_name) is not null then
        execute format('select id from workflow where %s and ($1 is null or id < $1) order by id desc offset $2 limit 1', v_place)
            into v_floor using p_after, greatest(p_look, 1) - 1;
    end if;
    return query execute format($q$
        select jsonb_build_object('id', w.id, 'name', w.name, 'state', w.state, 'size', w.nodes, 'remaining', w.remaining,
                                  'created_at', w.created_at, 'ended_at', w.ended_at, 'reason', w.reason)
        from workflow w
        where %s and ($1 is null or w.id < $1) and ($2 is null or w.id >= $2)
          and ($3 is null or w.state = $3) and ($4 is null or w.name = $4)
        order by w.id desc limit $5 $q$, v_place)
        using p_after, v_floor, p_state, p_name, least(greatest(p_limit, 1), 1000);
    get diagnostics v_count = row_count;
    if v_count < least(greatest(p_limit, 1), 1000) and v_floor is not null then
        return next jsonb_build_object('next', v_floor);
    end if;
end $$;
comment on function list_workflows(text, text, uuid, integer, integer) is
    'Workflows, newest first, filtered; p_after is the last id of the page before, p_look as in list_tasks.';
