-- Close runs.  Every outcome names its lease and its task: what is no longer held under that lease
-- changes nothing and comes back as stale, the rest of the batch is kept.

-- Take tasks out of their leases: the fence that every outcome passes.  A lease loses the reported
-- tasks and keeps its id; reported whole, it goes.  Returns what was held, a task once however often it is named.
-- Leases are locked in id order.
create or replace function _take_claims(p_leases bigint[], p_tasks uuid[]) returns setof _held
    language plpgsql
    as $$
declare
    v_one   boolean := coalesce(p_leases[1] = all (p_leases), false) and array_position(p_tasks, null) is null;
    v_group record;
    v_lease lease;
begin
    for v_group in
        -- Nothing to sort: the common case.
        select p_leases[1] as id, p_tasks as tasks, null::integer[] as places where v_one
        union all
        (select l, array_agg(t order by o), array_agg(o::integer order by o)
         from unnest(p_leases, p_tasks) with ordinality as u (l, t, o)
         where l is not null and t is not null and not v_one group by l order by l)
    loop
        select * into v_lease from lease where id = v_group.id for update;
        continue when not found;
        if v_lease.task_ids = v_group.tasks then  -- the whole batch, in order: the common case
            delete from lease where id = v_group.id;
            return query
                select coalesce(v_group.places[h.o], h.o::integer), h.task, h.attempt, v_lease.id, v_lease.queue_id, v_lease.claimed_at
                from unnest(v_lease.task_ids, v_lease.attempts) with ordinality as h (task, attempt, o);
        else
            if v_lease.task_ids <@ v_group.tasks then
                delete from lease where id = v_group.id;
            else
                update lease set (task_ids, attempts, narrowed) = (
                    select array_agg(h.task order by h.o), array_agg(h.attempt order by h.o), true
                    from unnest(v_lease.task_ids, v_lease.attempts) with ordinality as h (task, attempt, o)
                    where h.task <> all (v_group.tasks))
                where id = v_group.id;
            end if;
            return query
                select coalesce(v_group.places[g.first], g.first), h.task, h.attempt, v_lease.id, v_lease.queue_id, v_lease.claimed_at
                from unnest(v_lease.task_ids, v_lease.attempts) as h (task, attempt)
                cross join lateral (select array_position(v_group.tasks, h.task) as first) g where g.first is not null;
        end if;
        if v_lease.holds then
            perform _release(v_group.id, v_group.tasks);
        end if;
        perform _wake_limited(v_lease.queue_id);
    end loop;
end $$;

-- Refuse a report whose arrays do not run in parallel: what is missing would be read as null, a lost result or a
-- failure for good.  Raises AB001.
create or replace function _check_lengths(variadic p_lengths integer[]) returns void
    language plpgsql immutable
    as $$
begin
    if array_position(p_lengths, null) is not null or p_lengths[1] <> any (p_lengths) then
        raise exception 'the arrays of a report differ in length: %', array_to_string(p_lengths, ', ', 'null') using errcode = 'AB001';
    end if;
end $$;

-- What was reported and not held.  A report that arrived before and is repeated after a lost answer
-- is not stale: its run stands in the history under the same lease, ended the same way, since the first of them was spawned.
create or replace function _stale(p_leases bigint[], p_tasks uuid[], p_held _held[], p_state run_state) returns uuid[]
    language plpgsql
    as $$
#variable_conflict use_column
begin
    if cardinality(p_held) = cardinality(p_tasks) then
        return null;
    end if;
    return nullif(array(
        select u.task from unnest(p_leases, p_tasks) as u (lease, task)
        where not exists (select from unnest(p_held) h where h.task_id = u.task and h.lease_id = u.lease)
          and not exists (select from run r where r.task_id = u.task and r.lease_id = u.lease and r.state = p_state
                            and r.finished_at >= (select min(_ran_from(t)) from unnest(p_tasks) t where t is not null))), '{}');
end $$;

-- Completed runs with their results (JSON texts, null for none) and, for those that published
-- files, artifacts: [{task, path, attempt_path, kind, sha256, bytes}].  Ages are milliseconds since
-- the start, so that the worker's clock never enters.  Returns the stale tasks, null when there are none.
-- p_spawns is what the runs have spawned (see _spawn_offspring), p_products what they tell of their products (see _store_products).
-- Plans are made once for a session: anew for each report they cost a chain of tasks a third of its pace.
-- Touches lease, run, artifact, tally; what _store_products does; then edge, blocked, ready for the dependents; what spawn_tasks does; waiter.
create or replace function complete_runs(
    p_leases bigint[], p_tasks uuid[], p_ages integer[], p_results text[], p_artifacts jsonb default null, p_spawns jsonb default null,
    p_products jsonb default null)
    returns uuid[]
    language plpgsql security definer
    set search_path from current set jit = off
    set enable_seqscan = off set enable_bitmapscan = off set enable_hashjoin = off set enable_mergejoin = off
    set plan_cache_mode = force_generic_plan
    as $$
