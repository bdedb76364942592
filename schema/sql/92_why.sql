-- What a task waits for, or how it ended, in a sentence for people.  Everything is read from one
-- snapshot, so that the parts of an answer fit together.

create or replace function task_why(p_task uuid) returns text
    language plpgsql stable security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
declare
    v_task jsonb := get_task(p_task);
begin
    if v_task is null then
        return null;
    end if;
    return concat_ws(' ', case v_task ->> 'state'
        when 'blocked' then _why_blocked(p_task)
        when 'sleeping' then _why_sleeping(p_task, v_task)
        when 'pending' then _why_pending(p_task, v_task)
        when 'running' then _why_running(p_task, v_task)
        when 'completed' then format('It completed at %s, in attempt %s.', _moment((v_task ->> 'finished_at')::timestamptz),
                                     v_task -> 'runs' -> -1 ->> 'attempt')
        when 'failed' then case v_task -> 'error' ->> 'code'
            when 'poison' then format('It is poison and was given up: %s.', rtrim(v_task -> 'error' ->> 'message', '.'))
            else format('It failed for good in attempt %s: %s.', v_task -> 'runs' -> -1 ->> 'attempt',
                        rtrim(coalesce(v_task -> 'error' ->> 'message', 'no reason was given'), '.')) end
        when 'cancelled' then _why_cancelled(p_task, v_task)
        else 'It is moving from one place to another at this moment; ask again.' end,
        _why_deadline(p_task));
end $$;
comment on function task_why(uuid) is 'What a task waits for, or how it ended, in a sentence.';

