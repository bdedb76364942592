-- Spawn tasks: a body and a place for each, in the caller's own transaction.

create type _spawn as (
    ordinal      integer,
    id           uuid,
    queue_id     integer,
    executor_id  integer,
    params       jsonb,
    fresh        boolean,
    priority     integer,
    run_at       timestamptz,
    key          text,
    depends_on   uuid[],
    headers      jsonb,
    tags         text[],
    max_attempts integer,
    timeout      interval,
    retry        jsonb,
    needs        jsonb
);

-- One option as a number within bounds; AB001 names the option and its value.
create function _option_number(p_options jsonb, p_name text, p_low double precision, p_high double precision,
                               p_whole boolean default false)
    returns double precision
    language plpgsql immutable
    as $$
declare
    v_value jsonb := p_options -> p_name;
begin
    if v_value is null or v_value = 'null' then
        return null;
    end if;
    if jsonb_typeof(v_value) <> 'number' or not (v_value::double precision between p_low and p_high) then
        raise exception 'option % is %; it must be a number from % to %', p_name, left(v_value::text, 100), p_low, p_high
            using errcode = 'AB001';
    end if;
    if p_whole and v_value::numeric % 1 <> 0 then
        raise exception 'option % is %; it must be a whole number', p_name, left(v_value::text, 100) using errcode = 'AB001';
    end if;
    return v_value::double precision;
end $$;

-- One option as a value of the wanted JSON type; AB001 names the option and its value.
create function _option(p_options jsonb, p_name text, p_type text) returns jsonb
    language plpgsql immutable
    as $$
declare
    v_value jsonb := p_options -> p_name;
begin
    if v_value is null or v_value = 'null' then
        return null;
    end if;
    if jsonb_typeof(v_value) <> p_type then
        raise exception 'option % is %; it must be a JSON %', p_name, left(v_value::text, 100), p_type
            using errcode = 'AB001';
    end if;
    return v_value;
end $$;

-- Options of one task, checked.  Unknown keys are refused, so that a typing error is never a lost wish.
create function _read_options(p_spawn _spawn, p_options jsonb) returns _spawn
    language plpgsql stable
    as $$
declare
    v_unknown text;
    v_text    text;
begin
    if jsonb_typeof(p_options) <> 'object' then
        raise exception 'options are %; they must be a JSON object', left(p_options::text, 100) using errcode = 'AB001';
    end if;
    select string_agg(k, ', ') into v_unknown from jsonb_object_keys(p_options) k
    where k <> all (array['id', 'priority', 'delay', 'run_at', 'key', 'depends_on', 'headers', 'tags',
                          'max_attempts', 'timeout', 'retry', 'needs']);
    if v_unknown is not null then
        raise exception 'unknown option %; known are priority, delay, run_at, key, depends_on, headers, tags, max_attempts, timeout, retry, needs',
            v_unknown using errcode = 'AB001';
    end if;
    p_spawn.priority := coalesce(_option_number(p_options, 'priority', -10000, 10000, true), 0);
    p_spawn.max_attempts := _option_number(p_options, 'max_attempts', 0, 32767, true);
    p_spawn.timeout := make_interval(secs => _option_number(p_options, 'timeout', 0.001, 31536000));
    p_spawn.key := _option(p_options, 'key', 'string') #>> '{}';
    p_spawn.headers := _option(p_options, 'headers', 'object');
    p_spawn.retry := _option(p_options, 'retry', 'object');
    p_spawn.needs := _option(p_options, 'needs', 'object');
    for v_text in select unnest(array['tags', 'depends_on']) loop
        if exists (select from jsonb_array_elements(coalesce(_option(p_options, v_text, 'array'), '[]')) e
                   where jsonb_typeof(e) <> 'string') then
            raise exception 'option % is %; it must be a list of strings', v_text, left((p_options -> v_text)::text, 100)
                using errcode = 'AB001';
        end if;
    end loop;
    if length(p_spawn.key) not between 1 and 1000 then
        raise exception 'option key has % characters; it must have 1 to 1000', length(p_spawn.key) using errcode = 'AB001';
    end if;
    if _option(p_options, 'tags', 'array') is not null then
        p_spawn.tags := array(select jsonb_array_elements_text(p_options -> 'tags'));
    end if;
    if _option(p_options, 'run_at', 'string') is not null then
        if coalesce(p_options -> 'delay', 'null') <> 'null' then
            raise exception 'options delay and run_at exclude each other' using errcode = 'AB001';
        end if;
        v_text := p_options ->> 'run_at';
        begin
            if v_text !~ '\d(Z|[+-]\d\d(:?\d\d)?)$' then
                raise exception 'no zone';
            end if;
            p_spawn.run_at := v_text::timestamptz;
        exception when others then
            raise exception 'option run_at is %; it must be a time with its zone', quote_literal(left(v_text, 100))
                using errcode = 'AB001';
        end;
        if not isfinite(p_spawn.run_at) then
            raise exception 'option run_at is %; it must be finite', v_text using errcode = 'AB001';
        end if;
    else
        p_spawn.run_at := clock_time() + make_interval(secs => nullif(_option_number(p_options, 'delay', 0, 315360000), 0));
    end if;
    if _option(p_options, 'depends_on', 'array') is not null then
        begin
            p_spawn.depends_on := array(
                select distinct t::uuid from jsonb_array_elements_text(p_options -> 'depends_on') t order by 1);
        exception when invalid_text_representation then
            raise exception 'option depends_on is %; it must be a list of task ids', left((p_options -> 'depends_on')::text, 100)
                using errcode = 'AB001';
        end;
        p_spawn.depends_on := nullif(p_spawn.depends_on, '{}');
    end if;
    return p_spawn;
