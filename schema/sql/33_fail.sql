-- Runs that end otherwise than well: failed, suspended, handed back, cancelled by themselves.
-- All pass the same fence as completions (_take_claims) and return the stale tasks.

-- Those of the tasks that are under suspicion: since they were spawned or last ended, a run of theirs
-- was lost with its worker, or killed its process.  History tells it, so that no place has to be told.
create or replace function _suspects(p_tasks uuid[]) returns uuid[]
    language sql stable
    as $$
        select coalesce(array_agg(distinct r.task_id), '{}')
        from run r
        where r.task_id = any (p_tasks)
          and r.finished_at >= (select min(_ran_from(t)) from unnest(p_tasks) t)
          and (r.state = 'lost' or r.error ->> 'code' = 'child_died') and not r.ends
          and not exists (select from run e where e.task_id = r.task_id and e.ends and e.finished_at >= r.finished_at)
    $$;

-- Put tasks whose claim was just taken, and whose run was closed, into their next place: at the tail
-- of their level when due, else to sleep.  p_ahead: ahead of their priority instead (handed back, recovered).
create or replace function _requeue(p_tasks uuid[], p_attempts integer[], p_wake_at timestamptz[], p_reasons text[], p_ahead boolean)
    returns void
    language plpgsql
    as $$
declare
    v_now      timestamptz := clock_time();
    v_suspects uuid[] := _suspects(p_tasks);
    v_queues   integer[];
    v_next     timestamptz;
begin
    with item as materialized (
        select u.task, u.attempt, u.wake_at, coalesce(u.reason, 'retry') as reason, u.task = any (v_suspects) as suspect,
               t.queue_id, 2 * t.priority + p_ahead::integer as level, t.lane, _counted(t.needs) as needs,
               coalesce(u.wake_at > v_now, false) as later
        from unnest(p_tasks, p_attempts, p_wake_at, p_reasons) with ordinality as u (task, attempt, wake_at, reason, n)
        join task t on t.id = u.task order by n),
    readied as (
        insert into ready (task_id, queue_id, level, attempt, suspect, lane, needs)
        select task, queue_id, level, attempt, suspect, lane, needs from item where not later),
    slept as (
        insert into timer (task_id, wake_at, queue_id, level, attempt, suspect, lane, needs, reason)
        select task, wake_at, queue_id, level, attempt, suspect, lane, needs, reason from item where later),
    counted as (
        insert into tally (queue_id, running, pending, sleeping)
        select queue_id, -count(*), count(*) filter (where not later), count(*) filter (where later) from item group by queue_id)
    select array_agg(distinct queue_id) filter (where not later), min(wake_at) filter (where later) into v_queues, v_next from item;
    if p_ahead then
        perform _use_level(l.queue_id, l.level)
            from (select distinct t.queue_id, 2 * t.priority + 1 as level from task t where t.id = any (p_tasks) order by 1, 2) l;
    end if;
    perform _wake(v_queues);
    if v_next is not null then
        perform _tell_due(v_next);
    end if;
end $$;

-- Failed runs.  A delay in seconds asks for another attempt after it; null ends the task: it goes
-- to the dead letters (unless p_dead_letters is false) and its dependents end as `upstream`.
-- p_amends, an array in step with the tasks, changes the body of those that are tried again: each
-- null or {queue, needs, memory_factor, memory_max_gib}, see _amend.  A task whose process died for
-- the third time is poison and ends, whatever its policy says.
-- Raises AB001.  Touches task when amended, lease, run, ready, timer, audit, dead_letter, tally, and what _settle does.
create or replace function fail_runs(
    p_leases bigint[], p_tasks uuid[], p_ages integer[], p_errors text[], p_delays double precision[],
    p_dead_letters boolean default true, p_amends jsonb default null) returns uuid[]
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now    timestamptz := clock_time();
    v_held   _held[];
    v_errors jsonb[];
    v_delays double precision[] := p_delays;
