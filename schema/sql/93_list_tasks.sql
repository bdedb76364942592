-- Finding tasks.

-- The version before had fewer filters; two functions of one name would be ambiguous.
drop function if exists list_tasks(text, text, text, text, uuid, integer);

-- Tasks, newest first, from below p_after.  Null means any.  p_params: {"a.b": value}, all of which must be equal.
-- A state is read from its own place by task id, first as many as are wanted, then a thousand at a time, and nothing is
-- sorted as a whole:
--   pending, sleeping, blocked  the index of the place by task;
--   running                     all leases (as many runs as workers execute);
--   failed, cancelled           the partial index of unfortunate ends;
--   completed, any              the bodies, newest first, each looked up.
-- So a page costs what must be looked through to fill it: a filter that few tasks fit reads all of its state.
-- Order and cursor are the task id, which never changes, so pages neither repeat nor skip what stays in the state.
create or replace function list_tasks(
    p_queue text default null, p_state text default null, p_name text default null, p_tag text default null,
    p_after uuid default null, p_limit integer default 50,
    p_since timestamptz default null, p_until timestamptz default null, p_params jsonb default null)
    returns setof jsonb
    language plpgsql stable security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_queue    integer := case when p_queue is not null then _known_queue_id(p_queue) end;
    v_executor integer := (select id from executor where name = p_name);
    v_low      uuid := _id_floor(p_since - interval '1 day');
    v_below    uuid := least(p_after, _id_floor(p_until + interval '1 day'));
    v_left     integer := least(greatest(p_limit, 1), 1000);
    v_places   text := case p_state
        when 'pending' then 'select task_id as id from ready where ($1 is null or task_id < $1) order by task_id desc'
        when 'sleeping' then 'select task_id as id from timer where ($1 is null or task_id < $1) order by task_id desc'
        when 'blocked' then 'select task_id as id from blocked where ($1 is null or task_id < $1) order by task_id desc'
        when 'running' then 'select u as id from _live_leases() l, unnest(l.task_ids) u where ($1 is null or u < $1) order by u desc'
        when 'failed' then $s$select distinct task_id as id from run where ends and state <> 'completed' and ($1 is null or task_id < $1) order by task_id desc$s$
        when 'cancelled' then $s$select distinct task_id as id from run where ends and state <> 'completed' and ($1 is null or task_id < $1) order by task_id desc$s$
        else 'select id from task where ($1 is null or id < $1) order by id desc' end;
    v_look     integer := v_left;
    v_ids      uuid[];
    v_found    jsonb[];
begin
    if p_state is not null and p_state not in ('blocked', 'pending', 'sleeping', 'running', 'completed', 'failed', 'cancelled') then
        raise exception 'state % is unknown; it must be blocked, pending, sleeping, running, completed, failed or cancelled',
            quote_literal(p_state) using errcode = 'AB001';
    end if;
    if jsonb_typeof(p_params) <> 'object' then
        raise exception 'params are %; they must be a JSON object of paths and values', left(p_params::text, 100) using errcode = 'AB001';
    end if;
    if p_name is not null and v_executor is null then
        return;
    end if;
    loop
        execute 'select array(' || v_places || ' limit $2)' into v_ids using v_below, v_look;
        exit when cardinality(v_ids) = 0;
        v_found := array(
            select jsonb_build_object('id', t.id, 'queue', q.name, 'name', x.name, 'state', s.state, 'priority', t.priority,
                                      'attempts', (select count(*) from (
                                          select r.attempt from run r where r.task_id = t.id and r.started_at is not null
                                          union
                                          select l.attempts[array_position(l.task_ids, t.id)] from _live_leases() l
                                          where s.state = 'running' and t.id = any (l.task_ids)) a),
                                      'created_at', t.created_at, 'tags', coalesce(to_jsonb(t.tags), '[]'))
            from task t
            join queue q on q.id = t.queue_id
            join executor x on x.id = t.executor_id
            cross join lateral (select get_state(t.id) as state offset 0) s
            where t.id = any (v_ids)
              and (v_queue is null or t.queue_id = v_queue) and (v_executor is null or t.executor_id = v_executor)
              and (p_tag is null or p_tag = any (t.tags))
              and (p_since is null or t.created_at >= p_since) and (p_until is null or t.created_at < p_until)
              and not exists (select from jsonb_each(p_params) f (k, v) where t.params #> string_to_array(f.k, '.') is distinct from f.v)
              and (p_state is null or s.state = p_state)
            order by t.id desc limit v_left);
        return query select unnest(v_found);
        v_left := v_left - cardinality(v_found);
        v_look := 1000;
        v_below := v_ids[cardinality(v_ids)];
        exit when v_left = 0 or v_below < v_low;
    end loop;
end $$;
comment on function list_tasks(text, text, text, text, uuid, integer, timestamptz, timestamptz, jsonb) is
    'Tasks, newest first, filtered; p_after is the last id of the page before.';
