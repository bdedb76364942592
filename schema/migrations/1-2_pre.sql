-- From version 1 to 2: lanes, limits, conditions, workflows, deadlines, suspects, fuller dead letters, logs.
-- Places get what moves with them from the body, so that moving them need not read it.

-- Queues and what they throttle -------------------------------------------------------------------

alter table queue
    add column max_running          integer,
    add column max_running_per_lane integer,
    add column rate                 integer,
    add column rate_period          interval,
    add column fair                 boolean not null default false,
    add column retention            interval,
    add constraint queue_max_running_positive check (max_running > 0),
    add constraint queue_max_running_per_lane_positive check (max_running_per_lane > 0),
    add constraint queue_rate_positive check (rate > 0 and rate_period > interval '0'),
    add constraint queue_rate_whole check ((rate is null) = (rate_period is null)),
    add constraint queue_retention_positive check (retention > interval '0');
comment on table queue is 'Names of queues and their limits; a paused queue hands out nothing.';
comment on column queue.fair is 'Whether lanes take turns instead of going by the order of their tasks.';
comment on column queue.retention is 'How long ended tasks are kept; null: for ever.';

create table throttle (
    queue_id  integer primary key,
    next_at   timestamptz not null default '-infinity',
    last_lane text not null default ''
) with (fillfactor = 50);
comment on table throttle is 'Queues that ever had limits: claims on a limited queue lock its row and so come one after the other.';
comment on column throttle.next_at is 'When the next start is due if all come evenly (the theoretical arrival time of GCRA).';
comment on column throttle.last_lane is 'The lane that had the last turn; empty: tasks without a lane.';

create table pruning (
    queue_id integer primary key,
    up_to    timestamptz not null,
    last_id  uuid not null default '00000000-0000-0000-0000-000000000000',
    slice    interval not null default interval '1 minute',
    again_id uuid not null default '00000000-0000-0000-0000-000000000000'
) with (fillfactor = 50);
comment on table pruning is 'Queues with a retention: what ended before (up_to, last_id) was looked at; the next look takes so long a slice of time.';
comment on column pruning.again_id is 'How far the second look has come, which goes over the bodies in order of id, again and again.';

-- Tasks and their places --------------------------------------------------------------------------

alter table task add column lane text, add column condition text,
    drop constraint task_priority_range, drop constraint task_max_attempts_range, drop constraint task_timeout_positive;
comment on table task is 'The body of a task: written at spawn, changed only by edits and amended retries, deleted by pruning.';
comment on column task.condition is 'When a task with parents may run; null: once all have completed.';

alter table ready
    add column suspect boolean not null default false,
    add column lane    text,
    add column needs   jsonb,
    drop constraint ready_attempt_counts;
create index ready_lane on ready (queue_id, lane, level desc, seq) where lane is not null;
drop index ready_claim;
create index ready_claim on ready (queue_id, level, seq) where needs is null;
create index ready_needy on ready (queue_id, level, seq) where needs is not null;
comment on column ready.suspect is
    'Its last run was lost with the worker or killed its process: it runs in a process of its own.';

alter table timer
    add column suspect boolean not null default false,
    add column lane    text,
    add column needs   jsonb;
create index timer_unknown on timer (task_id) where reason in ('no_executor', 'no_cluster', 'no_scratch');

alter table blocked
    drop constraint blocked_waits_for_something,
    add column suspect   boolean not null default false,
    add column lane      text,
    add column needs     jsonb,
    add column condition text not null default 'all_success',
    add column awaiting  boolean not null default false,
    add column quorum    integer not null default 0,
    add column succeeded integer not null default 0,
    add column failed    integer not null default 0,
    add constraint blocked_condition_known check (condition in ('all_success', 'all_done', 'any_success', 'any_failed', 'quorum')),
    add constraint blocked_counts check (remaining >= 0 and succeeded >= 0 and failed >= 0);
comment on table blocked is
    'Waits for parents: so many have not ended yet, have completed, have failed (the others of them were cancelled).';
comment on column blocked.quorum is 'How many parents must complete, whatever the condition is called.';
comment on column blocked.awaiting is 'Whether its run waits for tasks (ctx.wait_for): then only edges that are awaited count.';