begin
    perform _require_read_committed();
    perform _check_lengths(cardinality(p_tasks), cardinality(p_leases), cardinality(p_ages), cardinality(p_errors), cardinality(p_delays));
    if p_amends is not null then  -- bodies come before leases
        perform from task where id = any (array(
            select t from unnest(p_tasks) with ordinality u (t, n) where jsonb_typeof(p_amends -> (n::integer - 1)) = 'object'))
            order by id for no key update;
    end if;
    v_held := array(select h from _take_claims(p_leases, p_tasks) h order by h.task_id);
    v_errors := array(select _poisoned(t, e::jsonb) from unnest(p_tasks, p_errors) with ordinality u (t, e, n) order by n);
    v_delays := array(select case when e ->> 'code' is distinct from 'poison' then d end
                      from unnest(v_errors, p_delays) with ordinality u (e, d, n) order by n);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'failed', h.attempt,
               v_delays[h.n] is null, v_errors[h.n]
        from unnest(v_held) h;
    if p_amends is not null then
        -- All in one order: two calls that make the same queues or levels would else deadlock.
        perform _queue_id(q) from (
            select distinct p_amends -> (h.n - 1) ->> 'queue' as q from unnest(v_held) h
            where v_delays[h.n] is not null and jsonb_typeof(p_amends -> (h.n - 1) -> 'queue') = 'string' order by 1) u;
        perform _amend(h.task_id, h.queue_id, p_amends -> (h.n - 1))
            from unnest(v_held) h where v_delays[h.n] is not null and jsonb_typeof(p_amends -> (h.n - 1)) = 'object';
        perform _use_level(l.queue_id, l.level) from (
            select distinct t.queue_id, 2 * t.priority as level from unnest(v_held) h join task t on t.id = h.task_id
            where t.queue_id <> h.queue_id order by 1, 2) l;
    end if;
    perform _requeue(array_agg(h.task_id), array_agg(h.attempt + 1), array_agg(v_now + make_interval(secs => v_delays[h.n])),
                     array_agg('retry'::text), false)
        from unnest(v_held) h where v_delays[h.n] is not null having count(*) > 0;
    insert into tally (queue_id, retried)  -- on the queue where they failed, whichever they go on in
        select h.queue_id, count(*) from unnest(v_held) h where v_delays[h.n] is not null group by h.queue_id;
    perform _bury(array(select row(h.*)::_held from unnest(v_held) h where v_delays[h.n] is null),
                  array(select v_errors[h.n] from unnest(v_held) h where v_delays[h.n] is null), p_dead_letters);
    return _stale(p_leases, p_tasks, v_held, 'failed');
end $$;
comment on function fail_runs(bigint[], uuid[], integer[], text[], double precision[], boolean, jsonb) is
    'Close failed runs: next attempt after a delay, perhaps on another queue or with more memory, or dead letter. Returns the stale ones.';

-- How often a task may kill its own process.
create or replace function _poison_deaths() returns integer
    language sql immutable
    as $$ select 3 $$;

-- The error of a run as it is stored: `poison`, with what its deaths were, when its process died for the
-- last time that is allowed.  Deaths before the task was retried by hand are forgiven.
create or replace function _poisoned(p_task uuid, p_error jsonb) returns jsonb
    language plpgsql stable
    as $$
declare
    v_deaths text[];
begin
    if p_error ->> 'code' is distinct from 'child_died' then
        return p_error;
    end if;
    v_deaths := array(
        select coalesce(r.error ->> 'signal', 'exit code ' || (r.error ->> 'exit_code'), 'its end')
        from run r
        where r.task_id = p_task and r.finished_at >= _ran_from(p_task)
          and r.error ->> 'code' = 'child_died' and not r.ends
          and not exists (select from run e where e.task_id = p_task and e.ends and e.finished_at >= r.finished_at)
        order by r.finished_at)
        || coalesce(p_error ->> 'signal', 'exit code ' || (p_error ->> 'exit_code'), 'its end');
    if cardinality(v_deaths) < _poison_deaths() then
        return p_error;
    end if;
    return p_error || jsonb_build_object(
        'code', 'poison', 'deaths', to_jsonb(v_deaths),
        'message', format('the task killed its process %s times (%s); it is not tried again. The last time: %s',
                          cardinality(v_deaths), array_to_string(v_deaths, ', '), p_error ->> 'message'));
