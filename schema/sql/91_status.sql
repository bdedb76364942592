-- The state of the whole, with what is wrong and what to do about it; and emptying a queue.

create or replace function _tasks(p_count bigint) returns text
    language sql immutable
    as $$ select case p_count when 1 then '1 task' else p_count || ' tasks' end $$;

-- Dead letters of each queue, counted up to 10,001: a page that is looked at each second reads no more of them.
create or replace function _dead_letters_by_queue() returns table (name text, n bigint)
    language sql stable
    set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
        select q.name, (select count(*) from (select from dead_letter d where d.queue_id = q.id limit 10001) d) from queue q
    $$;

create or replace function get_status() returns jsonb
    language plpgsql volatile security definer set search_path from current
    set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now      timestamptz := clock_time();
    v_queues   jsonb;
    v_workers  jsonb;
    v_problems jsonb;
    v_schedules jsonb;
    v_letters   bigint;
    v_most     bigint;
begin
    select coalesce(sum(d.n), 0), max(d.n) into v_letters, v_most from _dead_letters_by_queue() d;
    if v_most > 10000 then
        v_letters := greatest(v_letters, (select reltuples::bigint from pg_class where oid = 'dead_letter'::regclass));
    end if;
    select coalesce(jsonb_agg(to_jsonb(q) order by q.name), '[]') into v_queues from list_queues() q;
    select coalesce(jsonb_agg(to_jsonb(w) order by w.id), '[]') into v_workers from list_workers() w;
    -- Those that are due next; a page shows no more.
    select coalesce(jsonb_agg(_schedule_document(s) - array['params', 'options'] order by s.next_due), '[]') into v_schedules
        from (select * from schedule order by (paused_at is not null), next_due limit 100) s;
    select coalesce(jsonb_agg(to_jsonb(p)), '[]') into v_problems from (
        select 'queue_unserved' as code,
               format('%s of queue %s pending and no worker serves it', _tasks(q.pending), q.name) as message,
               format('absurd-worker --queue %s', q.name) as action
        from list_queues() q
        where q.pending > 0 and not q.paused
          and not exists (select from worker w where w.state = 'running' and not w.draining and q.name = any (w.queues)
                          and w.last_seen > v_now - make_interval(secs => w.lease_seconds))
        union all
        select 'queue_paused', format('queue %s is paused with %s pending', q.name, _tasks(q.pending)),
               format('absurd queue resume %s', q.name)
        from list_queues() q where q.paused and q.pending > 0
        union all
        select 'needs_unmet', format('%s of queue %s: no worker there offers %s', _tasks(u.tasks), u.queue, u.needs),
               format('absurd-worker --queue %s --offers …, or absurd resource set NAME TOTAL for what all workers share', u.queue)
        from _unmet() u
        union all
        select 'executor_unknown', format('%s for the executor %s, which no worker knows', _tasks(count(*)), x.name),
               'absurd-worker --import MODULE'
        from task t join executor x on x.id = t.executor_id
        -- An array: as a join it might be looked for once for each task.
        where t.id = any (array(select task_id from timer where reason = 'no_executor' limit 10000)) group by x.name
        union all
        select 'scratch_full',
               concat(_tasks(count(*)), ' put off, for the scratch disks of workers have no room or cannot be used',
                      (select ': ' || string_agg(told, '; ')
                       from (select format('%s (host %s)', w.load ->> 'scratch', w.host) as told
                             from worker w where w.state in ('running', 'stopping') and w.load ->> 'scratch' is not null
                             group by 1 order by 1 limit 5) x)),
               'make room there, or move it: ABSURD_WORKER_SCRATCH'
        from timer where reason = 'no_scratch' having count(*) > 0
        union all
        select 'cluster_missing', format('%s for the executor %s, which runs on a Dask cluster, and no worker that took it reaches one',
                                         _tasks(count(*)), x.name),
               'absurd-worker --dask tcp://HOST:8786; if one runs, look for cluster_away in its log'
        from task t join executor x on x.id = t.executor_id
        where t.id = any (array(select task_id from timer where reason = 'no_cluster' limit 10000)) group by x.name
        union all
        select 'worker_lost', format('worker %s on host %s stopped answering at %s; what it ran has gone to others', w.name, w.host, w.last_seen),
               format('see on host %s what ended it (its log; dmesg for want of memory; the network) and start absurd-worker there if it does not run: this is told for an hour', w.host)
        from worker w where w.state = 'lost' and w.last_seen > v_now - interval '1 hour'
        union all
        select 'worker_held_up',
               format('something in worker %s on host %s has held up everything since %s, a run that keeps the GIL or never awaits; what it holds is kept', w.name, w.host, w.held_up_since),
               format('run such work with runs_in="process", and with a timeout; or on its host: kill -9 %s', w.pid)
        from worker w where w.state in ('running', 'stopping') and w.held_up_since is not null
        union all
        select 'worker_polls', format('worker %s on host %s hears no notifications and polls instead: %s', w.name, w.host, w.load ->> 'polls'),
               'give it an address that leads to the server itself, or to a pooler in session mode'
        from worker w where w.state in ('running', 'stopping') and w.load ->> 'polls' is not null
        union all
        select 'runs_not_recovered', format('worker %s has not answered since %s, and nobody takes back what it holds', w.name, w.last_seen),
               'absurd-scheduler; if one runs, look for maintenance_failed in its log'
        from worker w
        where w.state in ('running', 'stopping')
          and _seen(w.last_seen, w.lease_seconds) < v_now - make_interval(secs => 2 * w.lease_seconds + 10)
          and exists (select from lease l where l.id >= (w.id::bigint << 32) + w.oldest_claim and l.id < (w.id + 1)::bigint << 32)
        union all
        select 'dead_letters', format('%s of queue %s failed for good', case when d.n > 10000 then 'more than 10000 tasks' else _tasks(d.n) end, d.name),
               format('absurd dlq list --queue %s', d.name)
        from _dead_letters_by_queue() d where d.n > 0
        union all
        select 'schedule_failed', format('when schedule %s is due cannot be reckoned: %s', s.name, s.error),
               format('absurd schedule add %s …, or a scheduler that has what it needs', s.name)
        from schedule s where s.error is not null and s.paused_at is null
        union all
        select 'schedules_overdue', format('schedule %s has %s since %s and no scheduler fires it', min(s.name),
                   case when count(s.next_due) > 0 then 'been due' else 'waited' end, coalesce(min(s.next_due), min(s.settled_at)))
               || case when count(*) > 1 then format(', nor %s more', count(*) - 1) else '' end,
               'absurd-scheduler; if one runs, look for schedule_failed in its log'
        from schedule s
        where s.paused_at is null and s.error is null and coalesce(s.next_due, s.settled_at) < v_now - interval '1 minute' having count(*) > 0
        union all
        select 'alert_firing', format('alert %s: %s', a.name, e.message), format('absurd alert history %s', a.name)
        from alert a join lateral (select message from alert_event where alert_id = a.id order by id desc limit 1) e on true
        where a.state = 'firing'
        union all
        select 'alert_undelivered', format('alert %s: %s could not be told for %s attempts: %s', a.name, n.target, max(n.attempt), min(n.error)),
               format('absurd alert test %s; what was given up is told for a day', a.name)
        from alert_notice n join alert_event e on e.id = n.event_id join alert a on a.id = n.alert_id
        where n.sent_at is null and n.error is not null and (n.due_at is not null or e.at > v_now - interval '1 day')
          and n.target = any (a.targets) group by a.name, n.target
        union all
        select 'snapshot_held',
               format('session %s (%s) has held a transaction open for %s seconds and keeps dead rows from being removed',
                      h.pid, h.name, extract(epoch from v_now - h.xact_start)::integer),
               format('select pg_terminate_backend(%s)', h.pid)
        from _holders() h where h.xact_start < v_now - interval '5 minutes') p;
    return jsonb_build_object('queues', v_queues, 'workers', v_workers, 'schedules', v_schedules,
                              'dead_letters', v_letters, 'problems', v_problems);
