-- Files of sessions: told by the completions of the tasks that have written, read or retired them.

-- Rows of kind session: {folder, path, state, …}.  A file that is gone loses its row; one that was retired keeps it.
-- What nobody has read through keeps its checksum as long as it is the same file.
-- Touches session_file.
create or replace function _store_sessions(p_task uuid, p_rows jsonb) returns void
    language plpgsql
    as $$
begin
    delete from session_file x using jsonb_array_elements(p_rows) p
    where p ->> 'kind' = 'session' and p #>> '{row,state}' = 'gone'
      and x.folder = p #>> '{row,folder}' and x.path = p #>> '{row,path}' and x.state <> 'retired';
    update session_file x set state = 'retired', reason = p #>> '{row,reason}', task_id = p_task, stored_at = clock_time()
    from jsonb_array_elements(p_rows) p
    where p ->> 'kind' = 'session' and p #>> '{row,state}' = 'retired'
      and x.folder = p #>> '{row,folder}' and x.path = p #>> '{row,path}';
    insert into session_file as x
        select r.*
        from jsonb_array_elements(p_rows) p
        cross join lateral jsonb_populate_record(
            null::session_file, p -> 'row' || jsonb_build_object('task_id', p_task, 'stored_at', clock_time())) r
        where p ->> 'kind' = 'session' and p #>> '{row,state}' not in ('gone', 'retired')
        on conflict (folder, path) do update
            set (state, reason, bytes, changed_ns, sha256, session_id, session_type, start_time, end_time, target, purpose, recovered,
                 duration_seconds, frames_captured, error_count, warning_count, log_entries, events, telemetry_samples,
                 calibration_results, schema_version, meta, task_id, stored_at)
              = (excluded.state, excluded.reason, excluded.bytes, excluded.changed_ns,
                 coalesce(excluded.sha256, case when (x.bytes, x.changed_ns) = (excluded.bytes, excluded.changed_ns) then x.sha256 end),
                 excluded.session_id, excluded.session_type, excluded.start_time, excluded.end_time, excluded.target, excluded.purpose,
                 excluded.recovered, excluded.duration_seconds, excluded.frames_captured, excluded.error_count, excluded.warning_count,
                 excluded.log_entries, excluded.events, excluded.telemetry_samples, excluded.calibration_results,
                 excluded.schema_version, excluded.meta, excluded.task_id, excluded.stored_at);
end $$;

create or replace function list_session_files(p_folder text) returns setof jsonb
    language sql stable security definer set search_path from current
    as $$
        select jsonb_build_object('path', x.path, 'state', x.state, 'bytes', x.bytes, 'changed_ns', x.changed_ns,
                                  'sha256', x.sha256, 'session_id', x.session_id)
        from session_file x where x.folder = p_folder order by x.path
    $$;
comment on function list_session_files(text) is
    'All files of sessions that are known in a data folder, whatever their state: path, state, bytes, changed_ns, sha256, session_id.';

create or replace function list_sessions(
    p_folder text default null, p_type text default null, p_target text default null, p_since timestamptz default null,
    p_until timestamptz default null, p_failed boolean default false, p_limit integer default 100)
    returns setof jsonb
    language sql stable security definer set search_path from current
    as $$
        select to_jsonb(x) from session_file x
        where x.state = 'sealed' and (p_folder is null or x.folder = p_folder) and (p_type is null or x.session_type = p_type)
          and (p_target is null or x.target like p_target) and (p_since is null or x.start_time >= p_since)
          and (p_until is null or x.start_time < p_until) and (not p_failed or x.error_count > 0)
        order by x.start_time desc, x.session_id desc limit least(greatest(p_limit, 1), 10000)
    $$;
comment on function list_sessions(text, text, text, timestamptz, timestamptz, boolean, integer) is
    'Sessions, newest first: in a data folder, of a type, with a target like a pattern of LIKE, begun in a span of time, with p_failed those with errors.';