end $$;

-- Spawn many tasks at once.  The arrays run in parallel; options may be null, as a whole or for one
-- task.  Ids are UUIDv7 made by the caller, so that a spawn repeated after a lost answer is the
-- same spawn.  All or nothing.  Returns one row for each task, in order: the id it has (that of the
-- first task when its key was taken) and whether this call created it.
-- Raises AB001, AB007, AB008.  Touches queue, executor, task, task_key, edge, late, ready, timer, blocked, level, tally.
create function spawn_tasks(p_ids uuid[], p_queues text[], p_names text[], p_params jsonb[], p_options jsonb[] default null)
    returns table (ordinal integer, task_id uuid, created boolean)
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_count  integer := coalesce(cardinality(p_ids), 0);
    v_now    timestamptz := clock_time();
    v_lowest  uuid := _id_floor(v_now - interval '1 day');
    v_highest uuid := _id_floor(v_now + interval '1 day');
    v_specs  _spawn[];
begin
    if v_count = 0 then
        return;
    end if;
    if v_count is distinct from cardinality(p_queues) or v_count is distinct from cardinality(p_names)
       or v_count is distinct from cardinality(p_params) or v_count <> coalesce(cardinality(p_options), v_count) then
        raise exception 'the arrays of spawn_tasks differ in length' using errcode = 'AB001';
    end if;
    if exists (select from unnest(p_ids) i where i is null or i not between v_lowest and v_highest) then
        raise exception 'a task id is not a UUIDv7 of the last or next day by the database''s clock' using errcode = 'AB001';
    end if;

    if p_options is null or array_remove(p_options, null) = '{}' then
        return query select * from _spawn_plain(p_ids, p_queues, p_names, p_params, v_now);
        return;
    end if;
    v_specs := _insert_bodies(_take_keys(_spawn_specs(p_ids, p_queues, p_names, p_params, p_options)), v_now);
    perform _insert_edges(v_specs);
    perform _place(v_specs, v_now);
    return query select s.ordinal, s.id, s.fresh from unnest(v_specs) s;
end $$;
comment on function spawn_tasks(uuid[], text[], text[], jsonb[], jsonb[]) is
    'Spawn many tasks, all or nothing; one row each: its id and whether this call created it.';

create function spawn_task(p_queue text, p_name text, p_params jsonb, p_options jsonb default null)
    returns table (task_id uuid, created boolean)
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_id uuid;
begin
    begin
        v_id := coalesce((p_options ->> 'id')::uuid, new_task_id());
    exception when invalid_text_representation then
        raise exception 'option id is %; it must be a UUIDv7', left((p_options -> 'id')::text, 100) using errcode = 'AB001';
    end;
    return query select s.task_id, s.created
        from spawn_tasks(array[v_id], array[p_queue], array[p_name], array[p_params],
                         case when p_options is not null then array[p_options] end) s;
end $$;
comment on function spawn_task(text, text, jsonb, jsonb) is
    'Spawn one task; options: priority, delay, run_at, key, depends_on, headers, tags, max_attempts, timeout, retry, needs, id.';

