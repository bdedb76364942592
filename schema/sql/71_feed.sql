-- Who watches: what changes state is written to the feed, and read by those who come again with the snapshot they
-- read last.  While nobody watches, a statement that starts or ends tasks pays for one look at a table of one row.

-- Which of many tasks moved is not told: a client that shows thousands of moves a second shows their number.
create or replace function _feed_tasks(p_queue_id integer, p_state text, p_tasks uuid[]) returns void
    language plpgsql
    as $$
begin
    insert into feed (at, topic, state, queue_id, count, task_ids)
        values (clock_time(), 'task', p_state, p_queue_id, cardinality(p_tasks), case when cardinality(p_tasks) <= 100 then p_tasks end);
end $$;

-- Runs whose end is their task's.
create or replace function _feed_ended(p_held _held[], p_state text) returns void
    language plpgsql
    as $$
begin
    if exists (select from watch where singleton and until > clock_time()) then
        perform _feed_tasks(h.queue_id, p_state, array_agg(h.task_id)) from unnest(p_held) h group by h.queue_id;
    end if;
end $$;

-- Tasks that were cancelled before they ran, or ran again.
create or replace function _feed_cancelled(p_tasks uuid[]) returns void
    language plpgsql
    as $$
begin
    if cardinality(p_tasks) > 0 and exists (select from watch where singleton and until > clock_time()) then
        perform _feed_tasks(t.queue_id, 'cancelled', array_agg(t.id)) from task t where t.id = any (p_tasks) group by t.queue_id;
    end if;
end $$;

-- Everything but tasks: rows of tables that change seldom.
create or replace function _feed_row() returns trigger
    language plpgsql set search_path from current
    as $$
declare
    v_row jsonb := to_jsonb(new);
begin
    if exists (select from watch where singleton and until > clock_time()) then
        insert into feed (at, topic, subject, state) values (
            clock_time(), tg_argv[0], v_row ->> tg_argv[1],
            case tg_argv[0] when 'queue' then case when v_row ->> 'paused_at' is null then 'open' else 'paused' end
                            when 'worker' then case when v_row ->> 'state' = 'running' and (v_row ->> 'draining')::boolean then 'draining'
                                                    else v_row ->> 'state' end
                            else v_row ->> 'state' end);
    end if;
    return null;
end $$;

create or replace trigger feed_insert after insert on workflow
    for each row execute function _feed_row('workflow', 'id');
create or replace trigger feed_update after update on workflow
    for each row when (old.state is distinct from new.state) execute function _feed_row('workflow', 'id');
create or replace trigger feed_insert after insert on worker
    for each row execute function _feed_row('worker', 'id');
create or replace trigger feed_update after update on worker
    for each row when (old.state is distinct from new.state or old.draining is distinct from new.draining)
    execute function _feed_row('worker', 'id');
create or replace trigger feed_insert after insert on queue
    for each row execute function _feed_row('queue', 'name');
create or replace trigger feed_update after update on queue
    for each row when ((old.paused_at is null) is distinct from (new.paused_at is null))
    execute function _feed_row('queue', 'name');
create or replace trigger feed_insert after insert on product
    for each row execute function _feed_row('product', 'id');
create or replace trigger feed_update after update on product
    for each row when (old.state is distinct from new.state) execute function _feed_row('product', 'id');

create or replace trigger feed_insert after insert on session_file
    for each row execute function _feed_row('session', 'path');
create or replace trigger feed_update after update on session_file
    for each row when (old.state is distinct from new.state or old.changed_ns is distinct from new.changed_ns)
    execute function _feed_row('session', 'path');

-- What was told to a session goes by, and is kept nowhere else: its journal has all of it.  Touches feed.
create or replace function tell_session(p_session text, p_entries jsonb, p_missed bigint default 0) returns boolean
    language plpgsql security definer set search_path from current
    as $$
