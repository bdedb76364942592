-- Spawn tasks: a body and a place for each, in the caller's own transaction.

-- Spawn many tasks at once.  The arrays run in parallel; options may be null, as a whole or for one
-- task.  Ids are UUIDv7 made by the caller, so that a spawn repeated after a lost answer is the
-- same spawn.  All or nothing.  Returns one row for each task, in order: the id it has (that of the
-- first task when its key was taken) and whether it is this spawn's own, be it come again or not.
-- Raises AB001, AB004, AB007, AB008, AB009.  Touches queue, executor, task, task_key, edge, late, ready, timer, blocked,
-- deadline, level, tally; workflow, node.
create or replace function spawn_tasks(p_ids uuid[], p_queues text[], p_names text[], p_params jsonb[], p_options jsonb[] default null)
    returns table (ordinal integer, task_id uuid, created boolean)
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_count  integer := coalesce(cardinality(p_ids), 0);
    v_now    timestamptz := clock_time();
    v_lowest  uuid := _id_floor(v_now - interval '1 day');
    v_highest uuid := _id_floor(v_now + interval '1 day');
    v_specs  _spawn[];
begin
    perform _require_no_upgrade();
    if v_count = 0 then
        return;
    end if;
    if v_count > 100000 then
        raise exception '% tasks in one call of spawn_tasks; at most 100000 are taken: spawn them in parts', v_count using errcode = 'AB001';
    end if;
    if v_count is distinct from cardinality(p_queues) or v_count is distinct from cardinality(p_names)
       or v_count is distinct from cardinality(p_params) or v_count <> coalesce(cardinality(p_options), v_count) then
        raise exception 'the arrays of spawn_tasks differ in length' using errcode = 'AB001';
    end if;
    perform _check_size('params', p) from unnest(p_params) p where pg_column_size(p) > 4000;
    -- Not by _check_id(): a call for each of a thousand would be felt.
    perform _check_id(i, v_now) from unnest(p_ids) i where i is null or i not between v_lowest and v_highest;
    if p_options is null or array_remove(p_options, null) = '{}' then
        perform _spawn_plain(p_ids, p_queues, p_names, p_params, v_now);
        return query select n::integer, id, true from unnest(p_ids) with ordinality as u (id, n);
        return;
    end if;
    perform _check_distinct(p_ids);
    v_specs := _spawn_all(p_ids, p_queues, p_names, p_params, p_options, v_now);
    return query select s.ordinal, s.id, s.id = p_ids[s.ordinal] from unnest(v_specs) s;
end $$;
comment on function spawn_tasks(uuid[], text[], text[], jsonb[], jsonb[]) is
    'Spawn many tasks, all or nothing; one row each: its id, and whether this spawn made it rather than one before with its key.';

-- For those who do not know the executor, such as SQL and schedules: what it usually needs, by the last worker that registered
-- it, stands in where the options name no amount.  Clients that know it spawn by spawn_plain() and spawn_tasks().
create or replace function spawn_task(p_queue text, p_name text, p_params jsonb, p_options jsonb default null)
    returns table (task_id uuid, created boolean)
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
declare
    v_id    uuid;
    v_needs jsonb;
begin
    perform _require_no_upgrade();  -- before any table is touched: an upgrade has to have them all
    v_needs := (select x.needs from executor x where x.name = p_name);
    if v_needs is not null and coalesce(jsonb_typeof(p_options), 'object') = 'object'
       and coalesce(jsonb_typeof(p_options -> 'needs'), 'null') in ('object', 'null') then
        p_options := coalesce(p_options, '{}')
            || jsonb_build_object('needs', v_needs || coalesce(nullif(p_options -> 'needs', 'null'), '{}'));
    end if;
    begin
        v_id := coalesce((p_options ->> 'id')::uuid, new_task_id());
    exception when invalid_text_representation then
        raise exception 'option id is %; it must be a UUIDv7', left((p_options -> 'id')::text, 100) using errcode = 'AB001';
    end;
    if p_options is null or p_options = '{}' then
        perform spawn_plain(v_id, p_queue, p_name, p_params);
        return query values (v_id, true);
    else
        return query select s.task_id, s.created
            from spawn_tasks(array[v_id], array[p_queue], array[p_name], array[p_params], array[p_options]) s;
    end if;
end $$;
comment on function spawn_task(text, text, jsonb, jsonb) is
    'Spawn one task; options: priority, delay, run_at, key, key_period, key_scope, depends_on, when, headers, tags, max_attempts, timeout, retry, needs, lane, start_within, finish_within, workflow, node, id.';

