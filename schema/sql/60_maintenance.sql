-- What keeps the queue going beside spawning and claiming.  Anybody may call these at any time, from
-- any number of processes: one does the work, the others pass by.

-- Sleepers that are due become ready, in order of time.  Beside an old snapshot the index keeps an entry of
-- each that ever slept, so the look begins at a mark: a minute ago, or earlier, where a look found all it may.
-- Once a minute it begins at the very start, for the sake of what a long transaction has committed late.
create or replace function promote_timers(p_limit integer default 1000) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now     timestamptz := clock_time();
    v_mark    timer_mark;
    v_whole   boolean;
    v_reached timestamptz;
    v_last    timestamptz;
    v_tasks   uuid[];
    v_queues  integer[];
begin
    perform _require_no_upgrade();
    select * into v_mark from timer_mark;
    v_whole := v_now not between v_mark.looked_at and v_mark.looked_at + interval '1 minute';
    if v_whole then
        v_mark.wake_at := '-infinity';
    end if;
    with due as (
        delete from timer where ctid = any (array(
            select ctid from timer where wake_at between v_mark.wake_at and v_now order by wake_at limit p_limit for update skip locked))
        returning task_id, wake_at, queue_id, level, attempt, suspect, lane, needs),
    readied as (
        insert into ready (task_id, queue_id, level, attempt, suspect, lane, needs)
        select task_id, queue_id, level, attempt, suspect, lane, needs from due order by wake_at),
    counted as (
        insert into tally (queue_id, sleeping, pending) select queue_id, -count(*), count(*) from due group by queue_id)
    select coalesce(array_agg(task_id), '{}'), array_agg(distinct queue_id), max(wake_at) into v_tasks, v_queues, v_last from due;
    -- Never into the last minute: what is just being committed may stand there.
    v_reached := greatest(v_mark.wake_at, least(case when cardinality(v_tasks) = p_limit then v_last end, v_now - interval '1 minute'));
    -- Not at each round: a row that everybody updates all the time would grow beside a held snapshot.
    if v_whole or v_reached > v_mark.wake_at + interval '10 seconds' then
        update timer_mark set wake_at = v_reached, looked_at = case when v_whole then v_now else looked_at end
        where singleton in (select singleton from timer_mark for update skip locked);
    end if;
    if v_tasks = '{}' then
        return 0;
    end if;
    -- Those that waited for an event have waited long enough.
    with timed_out as (delete from wait where task_id = any (v_tasks) returning task_id, event)
    insert into checkpoint (task_id, name, value, created_at)
        select task_id, 'event:' || event, '{"timeout": true}', v_now from timed_out
        on conflict (task_id, name) do nothing;
    perform _wake(v_queues);
    return cardinality(v_tasks);
end $$;
comment on function promote_timers(integer) is 'Make due sleepers ready; returns how many.';

-- Workers that have not answered for longer than their lease are given up; what they held goes to
-- others as a new attempt, or to the dead letters when that was the last.  The zombie finds no
-- lease any more and changes nothing.  One that cannot be given up keeps nobody from the others: its error is
-- raised once there is nobody else to give up.  Returns how many runs were recovered.
create or replace function recover_runs() returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
declare
    v_now       timestamptz := clock_time();
    v_worker    record;
    v_orphans   bigint[];
    v_recovered integer := 0;
    v_given_up  integer := 0;
    v_error     text;
    v_code      text;