create or replace function _moment(p_time timestamptz) returns text
    language sql stable
    as $$ select to_char(p_time at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"') $$;

-- At most ten tasks by id and state, and how many more there are.
create or replace function _task_list(p_tasks uuid[]) returns text
    language sql stable
    as $$
        select concat(
            (select string_agg(format('%s (%s)', t, coalesce(get_state(t), 'moving')), ', ' order by n)
             from unnest(p_tasks[1:10]) with ordinality as u (t, n)),
            case when cardinality(p_tasks) > 10 then format(' and %s more', cardinality(p_tasks) - 10) end)
    $$;

create or replace function _why_deadline(p_task uuid) returns text
    language sql stable
    as $$
        select string_agg(case kind when 'start' then format('It is cancelled if it has not started by %s.', _moment(due_at))
                                    else format('It is cancelled if it has not ended by %s.', _moment(due_at)) end, ' ' order by due_at)
        from deadline where task_id = p_task and get_state(p_task) not in ('completed', 'failed', 'cancelled')
    $$;

create or replace function _why_suspect(p_suspect boolean) returns text
    language sql immutable
    as $$
        select case when p_suspect then
            'Its last run was lost with its worker or killed its process: it runs in a process of its own.' end
    $$;

create or replace function _why_blocked(p_task uuid) returns text
    language plpgsql stable
    as $$
declare
    v_blocked blocked;
    v_open    uuid[];
    v_all     integer;
begin
    select * into v_blocked from blocked where task_id = p_task;
    select count(*),
           array_agg(e.parent_id order by e.parent_id) filter (where get_state(e.parent_id) is null
               or get_state(e.parent_id) not in ('completed', 'failed', 'cancelled'))
    into v_all, v_open
    from edge e where e.child_id = p_task and e.awaited = v_blocked.awaiting;
    if v_open is null then
        return format('All of its %s parents have ended; that is about to be counted.', v_all);
    end if;
    return concat_ws(' ', format(case
            when v_blocked.awaiting then 'Its run waits for %s tasks to end: %s.'
            when v_blocked.condition = 'all_done' then 'It waits for %s of its parents to end: %s.'
            when v_blocked.condition = 'any_success' then 'It waits for one of its parents to complete; %s have not ended: %s.'
            when v_blocked.condition = 'any_failed' then 'It waits for one of its parents to fail; %s have not ended: %s.'
            when v_blocked.condition = 'quorum' then
                format('It waits for %s of its parents to complete; %s have, ', v_blocked.quorum, v_blocked.succeeded) || '%s have not ended: %s.'
            else 'It waits for %s of its parents to complete: %s.' end,
            cardinality(v_open), _task_list(v_open)),
        case when exists (select from late where child_id = p_task) then
            'Its parents existed when it was spawned or put back: their ends are about to be counted.' end,
        _why_suspect(v_blocked.suspect));
end $$;

create or replace function _why_sleeping(p_task uuid, p_document jsonb) returns text
    language plpgsql stable
    as $$
declare
    v_timer timer;
    v_event text := (select event from wait where task_id = p_task);
begin
    select * into v_timer from timer where task_id = p_task;
    return concat_ws(' ', case
        when v_event is not null and isfinite(v_timer.wake_at) then
            format('It waits for the event %s, until %s at most.', quote_literal(v_event), _moment(v_timer.wake_at))
        when v_event is not null then format('It waits for the event %s.', quote_literal(v_event))
        when v_timer.reason = 'no_executor' then
            format('No worker that has claimed it knows the executor %s; start one with the module that defines it.', p_document ->> 'name')
        when v_timer.reason = 'no_scratch' then
            format('The scratch disk of the worker that claimed it last had no room for it or could not be used (it needs %s GiB, beside what has to stay free); it is tried again at %s.',
                   coalesce(p_document #>> '{needs,scratch_gib}', '0'), _moment(v_timer.wake_at))
        when v_timer.reason = 'no_process' then
            format('The worker that claimed it last could start no process for it, or had as many as it starts for suspects; it is tried again at %s.',
                   _moment(v_timer.wake_at))
        when v_timer.reason = 'no_cluster' then
            format('Its executor %s runs on a Dask cluster, and no worker that has claimed it reaches one; start one with --dask tcp://HOST:8786.',
                   p_document ->> 'name')
        when v_timer.reason = 'retry' then
            format('Its last attempt failed (%s); attempt %s is due at %s.', rtrim(coalesce(p_document -> 'error' ->> 'message', 'no reason was given'), '.'),
                   v_timer.attempt, _moment(v_timer.wake_at))
        when v_timer.reason = 'delay' then format('It was spawned to start at %s.', _moment(v_timer.wake_at))
        when not isfinite(v_timer.wake_at) then format('It sleeps (%s) until it is woken.', v_timer.reason)
        else format('It sleeps (%s) until %s.', v_timer.reason, _moment(v_timer.wake_at)) end,
        _why_suspect(v_timer.suspect));
end $$;

-- The first of the reasons that hold, from the one that has to be mended by people to the rank.
create or replace function _why_pending(p_task uuid, p_document jsonb) returns text
    language plpgsql stable
    as $$
declare
    v_queue  queue;
    v_ready  ready;
    v_alive  record;
begin
    select * into v_queue from queue where name = p_document ->> 'queue';
    select * into v_ready from ready where task_id = p_task;
    select count(*) as workers, sum(concurrency) as slots, coalesce(sum(running), 0) as running into v_alive
    from list_workers() where state = 'running' and not draining and v_queue.name = any (queues)
        and last_seen > clock_time() - interval '1 second' * (select lease_seconds from worker w where w.id = list_workers.id);
    return concat_ws(' ', case
        when v_queue.paused_at is not null then
            format('Its queue %s is paused since %s; `absurd queue resume %s` lets it go on.', v_queue.name, _moment(v_queue.paused_at), v_queue.name)
        when v_alive.workers = 0 then
            format('No worker serves its queue %s; start one with `absurd-worker --queue %s`.', v_queue.name, v_queue.name)
        else coalesce(_why_unfit(v_queue.name, v_ready.needs), _why_limited(v_queue, v_ready.lane),
                      case when v_ready.needs is not null then _why_short(v_queue.name, p_task, v_ready.needs) end,
                      case when v_alive.running >= v_alive.slots then
                          format('All workers of its queue are busy: %s runs on %s slots; %s.', v_alive.running, v_alive.slots,
                                 _rank(v_queue, v_ready)) end,
                      format('It may be claimed now; %s.', _rank(v_queue, v_ready))) end,
        case when v_ready.needs is not null then nullif(_why_noted(v_queue.name, p_task, v_ready.needs), '') end,
        case when exists (select from executor where name = p_document ->> 'name' and registered_at is null) then
            format('No worker has ever told that it knows the executor %s.', p_document ->> 'name') end,
        _why_suspect(v_ready.suspect));
end $$;

-- The limit that holds it back; null when none does.
create or replace function _why_limited(p_queue queue, p_lane text) returns text
    language plpgsql stable
    set enable_seqscan = off
    as $$
declare
    v_running integer;
    v_in_lane integer;
    v_next    timestamptz;
begin
    if not _has_limits(p_queue) then
        return null;
    end if;
    select count(*), count(*) filter (where t.lane = p_lane) into v_running, v_in_lane
    from _live_leases() l cross join lateral unnest(l.task_ids) u (id) join task t on t.id = u.id
    where l.queue_id = p_queue.id;
    if v_running >= p_queue.max_running then
        return format('Its queue %s is limited to %s tasks at once, and %s run.', p_queue.name, p_queue.max_running, v_running);
    end if;
    if v_in_lane >= p_queue.max_running_per_lane then
        return format('Its lane %s is limited to %s tasks at once, and %s run.', p_lane, p_queue.max_running_per_lane, v_in_lane);
    end if;
    select next_at into v_next from throttle where queue_id = p_queue.id;
    if p_queue.rate is not null and v_next - greatest(interval '0.1 second' - _spacing(p_queue), interval '0') > clock_time() then
        return format('Its queue %s starts no more than %s tasks in %s; the next may start at %s.', p_queue.name, p_queue.rate,
                      p_queue.rate_period, _moment(v_next));
    end if;
    return null;
end $$;

-- How many tasks go before it, counted up to 10,000 in the order of the index.
create or replace function _rank(p_queue queue, p_ready ready) returns text
    language plpgsql stable
    as $$
declare
    v_most  constant integer := 10000;
    v_fair  constant boolean := p_queue.fair and p_ready.lane is not null;
    v_ahead bigint := 0;
    v_level record;
begin
    if v_fair then
        select count(*) into v_ahead from (
            select from ready r
            where r.queue_id = p_ready.queue_id and r.lane = p_ready.lane
              and (r.level > p_ready.level or (r.level = p_ready.level and r.seq < p_ready.seq)) limit v_most) x;
    else
        for v_level in
            select * from _levels() where queue_id = p_ready.queue_id and level >= p_ready.level order by level desc
        loop
            v_ahead := v_ahead + (select count(*) from (
                (select from ready r
                 where r.queue_id = v_level.queue_id and r.level = v_level.level and r.seq >= v_level.base and r.needs is null
                   and (r.level > p_ready.level or r.seq < p_ready.seq)
                 order by r.seq limit v_most)
                union all
                (select from ready r
                 where r.queue_id = v_level.queue_id and r.level = v_level.level and r.seq >= v_level.base and r.needs is not null
                   and (r.level > p_ready.level or r.seq < p_ready.seq)
                 order by r.seq limit v_most)) x);
            exit when v_ahead >= v_most;
        end loop;
    end if;
    return format('%s of its %s %s ahead of it', case when v_ahead >= v_most then 'at least ' || v_most || ' tasks' else _tasks(v_ahead) end,
                  case when v_fair then 'lane, which takes turns with others,' else 'queue' end,
                  case v_ahead when 1 then 'is' else 'are' end);
end $$;

create or replace function _why_running(p_task uuid, p_document jsonb) returns text
    language plpgsql stable
    as $$
declare
    v_lease  lease;
    v_worker worker;
    v_run    jsonb := p_document -> 'runs' -> -1;
    v_done   jsonb := p_document -> 'progress';
begin
    select * into v_lease from _leases_of(array[p_task]);
    select * into v_worker from worker where id = lease_worker(v_lease.id);
    return concat_ws(' ',
        format('It runs on %s since %s, in attempt %s%s.', coalesce(v_worker.name, 'a worker that is gone'), _moment(v_lease.claimed_at),
               v_run ->> 'attempt',
               case when jsonb_typeof(v_done) = 'object' then concat(
                   ': ', v_done ->> 'done', ' of ' || (v_done ->> 'total'), ' done', ' (' || (v_done ->> 'message') || ')') end),
        case when v_worker.last_seen < clock_time() - make_interval(secs => v_worker.lease_seconds) then
            format('Its worker was last heard of at %s: the run is about to be given to another.', _moment(v_worker.last_seen)) end,
        _why_suspect(p_task = any (v_lease.suspects)));
end $$;

-- Upstream: the ancestors that ended otherwise and so took it with them.
create or replace function _why_cancelled(p_task uuid, p_document jsonb) returns text
    language plpgsql stable
    as $$
declare
    v_text text;
begin
    if p_document ->> 'reason' is distinct from 'upstream' then
        return format('It was cancelled: %s.', rtrim(coalesce(p_document ->> 'reason', 'no reason was given'), '.'));
    end if;
    with recursive up (id, last) as (
        select p_task, null::run
        union
        select p.id, e.last
        from up u join task t on t.id = u.id cross join lateral unnest(t.depends_on) p (id)
        cross join lateral (
            select r as last from run r
            where r.task_id = p.id and r.ends and r.state <> 'completed'
            order by r.attempt desc, r.started_at is null, r.finished_at desc limit 1) e
        where u.last is null or (u.last).error ->> 'code' = 'upstream')
    select string_agg(
        case when (u.last).state = 'cancelled' then format('%s was cancelled (%s)', u.id, coalesce((u.last).error ->> 'message', 'no reason was given'))
             else format('%s failed (%s)', u.id, coalesce((u.last).error ->> 'message', 'no reason was given')) end, ', ' order by u.id)
    into v_text
    from (select * from up where (last).task_id is not null and (last).error ->> 'code' is distinct from 'upstream' limit 5) u;
    return format('It was cancelled because it could not run any more: %s.',
                  coalesce('above it ' || v_text, 'its parents ended otherwise than it waits for'));
end $$;
