-- Runs that end otherwise than well: failed, suspended, handed back, cancelled by themselves.
-- All pass the same fence as completions (_take_claims) and return the stale tasks.

-- Put tasks whose claim was just taken into their next place: at the tail of their level when due,
-- else to sleep.  p_ahead: ahead of their priority instead (handed back, recovered).
create or replace function _requeue(p_tasks uuid[], p_attempts integer[], p_wake_at timestamptz[], p_reasons text[], p_ahead boolean,
                                    p_suspects boolean[] default null) returns void
    language plpgsql
    as $$
declare
    v_now    timestamptz := clock_time();
    v_queues integer[];
begin
    with item as materialized (
        select u.task, u.attempt, u.wake_at, coalesce(u.reason, 'retry') as reason, coalesce(u.suspect, false) as suspect,
               t.queue_id, 2 * t.priority + p_ahead::integer as level, t.lane, t.needs,
               coalesce(u.wake_at > v_now, false) as later
        from unnest(p_tasks, p_attempts, p_wake_at, p_reasons, p_suspects) with ordinality as u (task, attempt, wake_at, reason, suspect, n)
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
    select array_agg(distinct queue_id) filter (where not later) into v_queues from item;
    if p_ahead then
        perform _use_level(l.queue_id, l.level)
            from (select distinct t.queue_id, 2 * t.priority + 1 as level from task t where t.id = any (p_tasks) order by 1, 2) l;
    end if;
    perform _wake(v_queues);
end $$;

-- Failed runs.  A delay in seconds asks for another attempt after it; null ends the task: it goes
-- to the dead letters (unless p_dead_letters is false) and its dependents end as `upstream`.
create or replace function fail_runs(
    p_leases bigint[], p_tasks uuid[], p_ages integer[], p_errors text[], p_delays double precision[],
    p_dead_letters boolean default true) returns uuid[]
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_held _held[];
begin
    perform _require_read_committed();
    v_held := array(select row(h.*)::_held from _take_claims(p_leases, p_tasks) h order by h.task_id);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'failed', h.attempt,
               p_delays[h.n] is null, p_errors[h.n]::jsonb
        from unnest(v_held) h;
    perform _requeue(array_agg(h.task_id), array_agg(h.attempt + 1), array_agg(v_now + make_interval(secs => p_delays[h.n])),
                     array_agg('retry'::text), false)
        from unnest(v_held) h where p_delays[h.n] is not null having count(*) > 0;
    perform _bury(array(select row(h.*)::_held from unnest(v_held) h where p_delays[h.n] is null),
                  array(select p_errors[h.n]::jsonb from unnest(v_held) h where p_delays[h.n] is null), p_dead_letters);
    return _stale(p_leases, p_tasks, v_held, 'failed');
end $$;
comment on function fail_runs(bigint[], uuid[], integer[], text[], double precision[], boolean) is
    'Close failed runs: next attempt after a delay, or dead letter. Returns the stale ones.';

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
    perform _settle(array(select h.task_id from unnest(p_held) h), 'failed');
end $$;

-- Runs that went to sleep (a delay in seconds) or to wait for an event (with a delay as its
-- time-out, or null for ever), or for the end of tasks (see _await_tasks).  No attempt is spent.
-- p_spawns is what they have spawned until now (see _spawn_offspring).
create or replace function suspend_runs(
    p_leases bigint[], p_tasks uuid[], p_ages integer[], p_delays double precision[], p_reasons text[], p_events text[],
    p_spawns jsonb default null, p_awaits jsonb default null)
    returns uuid[]
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now   timestamptz := clock_time();
    v_held  _held[];
    v_taken jsonb;
begin
    perform _require_read_committed();
    -- Before anything else, and in name order: emit_event takes the same lock.
    perform pg_advisory_xact_lock(hashtextextended(current_schema() || '.event.' || e, 0))
        from (select distinct e from unnest(p_events) e where e is not null order by e) named;
    v_held := array(select row(h.*)::_held from _take_claims(p_leases, p_tasks) h order by h.task_id);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'suspended', h.attempt, false,
               jsonb_build_object('code', 'suspended', 'type', 'suspended', 'message', p_reasons[h.n])
        from unnest(v_held) h;
    perform _requeue(array_agg(h.task_id), array_agg(h.attempt::integer),
                     array_agg(coalesce(v_now + make_interval(secs => p_delays[h.n]),
                                        case when p_events[h.n] is not null then timestamptz 'infinity' end)),
                     array_agg(p_reasons[h.n]), false)
        from unnest(v_held) h
        where p_awaits is null or h.task_id not in (select a.task from jsonb_to_recordset(p_awaits) as a (task uuid))
        having count(*) > 0;
    insert into wait (task_id, event)
        select h.task_id, p_events[h.n] from unnest(v_held) h where p_events[h.n] is not null
        on conflict (task_id) do update set event = excluded.event;
    perform _wake_waiting(e.name, e.payload)
        from event e where e.name = any (p_events);
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
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_held _held[];
begin
    perform _require_read_committed();
    v_held := array(select row(h.*)::_held from _take_claims(p_leases, p_tasks) h order by h.n);
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
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_held _held[];
begin
    perform _require_read_committed();
    v_held := array(select row(h.*)::_held from _take_claims(p_leases, p_tasks) h order by h.task_id);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'cancelled', h.attempt, true,
               _cancellation(p_reasons[h.n])
        from unnest(v_held) h;
    insert into tally (queue_id, running, cancelled)
        select queue_id, -count(*), count(*) from unnest(v_held) group by queue_id;
    perform _settle(array(select h.task_id from unnest(v_held) h), 'cancelled');
    return _stale(p_leases, p_tasks, v_held, 'cancelled');
end $$;
comment on function cancel_runs(bigint[], uuid[], integer[], text[]) is
    'Close runs whose executor cancelled its task. Returns the stale ones.';
