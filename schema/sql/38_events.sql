-- Events: the first emission of a name wins, and wakes whoever waits for it.

-- Waiting and emitting take one lock per name, so that neither can miss the other: without it an
-- emission would not see the uncommitted wait, nor the wait the uncommitted emission.
create or replace function emit_event(p_name text, p_payload jsonb default null) returns boolean
    language plpgsql security definer set search_path from current
    as $$
begin
    if p_name is null or length(p_name) not between 1 and 500 then
        raise exception 'event name has % characters; it must have 1 to 500', coalesce(length(p_name), 0) using errcode = 'AB007';
    end if;
    perform _require_read_committed();
    perform _check_size('payload', p_payload);
    perform pg_advisory_xact_lock(hashtextextended(current_schema() || '.event.' || p_name, 0));
    insert into event (name, payload, emitted_at) values (p_name, p_payload, clock_time()) on conflict do nothing;
    if not found then
        return false;
    end if;
    perform _wake_waiting(p_name, p_payload);
    return true;
end $$;
comment on function emit_event(text, jsonb) is 'Emit an event; false when it was emitted before (nothing changes then).';

-- Wake the tasks that wait for an event; each finds the payload as a checkpoint.
-- Its plan is pinned: joined by hash, an emission that nobody waits for would read all that sleeps.
create or replace function _wake_waiting(p_event text, p_payload jsonb) returns void
    language plpgsql
    set enable_seqscan = off set enable_bitmapscan = off set jit = off set enable_hashjoin = off set enable_mergejoin = off
    as $$
#variable_conflict use_column
declare
    v_tasks  uuid[];
    v_queues integer[];
begin
    v_tasks := array(select t.task_id from timer t join wait w using (task_id) where w.event = p_event
                     order by t.task_id for update of t);
    if cardinality(v_tasks) = 0 then
        return;
    end if;
    delete from wait where task_id = any (v_tasks);
    insert into checkpoint (task_id, name, value, created_at)
        select t, 'event:' || p_event, jsonb_build_object('payload', p_payload), clock_time() from unnest(v_tasks) t
        on conflict (task_id, name) do nothing;
    with woken as (delete from timer where task_id = any (v_tasks) returning task_id, queue_id, level, attempt, suspect, lane, needs),
    readied as (
        insert into ready (task_id, queue_id, level, attempt, suspect, lane, needs)
        select task_id, queue_id, level, attempt, suspect, lane, needs from woken order by task_id),
    counted as (
        insert into tally (queue_id, sleeping, pending) select queue_id, -count(*), count(*) from woken group by queue_id)
    select array_agg(distinct queue_id) into v_queues from woken;
    perform _wake(v_queues);
end $$;

-- Have the end of tasks or workflows notified on channel <schema>_ended, and what is added to the logs of tasks on
-- <schema>_log, for an hour.
create or replace function await_tasks(p_tasks uuid[]) returns void
    language sql volatile security definer set search_path from current
    as $$
        insert into waiter (task_id, expires_at)
        select distinct t, clock_time() + interval '1 hour' from unnest(p_tasks) t
        where exists (select from task where id = t) or exists (select from workflow where id = t) order by 1
        on conflict (task_id) do update set expires_at = excluded.expires_at
    $$;
comment on function await_tasks(uuid[]) is 'Ask that the end of these tasks or workflows, and what is added to the logs of tasks, be notified.';
