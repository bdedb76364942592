-- Logs: what runs have written is appended in parts under their claims, and read page by page.

-- The attempt as which a claim may add to the log of its task; null: none.  The lease is locked by the caller.  What a
-- run wrote last may come after its outcome, if the database was away: it is taken for a day, but never from a run
-- that was lost, whose successor may be at work.
create or replace function _log_attempt(p_lease bigint, p_task uuid) returns smallint
    language plpgsql
    as $$
declare
    v_attempt smallint;
begin
    select attempts[array_position(task_ids, p_task)] into v_attempt from lease where id = p_lease and p_task = any (task_ids);
    if not found then
        select attempt into v_attempt from run
        where task_id = p_task and lease_id = p_lease and state <> 'lost' and finished_at > clock_time() - interval '1 day'
          and exists (select from task where id = p_task for key share);  -- against pruning, which waits for nobody
    end if;
    return v_attempt;
end $$;

-- Append one part, and drop what lies between the first and the last half of p_limit bytes.
create or replace function _add_to_log(
    p_task uuid, p_attempt smallint, p_lease bigint, p_part integer, p_bytes integer, p_breaks integer,
    p_dropped_bytes bigint, p_dropped_lines bigint, p_pieces jsonb, p_limit bigint) returns void
    language plpgsql
    as $$
declare
    v_last  record;
    v_upto  bigint;
begin
    loop
        select upto, lines, lease_id, part into v_last from log
        where task_id = p_task and attempt = p_attempt order by upto desc limit 1;
        -- The answer was lost, and it comes again.  Behind it stands a part of another run of the attempt only when
        -- that run has taken over meanwhile.
        if v_last.lease_id = p_lease and v_last.part >= p_part
            or v_last.lease_id <> p_lease and exists (
                select from log where task_id = p_task and attempt = p_attempt and lease_id = p_lease and part >= p_part)
        then
            return;
        end if;
        v_upto := coalesce(v_last.upto, 0) + p_dropped_bytes + p_bytes;
        insert into log (task_id, attempt, upto, lines, bytes, breaks, lease_id, part, at, pieces)
            values (p_task, p_attempt, v_upto, coalesce(v_last.lines, 0) + p_dropped_lines + p_breaks, p_bytes, p_breaks, p_lease,
                    p_part, clock_time(), p_pieces)
            on conflict do nothing;
        exit when found;  -- else somebody else appended just now
    end loop;
    delete from log
    where task_id = p_task and attempt = p_attempt and upto > p_limit / 2 and upto < v_upto and upto - bytes < v_upto - p_limit / 2;
end $$;

-- Append what runs have written: a part each, in order where several are of one run.  Parts are numbered from 1 in
-- each run; one that was taken before is passed over.  p_bytes and p_breaks tell how much text and how many ends of
-- lines p_pieces hold, p_dropped_* what its worker dropped before it.  Of each attempt p_limit bytes are kept: the
-- first half and the last.  Returns the tasks whose claim is lost; nothing is appended for these.
-- Touches lease, log, waiter.
--
-- The leases are locked for share, and so reports of the same batch wait until this has committed; it is a few rows, and the
-- lock is the fence: a claim that was seen in a snapshot could be lost, and its successor have begun to write, before
-- the part is there.  It would stand among the successor's parts, or behind the task's end, as if it were of that run.
create or replace function append_log(
    p_leases bigint[], p_tasks uuid[], p_parts integer[], p_bytes integer[], p_breaks integer[],
    p_dropped_bytes bigint[], p_dropped_lines bigint[], p_pieces text[], p_limit bigint) returns uuid[]
    language plpgsql security definer set search_path from current
    as $$
declare
    v_n       integer;
    v_attempt smallint;
    v_stale   uuid[] := '{}';
begin
    perform _require_read_committed();
    perform from lease where id = any (p_leases) order by id for share;
    for v_n in select n from generate_subscripts(p_tasks, 1) n order by p_tasks[n], n loop
        v_attempt := _log_attempt(p_leases[v_n], p_tasks[v_n]);
        if v_attempt is null then
            v_stale := v_stale || p_tasks[v_n];
        else
            perform _add_to_log(p_tasks[v_n], v_attempt, p_leases[v_n], p_parts[v_n], greatest(p_bytes[v_n], 1), p_breaks[v_n],
                                p_dropped_bytes[v_n], p_dropped_lines[v_n], p_pieces[v_n]::jsonb, p_limit);
        end if;
    end loop;
    perform pg_notify(current_schema() || '_log', w.task_id::text) from waiter w where w.task_id = any (p_tasks);
    return v_stale;
end $$;
comment on function append_log(bigint[], uuid[], integer[], integer[], integer[], bigint[], bigint[], text[], bigint) is
    'Append what runs have written to the logs of their tasks; returns the tasks whose claim is lost.';

-- A page of a task's log, with the state that the task had when all of the log up to there was written: parts behind
-- (p_after_attempt, p_after_upto), whose lines are p_after_lines; or, in one page, the last that hold p_tail lines.
-- A part tells what was dropped before it.  Null if there is no such task.
create or replace function get_log(
    p_task uuid, p_attempt integer default null, p_after_attempt integer default null, p_after_upto bigint default null,
    p_after_lines bigint default null, p_tail bigint default null, p_bytes bigint default 1048576) returns jsonb
    language sql stable security definer set search_path from current
    as $$
        with parts as (
            select l.attempt, l.upto, l.lines, l.lease_id, l.at, l.pieces,
                   l.upto - l.bytes - lag(l.upto, 1, case when l.attempt = p_after_attempt then p_after_upto else 0 end) over a as dropped_bytes,
                   l.lines - l.breaks - lag(l.lines, 1, case when l.attempt = p_after_attempt then p_after_lines else 0 end) over a as dropped_lines,
                   sum(l.bytes) over (order by l.attempt, l.upto) - l.bytes as before,
                   case when p_tail is not null then sum(l.breaks) over (order by l.attempt desc, l.upto desc) - l.breaks end as behind
            from log l
            where l.task_id = p_task and (p_attempt is null or l.attempt = p_attempt)
              and (l.attempt, l.upto) > (coalesce(p_after_attempt, 0), coalesce(p_after_upto, 0))
            window a as (partition by l.attempt order by l.upto)),
        chosen as (
            select *, before - min(before) over () as passed from parts where p_tail is null or behind < greatest(p_tail, 1))
        select case when get_state(p_task) is not null then jsonb_build_object(
            'state', get_state(p_task),
            'more', p_tail is null and (select coalesce(max(passed), 0) >= p_bytes from chosen),
            'parts', (select coalesce(jsonb_agg(jsonb_build_object(
                          'attempt', attempt, 'upto', upto, 'lines', lines, 'run', lease_id::text, 'at', at, 'pieces', pieces,
                          'worker', (select w.name from worker w where w.id = lease_worker(lease_id)),
                          'dropped_bytes', dropped_bytes, 'dropped_lines', dropped_lines) order by attempt, upto), '[]')
                      from chosen where p_tail is not null or passed < p_bytes)) end
    $$;
comment on function get_log(uuid, integer, integer, bigint, bigint, bigint, bigint) is
    'A page of what a task''s runs have written, with the task''s state; null if there is no such task.';