-- Tasks without options: bodies and ready rows, nothing else.
create function _spawn_plain(p_ids uuid[], p_queues text[], p_names text[], p_params jsonb[], p_now timestamptz)
    returns table (ordinal integer, task_id uuid, created boolean)
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_queue_ids    integer[];
    v_executor_ids integer[];
    v_new          uuid[];
begin
    if p_queues[1] = all (p_queues) and p_names[1] = all (p_names) then
        v_queue_ids := array_fill(_queue_id(p_queues[1]), array[cardinality(p_ids)]);
        v_executor_ids := array_fill(_executor_id(p_names[1]), array[cardinality(p_ids)]);
    else
        v_queue_ids := array(select _queue_id(q) from unnest(p_queues) with ordinality as u (q, n) order by n);
        v_executor_ids := array(select _executor_id(e) from unnest(p_names) with ordinality as u (e, n) order by n);
    end if;
    begin
        insert into task (id, created_at, queue_id, executor_id, params)
            select id, p_now, queue_id, executor_id, coalesce(params, '{}')
            from unnest(p_ids, v_queue_ids, v_executor_ids, p_params) as u (id, queue_id, executor_id, params);
        v_new := p_ids;
    exception when unique_violation then
        -- Some of it came before.  Tried second, because on conflict costs a third more.
        with inserted as (
            insert into task (id, created_at, queue_id, executor_id, params)
            select id, p_now, queue_id, executor_id, coalesce(params, '{}')
            from unnest(p_ids, v_queue_ids, v_executor_ids, p_params) as u (id, queue_id, executor_id, params)
            on conflict do nothing returning id)
        select coalesce(array_agg(id), '{}') into v_new from inserted;
    end;
    -- An id that exists already is the same spawn come again: it has its place.
    insert into ready (task_id, queue_id, level, attempt)
        select id, queue_id, 0, 1 from unnest(p_ids, v_queue_ids) as u (id, queue_id)
        where cardinality(v_new) = cardinality(p_ids) or id = any (v_new);
    insert into tally (queue_id, pending)
        select queue_id, count(*) from unnest(p_ids, v_queue_ids) as u (id, queue_id)
        where cardinality(v_new) = cardinality(p_ids) or id = any (v_new) group by queue_id;
    perform _use_level(u.queue_id, 0) from (select distinct unnest(v_queue_ids) as queue_id) u;
    perform _wake(v_queue_ids);
    return query select n::integer, id, cardinality(v_new) = cardinality(p_ids) or id = any (v_new)
        from unnest(p_ids) with ordinality as u (id, n);
end $$;

-- The arrays as rows, names turned into ids, options read.
create function _spawn_specs(p_ids uuid[], p_queues text[], p_names text[], p_params jsonb[], p_options jsonb[])
    returns _spawn[]
    language plpgsql
    as $$
declare
    v_specs _spawn[];
begin
    v_specs := array(
        select row(n, i, _queue_id(queue), _executor_id(name), coalesce(p, '{}'), true, 0,
                   null, null, null, null, null, null, null, null, null)::_spawn
        from unnest(p_ids, p_queues, p_names, p_params) with ordinality as u (i, queue, name, p, n) order by n);
    return array(
        select case when p_options[s.ordinal] is null then s else _read_options(s, p_options[s.ordinal]) end
        from unnest(v_specs) s order by s.ordinal);
end $$;

-- Claim idempotency keys.  A spec whose key is taken becomes the task that took it first.
create function _take_keys(p_specs _spawn[]) returns _spawn[]
    language plpgsql
    as $$
#variable_conflict use_column
begin
    if not exists (select from unnest(p_specs) s where s.key is not null) then
        return p_specs;
    end if;
    -- In key order: two calls with the same keys wait for one another instead of deadlocking.
    insert into task_key (queue_id, key, task_id)
        select distinct on (queue_id, key) queue_id, key, id from unnest(p_specs)
        where key is not null order by queue_id, key, ordinal
        on conflict do nothing;
    -- In a new statement, which sees the rows that other sessions committed while we waited.
    return array(
        select row(s.ordinal, coalesce(k.task_id, s.id), s.queue_id, s.executor_id, s.params,
                   k.task_id is null or (k.task_id = s.id and not exists (select from task t where t.id = s.id)),
                   s.priority, s.run_at, s.key, s.depends_on, s.headers, s.tags, s.max_attempts, s.timeout, s.retry, s.needs)::_spawn
        from unnest(p_specs) s left join task_key k on k.queue_id = s.queue_id and k.key = s.key
        order by s.ordinal);