update ready p set needs = t.needs from task t where t.id = p.task_id and t.needs is not null;
update timer p set needs = t.needs from task t where t.id = p.task_id and t.needs is not null;
update blocked p set needs = t.needs from task t where t.id = p.task_id and t.needs is not null;

-- Children stand as if no parent had ended, and those of whose parents one has are counted by the
-- next sweep.  Version 1 kept less than is needed, and could leave out the end of a parent that was
-- claimed and completed during a sweep.
update blocked b set quorum = e.parents, remaining = e.parents
from (select child_id, count(*)::integer as parents from edge group by child_id) e
where e.child_id = b.task_id;
insert into late (child_id)
    select distinct e.child_id from edge e join blocked b on b.task_id = e.child_id
    where not exists (select from blocked p where p.task_id = e.parent_id)
      and not exists (select from ready p where p.task_id = e.parent_id)
      and not exists (select from timer p where p.task_id = e.parent_id)
      and e.parent_id not in (select unnest(task_ids) from lease)
    order by 1
    on conflict do nothing;

alter table edge
    add column awaited boolean not null default false,
    drop constraint edge_pkey,
    add primary key (parent_id, child_id, awaited);
comment on table edge is 'Which task waits for which: by depends_on, or awaited by a run of the child.';

alter table lease
    add column suspects uuid[],
    add column narrowed boolean not null default false,
    add column holds boolean not null default false;
comment on column lease.suspects is 'Which of its tasks were suspect when claimed; null: none.';
comment on column lease.narrowed is 'Whether more was claimed with it than it holds now.';
comment on column lease.holds is 'Whether runs claimed with it hold anything; see holding.';

create index run_finished on run using brin (finished_at);

-- Dead letters ------------------------------------------------------------------------------------

alter table dead_letter
    add column fingerprint text,
    add column host        text,
    add column versions    jsonb,
    add column runs        jsonb;
update dead_letter d
set fingerprint = left(md5(concat_ws('|', d.executor_id, d.error ->> 'code', d.error ->> 'type',
        regexp_replace(left(d.error ->> 'message', 1000), '(0x)?[0-9a-fA-F-]*\d[0-9a-fA-F-]*', '#', 'g'))), 12),
    (host, versions) = (
        select w.host, w.versions
        from run r join worker w on w.id = (r.lease_id >> 32)::integer
        where r.task_id = d.task_id and r.ends order by r.finished_at desc limit 1),
    runs = (
        select coalesce(jsonb_agg(jsonb_build_object(
                   'attempt', r.attempt, 'state', r.state, 'started_at', r.started_at, 'finished_at', r.finished_at,
                   'worker', (select w.name from worker w where w.id = (r.lease_id >> 32)::integer), 'error', r.error)
               order by r.finished_at), '[]')
        from run r where r.task_id = d.task_id);
alter table dead_letter alter column fingerprint set not null, alter column runs set not null;
create index dead_letter_queue on dead_letter (queue_id, died_at);
create index dead_letter_fingerprint on dead_letter (fingerprint);
comment on table dead_letter is
    'Tasks whose attempts are spent, with copies of body and history: they outlive the partitions they came from.';
comment on column dead_letter.fingerprint is 'Same for failures that look alike: executor, error type, and message without its numbers.';

-- Keys that become free again, workflows, deadlines -------------------------------------------------

alter table task_key add column expires_at timestamptz, add column until_ended boolean not null default false;
comment on table task_key is 'Idempotency: the first task spawned under a key of a queue, until the key is free again.';

create table workflow (
    id         uuid primary key,
    name       text not null,
    created_at timestamptz not null,
    nodes      integer not null,
    remaining  integer not null,
    state      text not null default 'running',
    ended_at   timestamptz,
    reason     text,
    constraint workflow_name_valid check (length(name) between 1 and 500),
    constraint workflow_counts check (remaining between 0 and nodes),
    constraint workflow_state_known check (state in ('running', 'completed', 'failed', 'cancelled')),
    constraint workflow_ended check ((state = 'running') = (ended_at is null))
) with (fillfactor = 50);
create index workflow_running on workflow (id) where ended_at is null;
create index workflow_unfortunate on workflow (id) where state in ('failed', 'cancelled');
comment on table workflow is 'Graphs of tasks. `remaining` nodes have not ended; the transaction that ends the last one decides the state.';
comment on column workflow.reason is 'Why it was cancelled as a whole, if it was.';