begin
    perform _require_read_committed();
    for v_worker in
        select id, name from worker
        where state in ('running', 'stopping') and last_seen < v_now - make_interval(secs => lease_seconds)
          and _seen(last_seen, lease_seconds) < v_now - make_interval(secs => lease_seconds)
        order by id for update skip locked
    loop
        begin
            v_recovered := v_recovered + _give_up(v_worker.id);
            v_given_up := v_given_up + 1;
        exception when others then
            v_error := format('worker %s cannot be given up: %s', v_worker.name, sqlerrm);
            v_code := sqlstate;
        end;
    end loop;
    -- A claim that saw its worker alive while that was given up or left commits a lease after all were
    -- taken: nobody would ever look at it again.
    -- Asked by worker: beside an old snapshot the leases of a living one leave thousands of dead rows.  A claim
    -- is one statement, so the claim of a worker that was last heard of yesterday has been seen by now.
    v_orphans := array(
        select l.id from worker w join lease l on l.id >= (w.id::bigint << 32) + w.oldest_claim and l.id < (w.id + 1)::bigint << 32
        where w.state not in ('running', 'stopping') and w.last_seen > v_now - interval '1 day');
    if cardinality(v_orphans) > 0 then
        perform _hand_back(v_orphans);
    end if;
    if v_error is not null and v_given_up + cardinality(v_orphans) = 0 then
        raise exception '%', v_error using errcode = v_code;
    end if;
    return v_recovered + cardinality(v_orphans);
end $$;
comment on function recover_runs() is 'Take back the runs of workers that stopped answering; returns how many.';

-- A worker that is certainly dead, as only its machine can tell: nobody has to wait for its lease.
-- Returns how many runs were recovered, 0 when it had left or was given up before.
create or replace function give_up_worker(p_worker integer) returns integer
    language plpgsql security definer set search_path from current
    as $$
begin
    perform _require_read_committed();
    perform from worker where id = p_worker and state in ('running', 'stopping') for update;
    if not found then
        return 0;
    end if;
    return _give_up(p_worker, 'its process is gone');
end $$;
comment on function give_up_worker(integer) is
    'Take back at once the runs of a worker whose process is certainly gone; returns how many.';

-- Workers that said they are on the same machine as this one and have not left, with what tells
-- their processes apart.
create or replace function get_neighbours(p_worker integer) returns table (id integer, pid integer, machine text)
    language sql stable security definer set search_path from current
    as $$
        select w.id, w.pid, w.machine from worker me join worker w on w.id <> me.id
        where me.id = p_worker and w.state in ('running', 'stopping')
          and regexp_replace(w.machine, '/[^/]*$', '') = regexp_replace(me.machine, '/[^/]*$', '')
        order by w.id
    $$;
comment on function get_neighbours(integer) is 'The other workers of a worker''s machine that have not left.';

-- The worker's row is locked; then come its leases.  p_reason is told by each run that is lost; null: it was silent.
create or replace function _give_up(p_worker integer, p_reason text default null) returns integer
    language plpgsql
    as $$
declare
    v_worker worker;
    v_leases lease[];
begin
    update worker set state = 'lost' where id = p_worker returning * into v_worker;
    delete from listener where worker_id = p_worker;
    perform from lease where id >= p_worker::bigint << 32 and id < (p_worker + 1)::bigint << 32 order by id for update;
    with gone as (
        delete from lease where id >= p_worker::bigint << 32 and id < (p_worker + 1)::bigint << 32 returning *)
    select array_agg(row(g.*)::lease order by g.id) into v_leases from gone g;
    perform _release(l.id, l.task_ids) from unnest(v_leases) l where l.holds;
    return _lose_runs(v_worker, v_leases, coalesce(p_reason, _silence(v_worker)));
end $$;

-- A time as messages tell it, the same in every session.
create or replace function _told(p_at timestamptz) returns text
    language sql stable
    as $$ select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"') $$;

-- Why a worker is given up whose lease is over.
create or replace function _silence(p_worker worker) returns text
    language sql stable
    as $$
        select case when p_worker.held_up_since is not null
                   then format('something in it has held up everything since %s, for longer than its runs may take', _told(p_worker.held_up_since))
                   else format('silent since %s', _told(p_worker.last_seen)) end
    $$;

-- Which queue this is, wherever it is reached from: the database cluster, which its standbys share, the
-- database and the schema.
create or replace function get_identity() returns text
    language plpgsql stable security definer set search_path from current
    as $$
declare
    v_cluster text := '';
