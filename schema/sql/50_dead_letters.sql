-- Dead letters: tasks whose attempts are spent, with all that tells why.

-- What failures that look alike have in common: executor, error, and message without what varies.
create or replace function _fingerprint(p_executor integer, p_error jsonb) returns text
    language sql immutable
    as $$
        select left(md5(concat_ws('|', p_executor, p_error ->> 'code', p_error ->> 'type',
                                  regexp_replace(left(p_error ->> 'message', 1000), '(0x)?[0-9a-fA-F-]*\d[0-9a-fA-F-]*', '#', 'g'))), 12)
    $$;

-- The runs of a task so far, as documents, oldest first.
create or replace function _runs_of(p_task uuid) returns jsonb
    language sql stable
    as $$
        select coalesce(jsonb_agg(jsonb_build_object(
                   'attempt', r.attempt, 'state', r.state, 'started_at', r.started_at, 'finished_at', r.finished_at,
                   'worker', (select w.name from worker w where w.id = lease_worker(r.lease_id)), 'error', r.error)
               order by r.finished_at), '[]')
        from run r where r.task_id = p_task and r.finished_at >= _id_time(p_task) - interval '1 day'
    $$;