end $$;

-- Change the body of a task, which is locked, before its next attempt: another queue, other needs, or
-- memory_gib times memory_factor, up to memory_max_gib (a task that names none is taken to need 1).
create or replace function _amend(p_task uuid, p_queue_id integer, p_amend jsonb) returns void
    language plpgsql
    as $$
declare
    v_old    task;
    v_queue  integer := p_queue_id;
    v_memory double precision;
    v_needs  jsonb;
begin
    select * into v_old from task where id = p_task;
    v_needs := coalesce(v_old.needs, '{}') || coalesce(_option(p_amend, 'needs', 'object'), '{}');
    if p_amend ? 'memory_factor' then
        v_memory := coalesce((v_needs ->> 'memory_gib')::double precision, 1);
        v_needs := v_needs || jsonb_build_object('memory_gib', greatest(v_memory, least(
            v_memory * _option_number(p_amend, 'memory_factor', 1, 1000),
            coalesce(_option_number(p_amend, 'memory_max_gib', 0, 1000000), 1000000))));
    end if;
    if p_amend ? 'queue' then
        v_queue := _queue_id(_option_text(p_amend, 'queue', 128));
    end if;
    update task set queue_id = v_queue, needs = nullif(v_needs, '{}') where id = p_task;
    if v_queue <> p_queue_id then  -- it ran as one of the old queue, and goes on as one of the new
        insert into tally (queue_id, running) values (p_queue_id, -1), (v_queue, 1);
    end if;
    insert into audit (at, task_id, action, detail)
        select clock_time(), p_task, 'amend', jsonb_build_object(
            'queue', case when v_queue <> p_queue_id then jsonb_build_array(
                (select name from queue where id = p_queue_id), (select name from queue where id = v_queue)) end,
            'needs', case when nullif(v_needs, '{}') is distinct from v_old.needs
                          then jsonb_build_array(v_old.needs, nullif(v_needs, '{}')) end)::text
        where v_queue <> p_queue_id or nullif(v_needs, '{}') is distinct from v_old.needs;
end $$;

-- End tasks whose last run has failed.
create or replace function _bury(p_held _held[], p_errors jsonb[], p_dead_letters boolean) returns void
    language plpgsql
    as $$
#variable_conflict use_column
begin
    if cardinality(p_held) = 0 then
        return;
    end if;
    if p_dead_letters then
        insert into dead_letter (task_id, died_at, queue_id, executor_id, attempts, fingerprint, host, versions, error, body, runs)
            select t.id, clock_time(), t.queue_id, t.executor_id, h.attempt, _fingerprint(t.executor_id, p_errors[o]),
                   w.host, w.versions, p_errors[o], to_jsonb(t), _runs_of(t.id)
            from unnest(p_held) with ordinality as h (n, task_id, attempt, lease_id, queue_id, claimed_at, o)
            join task t on t.id = h.task_id
            left join worker w on w.id = lease_worker(h.lease_id)
            on conflict (task_id) do nothing;
    end if;
    insert into tally (queue_id, running, failed)
        select queue_id, -count(*), count(*) from unnest(p_held) group by queue_id;
    perform _feed_ended(p_held, 'failed');
    perform _settle(array(select h.task_id from unnest(p_held) h), 'failed');
end $$;

-- Runs that went to sleep (a delay in seconds) or to wait for an event (with a delay as its
-- time-out, or null for ever), or for the end of tasks (see _await_tasks).  No attempt is spent.
-- p_spawns is what they have spawned until now (see _spawn_offspring).
create or replace function suspend_runs(
    p_leases bigint[], p_tasks uuid[], p_ages integer[], p_delays double precision[], p_reasons text[], p_events text[],
    p_spawns jsonb default null, p_awaits jsonb default null)
    returns uuid[]
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now   timestamptz := clock_time();
    v_held  _held[];
    v_taken jsonb;
