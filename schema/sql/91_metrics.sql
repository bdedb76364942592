-- What only those ask for who keep figures over time; the rest of it is in get_status().

-- The counters of all queues: what was folded and what is not yet, read in one statement, so that none ever falls.
create or replace function _counters()
    returns table (queue_id integer, spawned numeric, completed numeric, failed numeric, cancelled numeric, pruned numeric,
                   retried numeric, lost numeric)
    language sql stable
    set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
        select c.queue_id, sum(spawned), sum(completed), sum(failed), sum(cancelled), sum(pruned), sum(retried), sum(lost)
        from (select queue_id, ever_spawned as spawned, ever_completed as completed, ever_failed as failed,
                     ever_cancelled as cancelled, ever_pruned as pruned, ever_retried as retried, ever_lost as lost from total
              union all
              select t.queue_id, e.* from tally t cross join lateral _counted_ever(t) e
              where t.id >= (select tally_base from horizon)) c
        group by c.queue_id
    $$;

-- Sessions that keep dead rows of this database from being removed: by a snapshot, or, idle in a transaction that has
-- written, by its xid alone.  A vacuum has a snapshot too, which holds up nobody.  Sessions of others are seen by a
-- superuser and by members of pg_read_all_stats; without, those of this schema's owner are all there is to tell of.
create or replace function _holders() returns table (pid integer, name text, xact_start timestamptz)
    language sql stable
    as $$
        select a.pid, coalesce(nullif(a.application_name, ''), a.usename, 'unknown'), a.xact_start
        from pg_stat_activity a
        where a.datname = current_database() and a.pid <> pg_backend_pid() and coalesce(a.backend_xmin, a.backend_xid) is not null
              and not exists (select from pg_stat_progress_vacuum v where v.pid = a.pid)
    $$;

create or replace function get_metrics() returns jsonb
    language sql stable security definer set search_path from current set jit = off
    as $$
        select jsonb_build_object(
            'now', extract(epoch from clock_time()),
            'counters', (
                select coalesce(jsonb_agg(jsonb_build_object(
                    'queue', q.name, 'spawned', c.spawned, 'completed', c.completed, 'failed', c.failed, 'cancelled', c.cancelled,
                    'pruned', c.pruned, 'retried', c.retried, 'lost', c.lost) order by q.name), '[]')
                from queue q join _counters() c on c.queue_id = q.id),
            'schedules', (
                select coalesce(jsonb_object_agg(s.name, extract(epoch from clock_time() - s.next_due)), '{}')
                from (select name, next_due from schedule where paused_at is null and next_due < clock_time()
                      order by next_due limit 100) s),
            'alerts', (
                select coalesce(jsonb_agg(jsonb_build_object('name', a.name, 'severity', a.severity, 'firing', a.state = 'firing') order by a.name), '[]')
                from alert a),
            'tables', (
                select coalesce(jsonb_object_agg(t.name, jsonb_build_object('live', t.live, 'dead', t.dead)), '{}')
                from (select coalesce(pg_partition_root(relid), relid)::regclass::text as name, sum(n_live_tup) as live, sum(n_dead_tup) as dead
                      from pg_stat_user_tables where schemaname = current_schema() group by 1) t),
            'oldest_snapshot_seconds', (
                select coalesce(extract(epoch from max(clock_timestamp() - h.xact_start)), 0) from _holders() h))
    $$;
comment on function get_metrics() is
    'Counters of each queue, of which none ever falls; how late the schedules are that are due; alerts, and which of them fire; rows of each table, dead ones too; the age of the oldest snapshot.';