begin
    begin
        select system_identifier::text into v_cluster from pg_control_system();
    exception when insufficient_privilege then  -- some hosted servers
        null;
    end;
    return concat_ws('/', v_cluster, current_database(), current_schema());
end $$;
comment on function get_identity() is 'Tells this queue from any other: database cluster, database and schema.';

-- Close the runs of leases that are gone with their worker.  One that had certainly started (claimed alone in its
-- lease, among those the worker last said it had started, or suspect before) has spent its attempt;
-- in doubt none is spent, once: all come back as suspects, ahead of their priority.
create or replace function _lose_runs(p_worker worker, p_leases lease[], p_reason text) returns integer
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_now    timestamptz := clock_time();
    v_runs   _held[];
    v_spent  uuid[];
    v_last   uuid[];
    v_error  jsonb := jsonb_build_object('code', 'worker_lost', 'type', 'WorkerLostError',
                                         'message', format('worker %s on host %s was lost: %s', p_worker.name, p_worker.host, p_reason));
begin
    v_runs := array(
        select row(row_number() over (order by l.id, u.n), u.task, u.attempt, l.id, l.queue_id, l.claimed_at)::_held
        from unnest(p_leases) l cross join unnest(l.task_ids, l.attempts) with ordinality as u (task, attempt, n));
    if cardinality(v_runs) = 0 then
        return 0;
    end if;
    v_spent := array(select l.task_ids[1] from unnest(p_leases) l where cardinality(l.task_ids) = 1 and not l.narrowed)
            || p_worker.started || _suspects(array(select h.task_id from unnest(v_runs) h));
    v_last := array(
        select h.task_id from unnest(v_runs) h
        join task t on t.id = h.task_id join executor x on x.id = t.executor_id
        where h.task_id = any (v_spent)
          and h.attempt >= coalesce(t.max_attempts, _whole(t.retry -> 'max_attempts'), x.max_attempts,
                                    _whole(p_worker.defaults -> 'max_attempts'), 5));
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, case when h.task_id = any (v_spent) then h.claimed_at end, v_now, h.lease_id, 'lost', h.attempt,
               h.task_id = any (v_last), v_error || jsonb_build_object('spent', h.task_id = any (v_spent))
        from unnest(v_runs) h;
    insert into tally (queue_id, lost) select h.queue_id, count(*) from unnest(v_runs) h group by h.queue_id;
    perform _requeue(array_agg(h.task_id order by h.n), array_agg(h.attempt + (h.task_id = any (v_spent))::integer order by h.n),
                     array_agg(null::timestamptz), array_agg(null::text), true)
        from unnest(v_runs) h where h.task_id <> all (v_last) having count(*) > 0;
    perform _bury(array(select row(h.*)::_held from unnest(v_runs) h where h.task_id = any (v_last)),
                  array_fill(v_error, array[cardinality(v_last)]),
                  coalesce(p_worker.defaults -> 'dead_letters' <> 'false', true));
    return cardinality(v_runs);
end $$;

-- A whole number of a JSON document that nobody has checked; null for anything else.
create or replace function _whole(p_value jsonb) returns integer
    language sql immutable
    as $$ select case when jsonb_typeof(p_value) = 'number' then least(p_value::numeric, 32767)::integer end $$;

-- Whether advance_marks would do anything: a note was made, or stands to be judged.  Not at each round.
create or replace function _lacks_marks() returns boolean
    language sql volatile
    as $$
        select clock_time() not between h.at and h.at + interval '0.9 seconds'
           and ((r.last_value - (not r.is_called)::integer, t.last_value - (not t.is_called)::integer, h.noted_seq, h.noted_tally)
                    is distinct from (h.noted_seq, h.noted_tally, h.seq, h.tally)
                -- Numbers are drawn together with tallies: while there is one to judge, so are they.
                or h.tally_base <= h.tally)
        from horizon h, ready_seq r, tally_id_seq t
    $$;