begin
    perform _require_read_committed();
    perform _check_lengths(cardinality(p_tasks), cardinality(p_leases), cardinality(p_ages), cardinality(p_delays), cardinality(p_reasons), cardinality(p_events));
    -- Before anything else, and in name order: emit_event takes the same lock.
    perform pg_advisory_xact_lock(hashtextextended(current_schema() || '.event.' || e, 0))
        from (select distinct e from unnest(p_events) e where e is not null order by e) named;
    v_held := array(select h from _take_claims(p_leases, p_tasks) h order by h.task_id);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'suspended', h.attempt, false,
               jsonb_build_object('code', 'suspended', 'type', 'suspended', 'message', p_reasons[h.n])
        from unnest(v_held) h;
    perform _requeue(array_agg(h.task_id), array_agg(h.attempt::integer),
                     array_agg(coalesce(v_now + make_interval(secs => p_delays[h.n]),
                                        case when p_events[h.n] is not null then timestamptz 'infinity' end)),
                     array_agg(p_reasons[h.n]), false)
        from unnest(v_held) h
        where p_awaits is null or not exists (select from jsonb_to_recordset(p_awaits) as a (task uuid) where a.task = h.task_id)
        having count(*) > 0;
    insert into wait (task_id, event)
        select h.task_id, p_events[h.n] from unnest(v_held) h where p_events[h.n] is not null
        on conflict (task_id) do update set event = excluded.event;
    perform _wake_waiting(e.name, e.payload)
        from event e where e.name = any (p_events);
    if p_awaits is not null then  -- before anything is spawned: a task that has no place looks as if it had ended
        perform _place_waiting(v_held, p_awaits);
    end if;
    if p_spawns is not null then
        v_taken := _spawn_offspring(v_held, p_spawns, true);
    end if;
    if p_awaits is not null then
        perform _await_tasks(v_held, p_awaits, v_taken);
    end if;
    return _stale(p_leases, p_tasks, v_held, 'suspended');
end $$;
comment on function suspend_runs(bigint[], uuid[], integer[], double precision[], text[], text[], jsonb, jsonb) is
    'Put running tasks to sleep until a time, an event or the end of tasks; no attempt is spent. Returns the stale ones.';

-- Runs handed back unfinished.  An age of null tells that the run never started: it leaves no trace.
create or replace function return_runs(p_leases bigint[], p_tasks uuid[], p_ages integer[]) returns uuid[]
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_held _held[];
begin
    perform _require_read_committed();
    perform _check_lengths(cardinality(p_tasks), cardinality(p_leases), cardinality(p_ages));
    v_held := array(select h from _take_claims(p_leases, p_tasks) h order by h.n);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'returned', h.attempt, false,
               jsonb_build_object('code', 'returned', 'type', 'returned', 'message', 'handed back by its worker')
        from unnest(v_held) h where p_ages[h.n] is not null;
    perform _requeue(array_agg(h.task_id), array_agg(h.attempt::integer), array_agg(null::timestamptz), array_agg(null::text), true)
        from unnest(v_held) h having count(*) > 0;
    return _stale(p_leases, p_tasks, v_held, 'returned');
end $$;
comment on function return_runs(bigint[], uuid[], integer[]) is
    'Hand claimed runs back, attempts intact, ahead of their priority. Returns the stale ones.';

-- Runs whose executor asked to cancel its own task.
create or replace function cancel_runs(p_leases bigint[], p_tasks uuid[], p_ages integer[], p_reasons text[]) returns uuid[]
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_held _held[];
begin
    perform _require_read_committed();
    perform _check_lengths(cardinality(p_tasks), cardinality(p_leases), cardinality(p_ages), cardinality(p_reasons));
    v_held := array(select h from _take_claims(p_leases, p_tasks) h order by h.task_id);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'cancelled', h.attempt, true,
               _cancellation(p_reasons[h.n])
        from unnest(v_held) h;
    insert into tally (queue_id, running, cancelled)
        select queue_id, -count(*), count(*) from unnest(v_held) group by queue_id;
    perform _feed_ended(v_held, 'cancelled');
    perform _settle(array(select h.task_id from unnest(v_held) h), 'cancelled');
    return _stale(p_leases, p_tasks, v_held, 'cancelled');
end $$;
comment on function cancel_runs(bigint[], uuid[], integer[], text[]) is
    'Close runs whose executor cancelled its task. Returns the stale ones.';
