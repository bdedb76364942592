-- Schedules: what is spawned again and again, and what came of each time it was due.

create table schedule (
    id         integer generated always as identity primary key,
    name       text not null unique,
    trigger    text not null,
    zone       text not null default 'UTC',
    site       jsonb,
    queue      text,
    executor   text not null,
    params     jsonb not null default '{}',
    options    jsonb not null default '{}',
    misfire    text not null default 'once',
    grace      interval not null default interval '1 minute',
    look_back  interval not null default interval '1 day',
    overlap    text not null default 'allow',
    jitter     interval not null default interval '0',
    starts_at  timestamptz,
    ends_at    timestamptz,
    created_at timestamptz not null,
    paused_at  timestamptz,
    version    integer not null default 1,
    settled_at timestamptz not null,
    next_due   timestamptz,
    error      text,
    constraint schedule_name_valid check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$'),
    constraint schedule_misfire_known check (misfire ~ '^(skip|once|all|last [1-9][0-9]{0,3})$'),
    constraint schedule_overlap_known check (overlap in ('allow', 'skip', 'queue', 'cancel')),
    constraint schedule_span check (ends_at > starts_at)
) with (fillfactor = 50);
comment on table schedule is 'What is spawned when: a trigger, and the task it spawns.';
comment on column schedule.version is 'Raised by each change: what was reckoned by another one is refused.';
comment on column schedule.settled_at is 'All times due up to then are settled: spawned, or skipped.';
comment on column schedule.next_due is 'The next time it is due; null: a scheduler has yet to reckon it, infinity: never again.';
comment on column schedule.error is 'Why the next time cannot be reckoned.';

create table tick (
    schedule_id integer not null,
    due_at      timestamptz not null,
    fired_at    timestamptz not null,
    task_id     uuid,
    skipped     text,
    detail      text,
    missed      integer not null default 1,
    by_hand     boolean not null default false,
    primary key (schedule_id, due_at, by_hand),
    constraint tick_outcome check ((task_id is null) = (skipped is not null)),
    constraint tick_skipped_known check (skipped in ('misfire', 'overlap', 'error'))
);
create index tick_task on tick (schedule_id, due_at) where task_id is not null;
comment on table tick is 'What came of a time at which a schedule was due: a task, or why there is none. Written with the spawn, so each comes once.';
comment on column tick.missed is 'How many times due one row of skipped ones stands for, this the last of them; from 1000 on: at least so many.';

create table leader (
    role   text primary key,
    holder text not null,
    until  timestamptz not null
) with (fillfactor = 50);
comment on table leader is 'Which of several schedulers goes first. It saves work and no more: the others come a second later.';

-- Upkeep that is off until somebody resumes it; once removed it does not come back.
insert into schedule (name, trigger, executor, params, misfire, overlap, created_at, paused_at, settled_at)
select name, trigger, executor, params::jsonb, misfire, 'skip', clock_timestamp(), clock_timestamp(), clock_timestamp()
from (values
    ('backup', '30 12 * * *', 'maintenance.backup', '{"out": "backups/", "keep": 7}', 'once'),
    ('health', 'every 15m', 'maintenance.health', '{}', 'skip'),
    ('prune', '0 13 * * *', 'maintenance.prune', '{"older_than": "90d"}', 'once')) d (name, trigger, executor, params, misfire);
