-- Sub-bands of recordings in files: which files are parts of one recording, and what became of it; see 65_recordings.sql.

create table intake (
    id                    integer generated always as identity primary key,
    name                  text not null unique,
    created_at            timestamptz not null,
    subbands              integer not null default 16,
    min_subbands          integer not null default 12,
    time_tolerance        interval not null default '1 minute',
    declination_tolerance double precision not null default 0.1,
    timeout               interval not null default '5 minutes',
    queue                 text,
    params                jsonb not null default '{}',
    options               jsonb not null default '{}',
    constraint intake_name_valid check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$'),
    constraint intake_subbands_range check (subbands >= 1 and subbands <= 4096 and min_subbands >= 1 and min_subbands <= subbands)
);
comment on table intake is
    'Where files of sub-bands arrive, by name, and how they are grouped. Who changes what it holds locks its row: one after the other.';
comment on column intake.subbands is 'How many sub-bands a group has when it is complete; their numbers count from 0.';
comment on column intake.min_subbands is 'With so many a group is converted once its time is out; with fewer it fails.';
comment on column intake.time_tolerance is 'How far the stamp of a file may be from the time of its group: those of one group lie within twice of that.';
comment on column intake.declination_tolerance is 'Degrees.';
comment on column intake.timeout is 'How long after the last of its files a group waits for more, and how long a file may stay unfinished.';
comment on column intake.params is 'Params of visibility.convert_group beside group and round.';
comment on column intake.options is 'Options of its tasks.';

create table subband_group (
    id              bigint generated always as identity primary key,
    intake_id       integer not null,
    state           text not null,
    expected        integer not null,
    first_stamp     timestamptz not null,
    last_stamp      timestamptz not null,
    declination_deg double precision,
    content         text,
    round           integer not null default 0,
    task_id         uuid,
    created_at      timestamptz not null,
    due_at          timestamptz,
    begun_at        timestamptz,
    ended_at        timestamptz,
    name            text,
    product         jsonb,
    reason          text,
    constraint subband_group_state_known check (state in ('collecting', 'complete', 'partial', 'converting', 'converted', 'failed')),
    constraint subband_group_stamps check (first_stamp <= last_stamp),
    constraint subband_group_waits check ((state = 'collecting') = (due_at is not null)),
    constraint subband_group_spawned check (state not in ('complete', 'partial', 'converting', 'converted') or (round > 0 and task_id is not null))
);
create index subband_group_stamp on subband_group (intake_id, first_stamp);
create index subband_group_open on subband_group (intake_id) where state in ('collecting', 'complete', 'partial', 'converting');
create unique index subband_group_name on subband_group (intake_id, name);
comment on table subband_group is 'Sub-bands of one recording. A conversion is spawned with the change of state that asks for it, so each comes once.';
comment on column subband_group.content is 'What its files have in common beside time and declination, in words.';
comment on column subband_group.round is 'Counts the conversions that were asked for; what another one reports changes nothing.';
comment on column subband_group.due_at is 'When it waits no longer for more sub-bands.';
comment on column subband_group.name is 'What its product is called: the earliest stamp when its conversion began first.';
comment on column subband_group.product is 'What the last conversion made.';
comment on column subband_group.reason is 'Why it failed.';

create table subband (
    id              bigint generated always as identity primary key,
    intake_id       integer not null,
    path            text collate "C" not null,
    version         text not null,
    state           text not null,
    number          integer,
    stamp           timestamptz,
    declination_deg double precision,
    content         text,
    begins_at       timestamptz,
    group_id        bigint,
    reason          text,
    changed_at      timestamptz not null,
    unique (intake_id, path),
    constraint subband_state_known check (state in ('waiting', 'grouped', 'late', 'duplicate', 'unreadable')),
    constraint subband_has_group check ((state in ('grouped', 'late', 'duplicate')) = (group_id is not null)),
    constraint subband_is_whole check (group_id is null or (number is not null and stamp is not null)),
    constraint subband_declination_on_sky check (declination_deg between -90 and 90)
);
create unique index subband_once on subband (group_id, number) where state in ('grouped', 'late');
create index subband_of_group on subband (group_id) where group_id is not null;
create index subband_open on subband (intake_id) where state in ('waiting', 'unreadable');
comment on table subband is 'Files of sub-bands that have arrived, and what became of each.';
comment on column subband.version is 'Size and time of the last change.';
comment on column subband.stamp is 'The time in the name of the file.';
comment on column subband.begins_at is 'The first time in the file itself; null: it does not tell.';
comment on column subband.reason is 'Why it is in no group, or not as it is in the conversion of its group.';
comment on column subband.changed_at is 'When this version was seen first, by the clock of the database.';