-- The regular round of a worker or scheduler.  Each part stands alone: one that fails is undone and told
-- (`failed`: part, code, error), and holds up none of the others, least of all the recovery of lost runs.
-- Besides it returns how much was done, what is due and needs a transaction of its own (`late`: sweep_late,
-- `prune`: prune_ended, `partitions`: ensure_partitions, `spent`: drop_partition, either waits for locks of tables, `marks`: advance_marks),
-- and in how many seconds the next sleeper is due (null: none), or a worker will have been silent for too long.
-- Who has nothing to do may rest until then: `ready` are the queues with something to claim, `now` is the time
-- that notifications of `_due` go by, and for longer than `silence` seconds nobody may be silent, see _note_pulse.
-- Who spawned in a transaction of his own may have looked for listeners long before he commits: a worker that has begun
-- to listen rests only once every transaction that may have looked before has ended, that is when the `oldest` that is
-- open is newer than the `newest` of a round since then.
create or replace function maintain() returns jsonb
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
declare
    v_part   text;
    v_count  integer;
    v_counts integer[] := '{}';
    v_failed jsonb := '[]';
    v_next   timestamptz;
begin
    perform _require_read_committed();
    foreach v_part in array array['recover_runs', 'cancel_overdue', 'promote_timers', 'fold_tallies', '_end_waits', '_sweep_holdings'] loop
        begin
            v_count := case v_part
                when 'recover_runs' then case when _note_pulse() then recover_runs() else 0 end
                -- Not both in one transaction: either locks leases before blocked tasks.
                when 'cancel_overdue' then case when v_counts[1] = 0 then cancel_overdue() else 0 end
                when 'promote_timers' then promote_timers()
                when 'fold_tallies' then fold_tallies()
                when '_end_waits' then _end_waits()
                else _sweep_holdings() end;
        exception when others then
            v_failed := v_failed || jsonb_build_object('part', v_part, 'code', sqlstate, 'error', sqlerrm);
            v_count := 0;
        end;
        v_counts := v_counts || v_count;
    end loop;
    delete from waiter where expires_at < clock_time();
    select least((select wake_at from timer where wake_at >= (select wake_at from timer_mark) order by wake_at limit 1),
                 (select due_at from deadline order by due_at limit 1),
                 (select run_at from blocked where awaiting and run_at is not null order by run_at limit 1)) into v_next;
    return jsonb_build_object(
        'recovered', v_counts[1], 'overdue', v_counts[2], 'promoted', v_counts[3], 'folded', v_counts[4], 'failed', v_failed,
        'late', exists (select from late),
        'prune', exists (select from queue where retention is not null),
        'partitions', _lacks_partitions(),
        'spent', exists (select from _spent_partitions()),
        'marks', _lacks_marks(),
        'unpublished', exists (select from get_overdue_publications()),
        'ready', (
            select coalesce(jsonb_agg(distinct l.queue_id), '[]') from _levels() l join queue q on q.id = l.queue_id
            where q.paused_at is null
              -- Two looks, one for each of the partial indexes: a single one would fit neither, and read the whole table.
              and (exists (select from ready r where r.queue_id = l.queue_id and r.level = l.level and r.seq >= l.base and r.needs is null)
                   or exists (select from ready r where r.queue_id = l.queue_id and r.level = l.level and r.seq >= l.base and r.needs is not null))),
        'newest', pg_current_xact_id()::text::bigint,
        'oldest', pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
        'now', extract(epoch from clock_time()),
        'silence', (select 0.4 * min(lease_seconds) from worker where state in ('running', 'stopping')),
        'next_loss_seconds', (
            select greatest(1, extract(epoch from min(_seen(last_seen, lease_seconds) + make_interval(secs => lease_seconds)) - clock_time()))
            from worker where state in ('running', 'stopping') having count(*) > 0),
        'next_wake_seconds', case when isfinite(v_next) then greatest(0, extract(epoch from v_next - clock_time())) end);
end $$;
comment on function maintain() is
    'Recover lost runs, cancel what is overdue, wake due sleepers, fold counts; tells which part failed, and what else is due.';