begin
    perform _require_read_committed();
    if not exists (select from watch where singleton and until > clock_time()) then
        return false;
    end if;
    insert into feed (at, topic, subject, state, count, told) values (
        clock_time(), 'session', p_session, 'told', jsonb_array_length(p_entries),
        jsonb_build_object('entries', p_entries, 'missed', p_missed));
    return true;
end $$;
comment on function tell_session(text, jsonb, bigint) is
    'Tell those who watch the feed what was told to a session, and how many entries before that are left out; false: nobody watches.';

-- Have the feed written for the next minutes, and cut it.  What was visible to the snapshot of the cut before goes: a
-- transaction that was open then, however long, keeps its rows for those who have seen none of them.
create or replace function watch_feed(p_seconds double precision default 600, p_rows integer default 5000) returns boolean
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
declare
    v_now   timestamptz := clock_time();
    v_watch watch;
    v_last  bigint;
begin
    perform _require_read_committed();
    select * into v_watch from watch for update skip locked;
    if v_watch.singleton is null then  -- somebody else is at it
        return false;
    end if;
    select last_value into v_last from feed_id_seq;
    if v_watch.until <= v_now then
        delete from feed;
        v_watch.since := pg_current_snapshot();
        v_watch.next_at := null;
    elsif v_watch.next_at < v_now - make_interval(secs => p_seconds) or v_watch.next_id < v_last - p_rows then
        delete from feed where xid < pg_snapshot_xmax(v_watch.next) and pg_visible_in_snapshot(xid, v_watch.next);
        v_watch.since := v_watch.next;
        v_watch.next_at := null;
    end if;
    update watch set until = v_now + make_interval(secs => p_seconds), since = v_watch.since;
    if v_watch.next_at is null then
        update watch set next = pg_current_snapshot(), next_at = v_now, next_id = v_last;
    end if;
    return true;
end $$;
comment on function watch_feed(double precision, integer) is
    'Have the feed written for so many seconds, and kept for as long, but not more than so many rows; false: another session is just at it.';

-- What was committed since a snapshot (null: nothing, only the snapshot of now).  `lost`: some of what was since is gone, or
-- the snapshot is none of this server's; it is more than p_rows, and who shows it begins anew.
create or replace function read_feed(p_snapshot text default null, p_rows integer default 5000) returns jsonb
    language plpgsql stable security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now   pg_snapshot := pg_current_snapshot();
    v_since pg_snapshot := p_snapshot;
    v_found jsonb := '[]';
    v_lost  boolean := false;
begin
    if v_since is not null then
        v_lost := pg_snapshot_xmax(v_since) > pg_snapshot_xmax(v_now) or (
            select w.until < clock_time() or pg_snapshot_xmax(v_since) < pg_snapshot_xmax(w.since)
                or exists (select from pg_snapshot_xip(v_since) x where pg_visible_in_snapshot(x, w.since))
            from watch w);
        if not v_lost then
            select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                    'n', j.id, 'at', j.at, 'topic', j.topic, 'id', j.subject, 'state', j.state, 'count', j.count, 'ids', j.task_ids,
                    'queue', (select q.name from queue q where q.id = j.queue_id),
                    'names', t.names, 'workflows', t.workflows)) || coalesce(j.told, '{}') order by j.id), '[]')
            into v_found
            from (select * from feed j where j.xid >= pg_snapshot_xmin(v_since) and not pg_visible_in_snapshot(j.xid, v_since)
                  order by j.xid limit p_rows + 1) j
            left join lateral (
                select array_agg(distinct x.name) as names, array_agg(distinct t.workflow_id) filter (where t.workflow_id is not null) as workflows
                from task t join executor x on x.id = t.executor_id
                where t.id = any (j.task_ids)) t on j.task_ids is not null;
            v_lost := jsonb_array_length(v_found) > p_rows;
        end if;
    end if;
    return jsonb_build_object('snapshot', v_now, 'lost', v_lost, 'events', case when v_lost then '[]' else v_found end);
end $$;
comment on function read_feed(text, integer) is
    'What was written to the feed since a snapshot, and the snapshot to ask with next; lost: not all of it is there any more.';