end $$;
comment on function get_status() is
    'Queues, workers, schedules (the 100 due next), dead letters (estimated where a queue has more than 10,000), and problems with what to do about each.';

-- Cancel all that waits in a queue now.  All at once, because in batches the locks of the second would come
-- after those of the first and so out of order.  Returns how many tasks that are (p_dry_run: would be).
create or replace function purge_queue(p_queue text, p_dry_run boolean default false) returns bigint
    language plpgsql security definer set search_path from current
    as $$
declare
    v_id    integer := _known_queue_id(p_queue);
    v_tasks uuid[];
begin
    if p_dry_run then
        return (select count(*) from ready where queue_id = v_id) + (select count(*) from timer where queue_id = v_id);
    end if;
    perform _require_read_committed();
    v_tasks := array(select task_id from ready where queue_id = v_id union all select task_id from timer where queue_id = v_id);
    perform from task where id = any (v_tasks) order by id for no key update;
    v_tasks := _cancel_waiting(v_tasks, _cancellation('purged'));
    insert into audit (at, task_id, action, detail) select clock_time(), t, 'cancel', 'purged' from unnest(v_tasks) t;
    perform _close(v_tasks || _end_parents(v_tasks, 'cancelled'));
    return cardinality(v_tasks);
end $$;
comment on function purge_queue(text, boolean) is 'Cancel all pending and sleeping tasks of a queue.';
