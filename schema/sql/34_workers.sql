-- Workers and their leases: a worker's heartbeat keeps all it holds.

-- Note that somebody is there: every round, every beat and every worker that registers does so.  If
-- nobody was for longer than workers are silent between two beats, or the server was started
-- meanwhile, then the database was away for all of them: see _seen().  Returns false when another
-- session is just noting it: what that will find is not known here, so nobody may be given up now.
-- Called before anything else is locked or changed; never waits.
create or replace function _note_pulse() returns boolean
    language plpgsql
    as $$
declare
    v_now   timestamptz := clock_time();
    v_short double precision;  -- the shortest lease in use; a beat comes at least three times in it
    v_long  double precision;  -- the longest
    v_pulse pulse;
begin
    select coalesce(min(lease_seconds), 30), coalesce(max(lease_seconds), 30) into v_short, v_long
        from worker where state in ('running', 'stopping');
    select * into v_pulse from pulse;
    if not found then
        insert into pulse (at) values (v_now) on conflict do nothing;
        return true;
    end if;
    -- Now and then is enough: a row that everybody updates all the time would grow beside a held snapshot.
    if v_pulse.at between v_now - least(1, 0.08 * v_short) * interval '1 second' and v_now
       and v_pulse.at > pg_postmaster_start_time() then
        return true;
    end if;
    select * into v_pulse from pulse for update skip locked;
    if not found then
        return false;
    end if;
    update pulse set at = v_now;
    if v_pulse.at < v_now - greatest(1, 0.4 * v_short) * interval '1 second' or pg_postmaster_start_time() between v_pulse.at and v_now then
        -- A database that goes away again before all had time to come back was away the whole time; for
        -- an hour at most, because where no worker is left the rounds may simply be far apart.
        update pulse set back_at = v_now,
            away_from = case when v_pulse.at < v_pulse.back_at + v_long * interval '1 second' and v_now < away_from + interval '1 hour'
                             then away_from else v_pulse.at end;
    elsif v_pulse.back_at > v_now then  -- the clock was set back
        update pulse set back_at = v_now;
    end if;
    return true;
end $$;

-- Since when a worker is silent.  One that could not answer because the database was away counts as
-- seen when it was back, so that it has a whole lease to come back in; one that was overdue before
-- that does not.
create or replace function _seen(p_last_seen timestamptz, p_lease_seconds double precision) returns timestamptz
    language sql stable
    as $$
        select coalesce(
            (select greatest(p_last_seen, back_at) from pulse
             where p_last_seen >= away_from - make_interval(secs => p_lease_seconds)),
            p_last_seen)
    $$;

-- p_defaults is what holds for runs it loses: {max_attempts, dead_letters}.  p_former is the number under which
-- this process was given up: its orders go on.  A queue may still be missing afterwards: see _make_names().
create or replace function register_worker(
    p_name text, p_host text, p_pid integer, p_queues text[], p_concurrency integer,
    p_versions jsonb, p_offers jsonb, p_lease_seconds double precision, p_machine text default null,
    p_defaults jsonb default '{}', p_former integer default null, p_reserve_after double precision default 30) returns integer
    language plpgsql security definer set search_path from current
    as $$
declare
    v_id integer;
begin
    perform _note_pulse();
    perform _make_names(p_queues, '{}');
    insert into worker (name, host, pid, queues, concurrency, versions, offers, lease_seconds, machine, defaults,
                        draining, wanted_concurrency, started_at, last_seen, reserve_after)
    values (p_name, p_host, p_pid, p_queues, p_concurrency, p_versions, p_offers, p_lease_seconds, p_machine, p_defaults,
            coalesce((select f.draining from worker f where f.id = p_former), false),
            (select f.wanted_concurrency from worker f where f.id = p_former), clock_time(), clock_time(),
            p_reserve_after)
    returning id into v_id;
    return v_id;
end $$;
comment on function register_worker(text, text, integer, text[], integer, jsonb, jsonb, double precision, text, jsonb, integer, double precision) is
    'Announce a worker; returns its number, the high half of its lease ids.';