-- Refuse a call that names a task twice.  Raises AB001.
create or replace function _check_distinct(p_ids uuid[]) returns void
    language plpgsql immutable
    as $$
begin
    if cardinality(p_ids) <> (select count(distinct i) from unnest(p_ids) i) then
        raise exception 'a task id stands twice in one call of spawn_tasks' using errcode = 'AB001';
    end if;
end $$;

-- Tasks without options: bodies and ready rows, nothing else.  Where they are of one queue nothing is grouped, and who
-- stands twice among them is told by the primary key: each pass over a thousand tasks is felt.
create or replace function _spawn_plain(p_ids uuid[], p_queues text[], p_names text[], p_params jsonb[], p_now timestamptz) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_queue_ids    integer[];
    v_executor_ids integer[];
    v_queues       integer[];
    v_new          uuid[];
    v_count        integer;
begin
    if p_queues[1] = all (p_queues) and p_names[1] = all (p_names) then
        v_queues := array[_queue_id(p_queues[1])];
        v_queue_ids := array_fill(v_queues[1], array[cardinality(p_ids)]);
        v_executor_ids := array_fill(_executor_id(p_names[1]), array[cardinality(p_ids)]);
    else
        v_queue_ids := array(select _queue_id(q) from unnest(p_queues) with ordinality as u (q, n) order by n);
        v_executor_ids := array(select _executor_id(e) from unnest(p_names) with ordinality as u (e, n) order by n);
        v_queues := array(select distinct q from unnest(v_queue_ids) q order by q);
    end if;
    begin
        insert into task (id, created_at, queue_id, executor_id, params)
            select id, p_now, queue_id, executor_id, coalesce(params, '{}')
            from unnest(p_ids, v_queue_ids, v_executor_ids, p_params) as u (id, queue_id, executor_id, params);
        v_new := p_ids;
    exception when unique_violation then
        perform _check_distinct(p_ids);
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
    get diagnostics v_count = row_count;
    if v_count > 0 and cardinality(v_queues) = 1 then
        insert into tally (queue_id, pending) values (v_queues[1], v_count);
    elsif v_count > 0 then
        insert into tally (queue_id, pending)
            select queue_id, count(*) from unnest(p_ids, v_queue_ids) as u (id, queue_id)
            where cardinality(v_new) = cardinality(p_ids) or id = any (v_new) group by queue_id;
    end if;
    perform _use_level(q, 0) from unnest(v_queues) q;
    perform _wake(v_queues);
end $$;

-- Tasks with options.  Returns them as they were spawned, in order.
-- p_ended: tasks whose end is not yet counted off their workflows, which are locked with those that are joined,
-- so that it is in one order, and after the keys.
create or replace function _spawn_all(
    p_ids uuid[], p_queues text[], p_names text[], p_params jsonb[], p_options jsonb[], p_now timestamptz, p_ended uuid[] default '{}')
    returns _spawn[]
    language plpgsql
    as $$
declare
    v_specs _spawn[];
begin
    v_specs := _insert_bodies(_take_keys(_spawn_specs(p_ids, p_queues, p_names, p_params, p_options), p_now), p_now);
    perform _insert_edges(v_specs);
    perform _place(v_specs, p_now);
    if cardinality(p_ended) > 0 then
        perform from workflow where id = any (array(
            select n.workflow_id from node n where n.task_id = any (p_ended)
            union select s.workflow_id from unnest(v_specs) s where s.fresh)) order by id for update;
    end if;
    perform _join_workflows(v_specs);
    return v_specs;
end $$;

-- The arrays as rows, names turned into ids, options read.
create or replace function _spawn_specs(p_ids uuid[], p_queues text[], p_names text[], p_params jsonb[], p_options jsonb[])
    returns _spawn[]
    language plpgsql
    as $$
declare
    v_specs _spawn[] := '{}';
    v_spec  _spawn;
begin
    for n in 1..cardinality(p_ids) loop
        v_spec := null;
        v_spec.ordinal := n;
        v_spec.id := p_ids[n];
        v_spec.queue_id := _queue_id(p_queues[n]);
        v_spec.executor_id := _executor_id(p_names[n]);
        v_spec.params := coalesce(p_params[n], '{}');
        v_spec.fresh := true;
        v_spec.priority := 0;
        if p_options[n] is not null then
            v_spec := _read_options(v_spec, p_options[n]);
        end if;
        v_specs[n] := v_spec;
    end loop;
    return v_specs;
end $$;