#variable_conflict use_column
declare
    v_now   timestamptz := clock_time();
    v_held  _held[];
    v_ended uuid[];
begin
    perform _require_read_committed();
    perform _check_lengths(cardinality(p_tasks), cardinality(p_leases), cardinality(p_ages), cardinality(p_results));
    v_held := array(select h from _take_claims(p_leases, p_tasks) h);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, result)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'completed', h.attempt, true,
               p_results[h.n]::jsonb
        from unnest(v_held) h;
    insert into tally (queue_id, running, completed)
        select queue_id, -count(*), count(*) from unnest(v_held) group by queue_id;
    perform _feed_ended(v_held, 'completed');
    if p_artifacts is not null then
        insert into artifact (task_id, path, attempt, attempt_path, kind, sha256, bytes, completed_at)
            select distinct on (h.task_id, a.path) h.task_id, a.path, h.attempt, a.attempt_path, a.kind, a.sha256, a.bytes, v_now
            from rows from (jsonb_to_recordset(p_artifacts)
                            as (task uuid, path text, attempt_path text, kind text, sha256 text, bytes bigint))
                 with ordinality as a (task, path, attempt_path, kind, sha256, bytes, o)
            join unnest(v_held) h on h.task_id = a.task
            order by h.task_id, a.path, a.o desc
            on conflict (task_id, path) do update
                set (attempt, attempt_path, kind, sha256, bytes, completed_at, published_at)
                  = (excluded.attempt, excluded.attempt_path, excluded.kind, excluded.sha256, excluded.bytes, v_now, null);
    end if;
    if p_products is not null then
        perform _store_products(v_held, p_products);
    end if;
    v_ended := array(select h.task_id from unnest(v_held) h);
    if p_spawns is null then
        perform _settle(v_ended, 'completed');
    else  -- before the workflow counts the spawner down, which may have been its last node
        v_ended := v_ended || _end_parents(v_ended, 'completed');
        perform _spawn_offspring(v_held, p_spawns, false, v_ended);
        perform _close(v_ended);
    end if;
    return _stale(p_leases, p_tasks, v_held, 'completed');
end $$;
comment on function complete_runs(bigint[], uuid[], integer[], text[], jsonb, jsonb, jsonb) is
    'Close completed runs; results, artifacts, rows of products, what they spawned and dependents in one transaction. Returns the stale ones.';

-- Files of a task that a crash may have left under the attempt's own name.
create or replace function get_publications(p_task uuid)
    returns table (path text, attempt_path text, attempt smallint)
    language sql stable security definer set search_path from current
    as $$ select path, attempt_path, attempt from artifact where task_id = p_task and published_at is null $$;
comment on function get_publications(uuid) is 'Artifacts of a completed task that are not yet known to be renamed.';

-- Artifacts that should have been renamed long ago: the worker that completed them has died meanwhile.
-- In no order: those that nobody can reach, on the disk of a machine that is gone, must not hide the others.
create or replace function get_overdue_publications(p_seconds double precision default 10, p_limit integer default 100)
    returns table (task_id uuid, path text, attempt_path text, attempt smallint)
    language sql stable security definer set search_path from current
    as $$
        select task_id, path, attempt_path, attempt from artifact
        where published_at is null and completed_at < clock_time() - make_interval(secs => p_seconds)
        order by random() limit p_limit
    $$;
comment on function get_overdue_publications(double precision, integer) is 'Artifacts whose renaming a crash has interrupted.';

-- An attempt's rename was done.  A later attempt of a task run anew is not touched by an earlier
-- one's word.  Who waits for the task is told again: its files are now in place.
create or replace function mark_published(p_task uuid, p_path text, p_attempt_path text) returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    update artifact set published_at = clock_time()
    where task_id = p_task and path = p_path and attempt_path = p_attempt_path and published_at is null;
    if not exists (select from artifact where task_id = p_task and published_at is null) then
        perform pg_notify(current_schema() || '_ended', w.task_id::text) from waiter w where w.task_id = p_task;
    end if;
end $$;
comment on function mark_published(uuid, text, text) is 'Note that an artifact stands under its final name.';