-- What a worker can run.  Tasks that were put aside because nobody knew their executor wake up; those put aside for
-- want of a Dask cluster do where `reached` says that this worker has one.  What is missing of executors, and of p_queues, is
-- made unless that would have to wait: see _make_names().
create or replace function register_executors(p_executors jsonb, p_queues text[] default '{}') returns void
    language plpgsql security definer set search_path from current
    as $$
declare
    v_each record;
begin
    perform _make_names(p_queues, array(select e ->> 'name' from jsonb_array_elements(p_executors) e));
    for v_each in
        select * from jsonb_to_recordset(p_executors)
            as e (name text, queue text, runs_in text, description text, max_attempts smallint, retry jsonb,
                  timeout double precision, params_schema jsonb, needs jsonb)
        order by name
    loop
        update executor
        set (queue, runs_in, description, max_attempts, retry, timeout, params_schema, needs, registered_at)
          = (v_each.queue, v_each.runs_in, v_each.description, v_each.max_attempts, v_each.retry,
             make_interval(secs => v_each.timeout), v_each.params_schema, nullif(v_each.needs, '{}'), clock_time())
        where name = v_each.name;
    end loop;
    update timer set wake_at = clock_time()
    where reason in ('no_executor', 'no_cluster') and task_id = any (array(
        select t.task_id from timer t join task b on b.id = t.task_id join executor x on x.id = b.executor_id
        where t.reason in ('no_executor', 'no_cluster')
          and x.name in (select e.name from jsonb_to_recordset(p_executors) as e (name text, reached boolean)
                         where t.reason = 'no_executor' or coalesce(e.reached, false))
        order by t.task_id for update of t skip locked));
    if found then
        perform _tell_due(clock_time());
    end if;
end $$;
comment on function register_executors(jsonb, text[]) is 'Tell what a worker can run: [{name, queue, runs_in, reached, description, ...}].';

-- Sign of life.  Returns what the worker still holds, lease by lease in two arrays of one length, so that it
-- learns what was taken from it; and its orders: whether to drain, and how many runs at a time (null: as it
-- was started).  Leases it does not list and that are older than its lease time were never heard of by it (the
-- answer to its claim was lost): they go back, attempts intact.
-- p_load is what it tells of itself.  Without p_leases it is a sign that another process gives in its stead
-- because something in it holds up everything: all it holds is kept, and it counts as held up until it beats itself.
-- Raises AB002 when the worker was given up meanwhile.
create or replace function beat(
    p_worker integer, p_leases bigint[], p_state text default 'running', p_started uuid[] default '{}', p_load jsonb default '{}',
    out leases bigint[], out tasks uuid[], out draining boolean, out concurrency integer)
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_worker worker;
    v_mark   bigint;
    v_oldest bigint;
begin
    perform _require_read_committed();
    perform _note_pulse();
    if p_leases is null then
        update worker set last_seen = clock_time(), held_up_since = coalesce(held_up_since, last_seen)
        where id = p_worker and state in ('running', 'stopping') returning * into v_worker;
    else
        -- Claims come one after the other, their numbers rising: what is still under way has a higher one than all these.
        v_oldest := (select min(l) from unnest(p_leases) l where lease_worker(l) = p_worker);
        select (w.id::bigint << 32) + w.oldest_claim into v_mark from worker w where w.id = p_worker;
        v_oldest := least(v_oldest, (select l.id from lease l where l.id >= v_mark and l.id < v_oldest order by l.id limit 1))
            - (p_worker::bigint << 32);
        update worker
        set oldest_claim = greatest(oldest_claim, v_oldest), last_seen = clock_time(), state = p_state, started = p_started, load = p_load, held_up_since = null,
            concurrency = coalesce(_whole(p_load -> 'concurrency'), concurrency)
        where id = p_worker and state in ('running', 'stopping') returning * into v_worker;
    end if;
    if not found then
        raise exception 'worker % was given up: it did not answer for longer than its lease', p_worker using errcode = 'AB002';
    end if;
    perform _hand_back(array(
        select id from lease
        where id >= (p_worker::bigint << 32) + v_worker.oldest_claim and id < (p_worker + 1)::bigint << 32 and id <> all (p_leases)
          and claimed_at < clock_time() - make_interval(secs => v_worker.lease_seconds)));
    select coalesce(array_agg(l.id order by l.id, u.n), '{}'), coalesce(array_agg(u.task order by l.id, u.n), '{}') into leases, tasks
        from lease l cross join unnest(l.task_ids) with ordinality as u (task, n)
        where l.id = any (p_leases) and lease_worker(l.id) = p_worker;
    draining := v_worker.draining;
    concurrency := v_worker.wanted_concurrency;