-- Claim idempotency keys.  A spec whose key is taken becomes the task that took it first, for those
-- that depend on it too.
create or replace function _take_keys(p_specs _spawn[], p_now timestamptz) returns _spawn[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_taken jsonb;
begin
    if not exists (select from unnest(p_specs) s where s.key is not null) then
        return p_specs;
    end if;
    -- Everything in key order: two calls with the same keys wait for one another instead of deadlocking.
    if _insert_keys(p_specs, p_now) = (select count(s.key) from unnest(p_specs) s) then
        return p_specs;  -- all of them new, and none twice
    end if;
    perform from task_key k
        where (k.queue_id, k.key) in (select s.queue_id, s.key from unnest(p_specs) s where s.key is not null)
        order by k.queue_id, k.key for update;
    -- Keys that are free again.  Not for the same spawn come again, which its id tells.
    delete from task_key k using unnest(p_specs) s
        where k.queue_id = s.queue_id and k.key = s.key and k.task_id <> s.id
          and (k.expires_at <= p_now
               or (k.until_ended and coalesce(get_state(k.task_id), 'completed') in ('completed', 'failed', 'cancelled')));
    perform _insert_keys(p_specs, p_now);
    -- In a new statement, which sees the rows that other sessions committed while we waited.
    select coalesce(jsonb_object_agg(s.id, k.task_id), '{}') into v_taken
        from unnest(p_specs) s join task_key k on k.queue_id = s.queue_id and k.key = s.key
        where k.task_id <> s.id;
    if v_taken = '{}' then
        return p_specs;
    end if;
    return array(
        select case when v_taken ? s.id::text then jsonb_populate_record(s, jsonb_build_object('id', v_taken -> s.id::text, 'fresh', false))
                    when exists (select from unnest(s.depends_on) d where v_taken ? d::text)
                    then jsonb_populate_record(s, jsonb_build_object('depends_on', array(
                        select distinct coalesce((v_taken ->> d::text)::uuid, d) from unnest(s.depends_on) d order by 1),
                        'params', _follow_keys(s.params, v_taken)))
                    else s end
        from unnest(p_specs) s order by s.ordinal);
end $$;

-- Insert the keys that are not taken, in key order, each for the first task that names it; returns how many.
create or replace function _insert_keys(p_specs _spawn[], p_now timestamptz) returns integer
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_count integer;
begin
    insert into task_key (queue_id, key, task_id, expires_at, until_ended)
        select distinct on (queue_id, key) queue_id, key, id, p_now + key_period, coalesce(key_scope = 'unfinished', false)
        from unnest(p_specs)
        where key is not null order by queue_id, key, ordinal
        on conflict do nothing;
    get diagnostics v_count = row_count;
    return v_count;
end $$;

-- Params whose references to results name the tasks that took the keys first.
create or replace function _follow_keys(p_params jsonb, p_taken jsonb) returns jsonb
    language plpgsql immutable
    as $$
declare
    v_text text := p_params::text;
    v_pair record;
begin
    if position('"$result' in v_text) = 0 then
        return p_params;
    end if;
    for v_pair in select key, value from jsonb_each_text(p_taken) loop
        v_text := replace(v_text, v_pair.key, v_pair.value);
    end loop;
    return v_text;
end $$;

-- Insert the bodies.  An id that exists already is the same spawn come again: not fresh.
create or replace function _insert_bodies(p_specs _spawn[], p_now timestamptz) returns _spawn[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_new   uuid[];
begin
    with inserted as (
        insert into task (id, created_at, queue_id, executor_id, priority, max_attempts, timeout, run_at, params,
                          headers, tags, key, depends_on, retry, needs, lane, condition, workflow_id)
        select id, p_now, queue_id, executor_id, priority, max_attempts, timeout, run_at, params,
               headers, tags, key, depends_on, retry, needs, lane, condition, workflow_id
        from unnest(p_specs) where fresh order by ordinal
        on conflict do nothing
        returning id)
    select coalesce(array_agg(id), '{}') into v_new from inserted;
    if cardinality(v_new) = cardinality(p_specs) then
        return p_specs;
    end if;
    return array(
        select case when not s.fresh or s.id in (select unnest(v_new)) then s
                    else jsonb_populate_record(s, '{"fresh": false}') end
        from unnest(p_specs) s order by s.ordinal);
end $$;

-- Note who waits for whom.  Parents must exist; within one call they stand before their children,
-- so that no cycle can be written down.
create or replace function _insert_edges(p_specs _spawn[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_bad record;
begin
    if not exists (select from unnest(p_specs) s where s.fresh and s.depends_on is not null) then
        return;
    end if;
    -- No LIMIT in these: it would make the planner join by nested loops, a hundred million steps for a
    -- graph of ten thousand nodes.
    -- What existed before, and stands here once more by its key, may stand anywhere.
    with spec as materialized (select id, ordinal, fresh, depends_on from unnest(p_specs))
    select d.child, d.parent into v_bad
    from (select s.id as child, s.ordinal, unnest(s.depends_on) as parent from spec s where s.fresh) d
    join spec sibling on sibling.id = d.parent and sibling.fresh
    where sibling.ordinal >= d.ordinal;
    if found then
        raise exception 'depends_on of % names %, which does not come before it', v_bad.child, v_bad.parent using errcode = 'AB008';
    end if;
    with spec as materialized (select id, fresh, depends_on from unnest(p_specs)),
    outside as materialized (
        select distinct d.parent from (select unnest(s.depends_on) as parent from spec s where s.fresh) d
        where d.parent not in (select id from spec)),
    -- Kept from being pruned until this commits; nobody else waits for this lock.
    found as materialized (select t.id from task t where t.id in (select parent from outside) order by t.id for key share)
    select o.parent into v_bad from outside o where o.parent not in (select id from found);
    if found then
        raise exception 'depends_on names %, which is no task', v_bad.parent using errcode = 'AB008';
    end if;
    insert into edge (parent_id, child_id)
        select unnest(s.depends_on), s.id from unnest(p_specs) s where s.fresh;
    -- A parent that existed before may be ending right now, unseen by us and not seeing us.
    with spec as materialized (select id, fresh, depends_on from unnest(p_specs))
    insert into late (child_id)
        select distinct d.child
        from (select s.id as child, unnest(s.depends_on) as parent from spec s where s.fresh) d
        left join spec sibling on sibling.id = d.parent and sibling.fresh
        where sibling.id is null;
    if found then
        perform pg_notify(current_schema() || '_ready', '');
    end if;
end $$;

-- Give every fresh task its place, count it, and wake who waits for it.
create or replace function _place(p_specs _spawn[], p_now timestamptz) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_kinds  record;
begin
    -- Looked for first: an insert of nothing is felt where one task is spawned.
    select array_agg(distinct s.queue_id) filter (where s.depends_on is null and coalesce(s.run_at <= p_now, true)) as ready,
           bool_or(s.depends_on is null and s.run_at > p_now) as asleep,
           bool_or(s.depends_on is not null) as blocked,
           bool_or(coalesce(s.start_within, s.finish_within) is not null) as hurried
    into v_kinds from unnest(p_specs) s where s.fresh;
    if v_kinds.ready is not null then
        insert into ready (task_id, queue_id, level, attempt, lane, needs)
            select id, queue_id, 2 * priority, 1, lane, _counted(needs) from unnest(p_specs)
            where fresh and depends_on is null and (run_at is null or run_at <= p_now) order by ordinal;
    end if;
    if v_kinds.asleep then
        insert into timer (task_id, wake_at, queue_id, level, attempt, lane, needs, reason)
            select id, run_at, queue_id, 2 * priority, 1, lane, _counted(needs), 'delay' from unnest(p_specs)
            where fresh and depends_on is null and run_at > p_now;
        perform _tell_due(min(run_at)) from unnest(p_specs) where fresh and depends_on is null and run_at > p_now;
    end if;
    if v_kinds.blocked then
        insert into blocked (task_id, queue_id, level, lane, needs, run_at, condition, quorum, remaining)
            select id, queue_id, 2 * priority, lane, _counted(needs), run_at,
                   _condition_name(condition), _quorum(condition, cardinality(depends_on)), cardinality(depends_on)
            from unnest(p_specs)
            where fresh and depends_on is not null;
    end if;
    if v_kinds.hurried then
        insert into deadline (task_id, kind, due_at)
            select id, d.kind, p_now + d.within
            from unnest(p_specs) cross join lateral (values ('start', start_within), ('finish', finish_within)) d (kind, within)
            where fresh and d.within is not null;
        -- Whether or not a worker is there: a scheduler may rest as well.
        perform pg_notify(current_schema() || '_due', extract(epoch from p_now + min(least(start_within, finish_within)))::text)
            from unnest(p_specs) where fresh having min(least(start_within, finish_within)) < interval '40 seconds';
    end if;
    perform _use_level(l.queue_id, l.level)
        from (select distinct queue_id, 2 * priority as level from unnest(p_specs) where fresh order by 1, 2) l;
    insert into tally (queue_id, blocked, pending, sleeping)
        select queue_id, count(*) filter (where depends_on is not null),
               count(*) filter (where depends_on is null and (run_at is null or run_at <= p_now)),
               count(*) filter (where depends_on is null and run_at > p_now)
        from unnest(p_specs) where fresh group by queue_id;
    perform _wake(v_kinds.ready);
end $$;