end $$;

-- Insert the bodies.  An id that exists already is the same spawn come again: not fresh.
create function _insert_bodies(p_specs _spawn[], p_now timestamptz) returns _spawn[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_new   uuid[];
begin
    with inserted as (
        insert into task (id, created_at, queue_id, executor_id, priority, max_attempts, timeout, run_at, params,
                          headers, tags, key, depends_on, retry, needs)
        select id, p_now, queue_id, executor_id, priority, max_attempts, timeout, run_at, params,
               headers, tags, key, depends_on, retry, needs
        from unnest(p_specs) where fresh
        on conflict do nothing
        returning id)
    select coalesce(array_agg(id), '{}') into v_new from inserted;
    if cardinality(v_new) = cardinality(p_specs) then
        return p_specs;
    end if;
    return array(
        select row(s.ordinal, s.id, s.queue_id, s.executor_id, s.params, s.fresh and s.id = any (v_new), s.priority, s.run_at, s.key,
                   s.depends_on, s.headers, s.tags, s.max_attempts, s.timeout, s.retry, s.needs)::_spawn
        from unnest(p_specs) s order by s.ordinal);
end $$;

-- Note who waits for whom.  Parents must exist; within one call they stand before their children,
-- so that no cycle can be written down.
create function _insert_edges(p_specs _spawn[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_bad record;
begin
    if not exists (select from unnest(p_specs) s where s.fresh and s.depends_on is not null) then
        return;
    end if;
    select s.id as child, d.parent, t.id is not null as known into v_bad
    from unnest(p_specs) s cross join unnest(s.depends_on) d (parent)
    left join task t on t.id = d.parent
    left join unnest(p_specs) sibling on sibling.id = d.parent
    where s.fresh and (t.id is null or sibling.ordinal >= s.ordinal)
    limit 1;
    if found then
        raise exception '%', case when not v_bad.known then format('depends_on names %s, which is no task', v_bad.parent)
                                  else format('depends_on of %s names %s, which does not come before it', v_bad.child, v_bad.parent) end
            using errcode = 'AB008';
    end if;
    insert into edge (parent_id, child_id)
        select d.parent, s.id from unnest(p_specs) s cross join unnest(s.depends_on) d (parent)
        where s.fresh;
    -- A parent that existed before may be ending right now, unseen by us and not seeing us.
    insert into late (child_id)
        select s.id from unnest(p_specs) s
        where s.fresh and s.depends_on is not null
          and exists (select from unnest(s.depends_on) d (parent)
                      where not exists (select from unnest(p_specs) sibling where sibling.fresh and sibling.id = d.parent));
    if found then
        perform pg_notify(current_schema() || '_ready', '');
    end if;
end $$;

-- Give every fresh task its place, count it, and wake who waits for it.
create function _place(p_specs _spawn[], p_now timestamptz) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_queues integer[];
begin
    insert into ready (task_id, queue_id, level, attempt)
        select id, queue_id, 2 * priority, 1 from unnest(p_specs)
        where fresh and depends_on is null and (run_at is null or run_at <= p_now);
    if found then
        select array_agg(distinct queue_id) into v_queues from unnest(p_specs)
        where fresh and depends_on is null and (run_at is null or run_at <= p_now);
    end if;
    insert into timer (task_id, wake_at, queue_id, level, attempt, reason)
        select id, run_at, queue_id, 2 * priority, 1, 'delay' from unnest(p_specs)
        where fresh and depends_on is null and run_at > p_now;
    insert into blocked (task_id, queue_id, level, remaining, run_at)
        select id, queue_id, 2 * priority, cardinality(depends_on), run_at from unnest(p_specs)
        where fresh and depends_on is not null;
    perform _use_level(l.queue_id, l.level)
        from (select distinct queue_id, 2 * priority as level from unnest(p_specs) where fresh order by 1, 2) l;
    insert into tally (queue_id, blocked, pending, sleeping)
        select queue_id, count(*) filter (where depends_on is not null),
               count(*) filter (where depends_on is null and (run_at is null or run_at <= p_now)),
               count(*) filter (where depends_on is null and run_at > p_now)
        from unnest(p_specs) where fresh group by queue_id;
    perform _wake(v_queues);
end $$;