end $$;
comment on function beat(integer, bigint[], text, uuid[], jsonb) is
    'A worker''s sign of life; returns what it still holds (leases, tasks) and its orders (draining, concurrency).';

-- Dissolve leases; what they hold goes back ahead of its priority, attempts intact.
create or replace function _hand_back(p_leases bigint[]) returns void
    language plpgsql
    as $$
declare
    v_tasks    uuid[];
    v_attempts integer[];
    v_released bigint;
begin
    perform from lease where id = any (p_leases) order by id for update;
    with gone as (delete from lease where id = any (p_leases) returning *),
    released as materialized (select _release(g.id, g.task_ids) from gone g where g.holds)
    select array_agg(u.task order by g.id, u.n), array_agg(u.attempt order by g.id, u.n), (select count(*) from released)
    into v_tasks, v_attempts, v_released
    from gone g cross join unnest(g.task_ids, g.attempts::integer[]) with ordinality as u (task, attempt, n);
    if v_tasks is not null then
        perform _requeue(v_tasks, v_attempts, array_fill(null::timestamptz, array[cardinality(v_tasks)]), null, true);
    end if;
end $$;

-- A worker that leaves in good order.  What it still holds goes back, attempts intact.
create or replace function unregister_worker(p_worker integer) returns void
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
begin
    perform _require_read_committed();
    -- The worker's row before its leases, as recover_runs does.
    update worker set state = 'stopped', last_seen = clock_time()
    where id = p_worker and state in ('running', 'stopping');
    delete from listener where worker_id = p_worker;
    perform _hand_back(array(select id from lease where id >= p_worker::bigint << 32 and id < (p_worker + 1)::bigint << 32));
end $$;
comment on function unregister_worker(integer) is 'A worker leaves; what it still holds goes back.';

-- Say whether a worker is idle.  It then claims once more before it listens: a spawn that looked
-- before this committed has not notified it.
create or replace function set_listening(p_worker integer, p_queue_ids integer[], p_listening boolean) returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    if p_listening then
        insert into listener (queue_id, worker_id) select q, p_worker from unnest(p_queue_ids) q on conflict do nothing;
    else
        delete from listener where worker_id = p_worker and queue_id = any (p_queue_ids);
    end if;
end $$;
comment on function set_listening(integer, integer[], boolean) is 'An idle worker wants to be notified of what becomes claimable.';

-- Is this claim still held?  Raises AB002 when not.  The row is locked: what the caller writes next
-- in this transaction cannot outlive the claim.
create or replace function check_claim(p_lease bigint, p_task uuid) returns void
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
begin
    perform _require_read_committed();
    perform from lease where id = p_lease and p_task = any (task_ids) for share;
    if not found then
        raise exception 'the claim on task % is lost: its lease ended or the task was cancelled', p_task using errcode = 'AB002';
    end if;
end $$;
comment on function check_claim(bigint, uuid) is 'Raise AB002 unless the task is still held under this lease.';

-- Names and ids a worker needs to read its claims.
create or replace function get_names() returns table (kind text, id integer, name text)
    language sql stable security definer set search_path from current
    as $$
        select 'queue', id, name from queue
        union all select 'executor', id, name from executor
    $$;
comment on function get_names() is 'Ids of queues and executors, as claims carry them.';
