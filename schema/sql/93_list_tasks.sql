-- Finding tasks.

-- The version before had fewer filters; two functions of one name would be ambiguous.
drop function if exists list_tasks(text, text, text, text, uuid, integer);

-- Where tasks of a state (null: of any) are looked for, by task id, the newest first; `fits`: whether it is worth to read the body.
--   pending, sleeping, blocked  the index of the place by task;
--   running                     all leases (as many runs as workers execute);
--   completed                   the history by task, so that what waits for its first run is not even passed by;
--   failed, cancelled           the partial index of unfortunate ends;
--   any                         the bodies.
-- Runs of one task are one row: a look that ended between two of them would miss it.
create or replace function _place_of(p_state text) returns text
    language sql immutable
    as $$
        select case p_state
            when 'running' then 'select u as id, true as fits from _live_leases() l, unnest(l.task_ids) u where $1 is null or u < $1 order by u desc'
            when 'completed' then $s$select task_id as id, bool_or(ends and state = 'completed') as fits from run
                                     where $1 is null or task_id < $1 group by task_id order by task_id desc$s$
            when 'failed' then $s$select task_id as id, bool_or(state <> 'cancelled') as fits from run
                                  where ends and state <> 'completed' and ($1 is null or task_id < $1) group by task_id order by task_id desc$s$
            when 'cancelled' then $s$select task_id as id, bool_or(state = 'cancelled') as fits from run
                                     where ends and state <> 'completed' and ($1 is null or task_id < $1) group by task_id order by task_id desc$s$
            else format('select %s as id, ($3 is null or queue_id = $3)%s as fits from %s where $1 is null or %1$s < $1 order by 1 desc',
                        case when p_state is null then 'id' else 'task_id' end,
                        case when p_state is null then ' and ($4 is null or executor_id = $4)' end,
                        case p_state when 'pending' then 'ready' when 'sleeping' then 'timer' when 'blocked' then 'blocked' else 'task' end)
        end
    $$;

-- Tasks, newest first, from below p_after.  Null means any.  p_params: {"a.b": value}, all of which must be equal.
-- A state is read from its own place (_place_of), first as many as are wanted, then a thousand at a time, and nothing is
-- sorted as a whole.  So a page costs what must be looked through to fill it, and a filter that few tasks fit reads all of its
-- state, unless p_look says after how many to stop: then a last row {"next": id} tells where to go on.
-- Order and cursor are the task id, which never changes, so pages neither repeat nor skip what stays in the state.
create or replace function list_tasks(
    p_queue text default null, p_state text default null, p_name text default null, p_tag text default null,
    p_after uuid default null, p_limit integer default 50,
    p_since timestamptz default null, p_until timestamptz default null, p_params jsonb default null, p_look integer default null)
    returns setof jsonb
    language plpgsql stable security definer set search_path from current
    set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_hashagg = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_queue    integer := case when p_queue is not null then _known_queue_id(p_queue) end;
    v_executor integer := (select id from executor where name = p_name);
    v_low      uuid := _id_floor(p_since - interval '1 day');
    v_below    uuid := least(p_after, _id_floor(p_until + interval '1 day'));
    v_left     integer := least(greatest(p_limit, 1), 1000);
    v_find     text := 'select coalesce(array_agg(id) filter (where fits), ''{}''), count(*), (array_agg(id))[count(*)] from ('
                       || _place_of(p_state) || ' limit $2) p';
    v_look     integer := v_left;
    v_looked   integer := 0;
    v_count    integer;
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
        execute v_find into v_ids, v_count, v_below using v_below, v_look, v_queue, v_executor;
        exit when v_count = 0;
        v_found := array(
            select jsonb_build_object('id', t.id, 'queue', (select q.name from queue q where q.id = t.queue_id),
                                      'name', (select x.name from executor x where x.id = t.executor_id),
                                      'state', s.state, 'priority', t.priority,
                                      'attempts', (select count(*) from (
                                          select r.attempt from run r where r.task_id = t.id and r.started_at is not null
                                          union
                                          select l.attempts[array_position(l.task_ids, t.id)] from _live_leases() l
                                          where s.state = 'running' and t.id = any (l.task_ids)) a),
                                      'created_at', t.created_at, 'tags', coalesce(to_jsonb(t.tags), '[]'))
            from (select * from task t
                  where t.id = any (v_ids)
                    and (v_queue is null or t.queue_id = v_queue) and (v_executor is null or t.executor_id = v_executor)
                    and (p_tag is null or p_tag = any (t.tags))
                    and (p_since is null or t.created_at >= p_since) and (p_until is null or t.created_at < p_until)
                    and not exists (select from jsonb_each(p_params) f (k, v) where t.params #> string_to_array(f.k, '.') is distinct from f.v)
                  order by t.id desc offset 0) t
            cross join lateral (select get_state(t.id) as state offset 0) s
            where p_state is null or s.state = p_state
            order by t.id desc limit v_left);
        return query select unnest(v_found);
        v_left := v_left - cardinality(v_found);
        exit when v_left = 0 or v_count < v_look or v_below < v_low;
        v_looked := v_looked + v_count;
        if v_looked >= p_look then
            return next jsonb_build_object('next', v_below);
            exit;
        end if;
        v_look := least(1000, p_look - v_looked);
    end loop;
end $$;
comment on function list_tasks(text, text, text, text, uuid, integer, timestamptz, timestamptz, jsonb, integer) is
    'Tasks, newest first, filtered; p_after is the last id of the page before. p_look: after how many to stop; where to go on is the last row.';