create table node (
    workflow_id uuid not null,
    name        text not null,
    task_id     uuid not null,
    primary key (workflow_id, name)
);
create unique index node_task on node (task_id);
comment on table node is 'Which tasks make up a workflow, and what they are called in it.';

create table deadline (
    task_id uuid not null,
    kind    text not null,
    due_at  timestamptz not null,
    primary key (task_id, kind),
    constraint deadline_kind_known check (kind in ('start', 'finish'))
);
create index deadline_due on deadline (due_at);
comment on table deadline is 'By when a task must have started, or ended; it is cancelled if not.';

-- Workers ------------------------------------------------------------------------------------------

alter table worker
    add column machine  text,
    add column defaults jsonb not null default '{}',
    add column started  uuid[] not null default '{}',
    add column reserve_after double precision not null default 30,
    add column load     jsonb not null default '{}',
    add column held_up_since timestamptz,
    add column draining boolean not null default false,
    add column wanted_concurrency integer,
    add column oldest_claim bigint not null default 0,
    add constraint worker_wanted_concurrency_positive check (wanted_concurrency > 0);
comment on column worker.machine is 'Tells whether the process still lives, for another one on the same machine; null: cannot be told.';
comment on column worker.defaults is 'What its settings say of runs that are lost with it: max_attempts, dead_letters.';
comment on column worker.reserve_after is 'For how many seconds others may go before a task that fits it and finds no room.';
comment on column worker.started is 'Tasks it had started by its last sign of life.';
comment on column worker.load is 'What it told of itself with its last sign of life: runs at work, load of its machine, memory.';
comment on column worker.held_up_since is 'Its last own sign of life, while another process gives them in its stead: something in it holds up everything.';
comment on column worker.oldest_claim is 'The leases of its claims with lower numbers are gone for good: a mark, see _live_leases().';
comment on column worker.draining is 'An order: claim nothing more, and leave once all is done.';
comment on column worker.wanted_concurrency is 'An order: run so many at a time; null: as it was started.';
comment on table audit is 'What people did to tasks: cancel, retry, edit, requeue.';

create table timer_mark (
    singleton boolean primary key default true check (singleton),
    wake_at   timestamptz not null default '-infinity',
    looked_at timestamptz not null default '-infinity'
) with (fillfactor = 50);
insert into timer_mark default values;
comment on table timer_mark is
    'Sleepers that were due before wake_at are awake, but for those that were committed late; looked_at: when these were looked for.';

alter table horizon add column at timestamptz not null default '-infinity';

create table pulse (
    singleton boolean primary key default true check (singleton),
    at        timestamptz not null default clock_timestamp(),
    away_from timestamptz,
    back_at   timestamptz
) with (fillfactor = 50);
insert into pulse default values;
comment on table pulse is
    'When anybody last gave a sign of life, and the last silence of all: workers have a lease''s time from back_at on.';
-- Logs ---------------------------------------------------------------------------------------------

create table log (
    task_id  uuid not null,
    attempt  smallint not null,
    upto     bigint not null,
    lines    bigint not null,
    bytes    integer not null,
    breaks   integer not null,
    lease_id bigint not null,
    part     integer not null,
    at       timestamptz not null,
    pieces   jsonb not null,
    primary key (task_id, attempt, upto),
    constraint log_part_holds_something check (bytes > 0 and breaks >= 0)
) partition by range (task_id);
create table log_default partition of log default;
comment on table log is
    'What runs have written, in parts of some lines. A part is written once; those in the middle of a long log go as it grows.';
comment on column log.upto is 'Bytes that the attempt had written up to the end of this part, with those that were dropped: it tells what is missing before.';
comment on column log.lines is 'As upto, for lines.';
comment on column log.breaks is 'Lines that end in this part.';
comment on column log.part is 'Number within the run, made by its worker: a part that comes twice is taken once.';
comment on column log.pieces is '[stream, how many ms before `at`, text], in the order in which they were read.';

