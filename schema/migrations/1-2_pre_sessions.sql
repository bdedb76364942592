-- Version 2 knows the files of sessions.

create table session_file (
    folder              text collate "C" not null,
    path                text collate "C" not null,
    state               text not null,
    reason              text,
    bytes               bigint not null,
    changed_ns          bigint not null,
    sha256              text,
    session_id          text,
    session_type        text,
    start_time          timestamptz,
    end_time            timestamptz,
    target              text,
    purpose             text,
    recovered           boolean,
    duration_seconds    double precision,
    frames_captured     integer,
    error_count         integer,
    warning_count       integer,
    log_entries         integer,
    events              integer,
    telemetry_samples   integer,
    calibration_results integer,
    schema_version      text,
    meta                jsonb,
    task_id             uuid not null,
    stored_at           timestamptz not null,
    primary key (folder, path),
    constraint session_file_state_known check (state in ('sealed', 'damaged', 'foreign', 'duplicate', 'retired')),
    constraint session_file_named check (state not in ('sealed', 'retired') or (session_id is not null and start_time is not null)),
    constraint session_file_reason_told check (state = 'sealed' or reason <> '')
);
create index session_file_begun on session_file (start_time desc, session_id desc) where state = 'sealed';
comment on table session_file is 'Files of sessions in data folders, and what their heads tell; those that are none or damaged are told of too.';
comment on column session_file.folder is 'The data folder, by its absolute path on the machine that has it.';
comment on column session_file.path is 'Of the file, within the folder.';
comment on column session_file.reason is 'Why it is damaged, foreign or a duplicate; of a retired file by what rule it went.';
comment on column session_file.changed_ns is 'When the file was last written: nanoseconds since 1970.';
comment on column session_file.sha256 is 'Of the whole file; null: nobody has read it through.';
comment on column session_file.meta is 'What else the session was begun with.';
comment on column session_file.task_id is 'The task that has told of it, last.';