comment on table waiter is 'Tasks whose end somebody waits for, or whose log somebody follows: that is notified.';

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

-- Resources ----------------------------------------------------------------------------------------

create table resource (
    name  text primary key,
    total numeric not null,
    constraint resource_name_valid check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}$' and name !~ '^file:'),
    constraint resource_total_range check (total between 0 and 1e300)
);
comment on table resource is 'What the workers of all hosts share, such as licences: how much of it there is. Packed claims lock its rows.';

create table holding (
    lease_id bigint not null,
    task_id  uuid not null,
    resource text not null,
    amount   numeric not null,
    primary key (lease_id, task_id, resource)
);
create index holding_resource on holding (resource);
comment on table holding is
    'What a run holds. It counts only while the lease holds the task: however a lease goes, nothing stays taken.';

create table reservation (
    task_id   uuid primary key,
    worker_id integer not null,
    noted_at  timestamptz not null
);
create unique index reservation_worker on reservation (worker_id);
comment on table reservation is
    'Tasks that fit a worker but not beside what ran there: from worker.reserve_after on it keeps room for the one it has noted.';

create table affinity (
    task_id  uuid primary key,
    noted_at timestamptz not null
);
comment on table affinity is 'Pending tasks that were passed over for the sake of a host that has a file of theirs, and since when.';

create index artifact_path on artifact using hash (path);
alter table executor add column needs jsonb;
alter table horizon add column swept_at timestamptz not null default '-infinity';
comment on column horizon.swept_at is 'When holdings that count no more were last looked for.';

-- Images ------------------------------------------------------------------------------------------

create table image_index (
    id         integer generated always as identity primary key,
    name       text not null unique,
    created_at timestamptz not null,
    constraint image_index_name_valid check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$')
);
comment on table image_index is 'Sets of images by name. Who changes what an index holds locks its row, so that it does not go meanwhile.';

create table image_file (
    id         bigint generated always as identity primary key,
    index_id   integer not null,
    uri        text collate "C" not null,
    version    text not null,
    error      jsonb,
    scanned_at timestamptz not null,
    unique (index_id, uri)
);
comment on table image_file is 'Files whose headers were read, also those without an image: read again only when their version is another.';
comment on column image_file.version is 'Size and time of the last change.';
comment on column image_file.error is 'Why it holds no image that can be used: code and message.';

create table image (
    file_id     bigint not null,
    hdu         integer not null,
    index_id    integer not null,
    bounds      box not null,
    band        text,
    band_told   boolean not null,
    hdus        jsonb not null,
    wcs         text,
    shape       integer[] not null,
    footprint   double precision[],
    observed_at timestamptz,
    tract       integer,
    patch       integer,
    primary key (file_id, hdu),
    constraint image_shape_is_plane check (cardinality(shape) = 2 and shape[1] > 0 and shape[2] > 0),
    constraint image_bounds_on_sky check (
        (bounds[1])[0] >= 0 and (bounds[1])[0] <= 360 and (bounds[0])[0] <= (bounds[1])[0] + 360 and (bounds[1])[1] >= -90 and (bounds[0])[1] <= 90)
);
-- A range that holds one number stands for the number: of numbers alone GiST keeps no order without an extension.
create index image_bounds on image using gist (int4range(index_id, index_id, '[]'), bounds);
comment on table image is 'Image HDUs of files. A row is written once: a file that has changed gets new ones.';
comment on column image.bounds is
    'Right ascension and declination in degrees, ICRS, that hold all of it; beyond 360 where it crosses 0, all right ascensions where it holds a pole.';
comment on column image.band_told is 'Whether a header tells the band; else it is a word of the file''s name, and others may be meant.';
comment on column image.hdus is 'The HDU of each plane, by its name.';
comment on column image.wcs is 'The cards of the header that tell the WCS, a line each; null: it needs tables of the file, and is read from there.';
comment on column image.shape is '(ny, nx).';
comment on column image.footprint is 'Right ascension and declination of its corners in order; null where one is not on the sky.';
comment on column image.observed_at is 'When the exposure began; null: its headers do not tell.';
