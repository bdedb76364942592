-- A task's state is where its row is:
--
--     blocked -> ready (pending) -> lease (running) -> run (completed, failed, cancelled)
--                timer (sleeping) <-'
--
-- The body in `task` is written once; only people's edits and amended retries touch it again.  No
-- status column exists that could disagree: a task stands in exactly one of blocked, ready, timer
-- and lease, or it has ended and its last run tells how.
--
-- `task` and `ready` have no check constraints: each statement that inserts would parse their text anew, which took a sixth of
-- what the server spends on a single spawn.  Who reads options refuses what is out of range (29_options.sql).
--
-- Lock order, for every function: schedule, advisory locks of event names, task by id (for no key update: spawns of children
-- hold it for key share, against pruning alone), worker, lease by id,
-- ready and timer by task id (claims skip what is locked and never wait), blocked by task id and
-- once per transaction, task_key by queue and key, workflow by id, the advisory lock of a claim's number, throttle,
-- the advisory lock of a worker's packed claims, resource by name, affinity by task id, reservation, log by task, then
-- tables that only grow.  Holdings are deleted under the lock of their lease.

create table queue (
    id         integer generated always as identity primary key,
    name       text not null unique,
    paused_at  timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    max_running          integer,
    max_running_per_lane integer,
    rate                 integer,
    rate_period          interval,
    fair                 boolean not null default false,
    retention            interval,
    constraint queue_name_valid check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$'),
    constraint queue_max_running_positive check (max_running > 0),
    constraint queue_max_running_per_lane_positive check (max_running_per_lane > 0),
    constraint queue_rate_positive check (rate > 0 and rate_period > interval '0'),
    constraint queue_rate_whole check ((rate is null) = (rate_period is null)),
    constraint queue_retention_positive check (retention > interval '0')
);
comment on table queue is 'Names of queues and their limits; a paused queue hands out nothing.';
comment on column queue.fair is 'Whether lanes take turns instead of going by the order of their tasks.';
comment on column queue.retention is 'How long ended tasks are kept; null: for ever.';

create table executor (
    id            integer generated always as identity primary key,
    name          text not null unique,
    queue         text,
    runs_in       text,
    description   text,
    max_attempts  smallint,
    retry         jsonb,
    timeout       interval,
    params_schema jsonb,
    registered_at timestamptz,
    needs         jsonb,
    constraint executor_name_valid check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$')
);
comment on table executor is 'Names that tasks carry, with what the workers that know them last said of them (registered_at).';

create table task (
    id           uuid not null,
    workflow_id  uuid,
    created_at   timestamptz not null,
    queue_id     integer not null,
    executor_id  integer not null,
    priority     smallint not null default 0,
    max_attempts smallint,
    timeout      interval,
    run_at       timestamptz,
    params       jsonb not null,
    headers      jsonb,
    tags         text[],
    key          text,
    depends_on   uuid[],
    retry        jsonb,
    needs        jsonb,
    lane         text,
    condition    text,
    primary key (id)
) partition by range (id);
comment on table task is 'The body of a task: written at spawn, changed only by edits and amended retries, deleted by pruning.';
comment on column task.condition is 'When a task with parents may run; null: once all have completed.';

create sequence ready_seq cache 1;

create table ready (
    task_id  uuid not null,
    seq      bigint not null default nextval('ready_seq'),
    queue_id integer not null,
    level    integer not null,
    attempt  smallint not null,
    suspect  boolean not null default false,
    lane     text,
    needs    jsonb
);
create index ready_claim on ready (queue_id, level, seq) where needs is null;
create index ready_needy on ready (queue_id, level, seq) where needs is not null;
create unique index ready_task on ready (task_id);
create index ready_lane on ready (queue_id, lane, level desc, seq) where lane is not null;
alter sequence ready_seq owned by ready.seq;
comment on table ready is
    'Pending: may be claimed. Inserted, deleted by the claim, never updated: a row that moves could be passed over by a claim.';
comment on column ready.level is '2 x priority, + 1 for runs that were handed back and go ahead of their priority.';
comment on column ready.suspect is
    'Its last run was lost with the worker or killed its process: it runs in a process of its own.';
comment on column ready.seq is
    'Order within a level. Drawn after the body was inserted, so the drawing transaction has an xid the marks can wait for.';

create table timer (
    task_id  uuid primary key,
    wake_at  timestamptz not null,
    queue_id integer not null,
    level    integer not null,
    attempt  smallint not null,
    suspect  boolean not null default false,
    lane     text,
    needs    jsonb,
    reason   text not null,
    constraint timer_attempt_counts check (attempt > 0)
);
create index timer_due on timer (wake_at);
create index timer_unknown on timer (task_id) where reason in ('no_executor', 'no_cluster', 'no_scratch');
comment on table timer is 'Sleeping: until a time, the next attempt, or (at infinity) an event.';

create table blocked (
    task_id   uuid primary key,
    queue_id  integer not null,
    level     integer not null,
    attempt   smallint not null default 1,
    suspect   boolean not null default false,
    lane      text,
    needs     jsonb,
    run_at    timestamptz,
    condition text not null default 'all_success',
    awaiting  boolean not null default false,
    quorum    integer not null default 0,
    remaining integer not null,
    succeeded integer not null default 0,
    failed    integer not null default 0,
    constraint blocked_condition_known check (condition in ('all_success', 'all_done', 'any_success', 'any_failed', 'quorum')),
    constraint blocked_counts check (remaining >= 0 and succeeded >= 0 and failed >= 0)
);
comment on table blocked is
    'Waits for parents: so many have not ended yet, have completed, have failed (the others of them were cancelled).';
comment on column blocked.quorum is 'How many parents must complete, whatever the condition is called.';
comment on column blocked.awaiting is 'Whether its run waits for tasks (ctx.wait_for): then only edges that are awaited count.';

create table edge (
    parent_id uuid not null,
    child_id  uuid not null,
    awaited   boolean not null default false,
    primary key (parent_id, child_id, awaited),
    constraint edge_not_to_itself check (parent_id <> child_id)
);
create index edge_child on edge (child_id);
comment on table edge is 'Which task waits for which: by depends_on, or awaited by a run of the child.';

create table late (
    child_id uuid primary key
);
comment on table late is
    'Children spawned on parents that existed already: their count is taken by sweep_late(), which alone can see every end.';

create table lease (
    id         bigint primary key,
    claimed_at timestamptz not null,
    queue_id   integer not null,
    task_ids   uuid[] not null,
    attempts   smallint[] not null,
    suspects   uuid[],
    narrowed   boolean not null default false,
    holds      boolean not null default false,
    constraint lease_holds_something check (cardinality(task_ids) > 0),
    constraint lease_attempt_per_task check (cardinality(task_ids) = cardinality(attempts))
);
comment on table lease is
    'Running: one row for each claimed batch. Its id is the epoch that fences every write; reporting a part narrows the row.';

comment on column lease.suspects is 'Which of its tasks were suspect when claimed; null: none.';
comment on column lease.narrowed is 'Whether more was claimed with it than it holds now.';
comment on column lease.holds is 'Whether runs claimed with it hold anything; see holding.';
create type run_state as enum ('completed', 'failed', 'lost', 'suspended', 'returned', 'cancelled');

create table run (
    task_id     uuid not null,
    started_at  timestamptz,
    finished_at timestamptz not null,
    lease_id    bigint,
    state       run_state not null,
    attempt     smallint not null,
    ends        boolean not null,
    error       jsonb,
    result      jsonb,
    constraint run_ended_task check (ends or state not in ('completed', 'cancelled')),
    constraint run_goes_on check (not ends or state not in ('suspended', 'returned')),
    constraint run_of_a_claim check (lease_id is not null or state = 'cancelled')
) partition by range (finished_at);
create index run_task on run (task_id);
create index run_finished on run using brin (finished_at);
create index run_unfortunate on run (task_id) where ends and state <> 'completed';
comment on table run is 'History: appended when a run ends. `ends` marks the run with which its task ended.';

create table dead_letter (
    task_id     uuid primary key,
    died_at     timestamptz not null,
    queue_id    integer not null,
    executor_id integer not null,
    attempts    smallint not null,
    fingerprint text not null,
    host        text,
    versions    jsonb,
    error       jsonb,
    body        jsonb not null,
    runs        jsonb not null
);
create index dead_letter_queue on dead_letter (queue_id, died_at);
create index dead_letter_fingerprint on dead_letter (fingerprint);
comment on table dead_letter is
    'Tasks whose attempts are spent, with copies of body and history: they outlive the partitions they came from.';
comment on column dead_letter.fingerprint is 'Same for failures that look alike: executor, error type, and message without its numbers.';

create table task_key (
    queue_id integer not null,
    key      text not null,
    task_id  uuid not null,
    expires_at timestamptz,
    until_ended boolean not null default false,
    primary key (queue_id, key)
);
create index task_key_task on task_key (task_id);
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
comment on table workflow is
    'Graphs of tasks. `remaining` nodes have not ended; the transaction that ends the last one decides the state.';
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

create table checkpoint (
    task_id    uuid not null,
    name       text not null,
    value      jsonb not null,
    created_at timestamptz not null,
    primary key (task_id, name)
);
comment on table checkpoint is 'Steps that a task has finished; later runs read them instead of repeating them.';

create table progress (
    task_id    uuid primary key,
    done       double precision not null,
    total      double precision,
    message    text,
    updated_at timestamptz not null
) with (fillfactor = 50);
comment on table progress is 'The last word of a running task on how far it is.';

create table event (
    name       text primary key,
    payload    jsonb,
    emitted_at timestamptz not null
);
comment on table event is 'Events that happened; the first emission of a name wins.';

create table wait (
    task_id uuid primary key,
    event   text not null
);
create index wait_event on wait (event);
comment on table wait is 'Sleeping tasks that an event wakes.';

create table waiter (
    task_id    uuid primary key,
    expires_at timestamptz not null
);
comment on table waiter is 'Tasks whose end somebody waits for, or whose log somebody follows: that is notified.';

create table artifact (
    task_id      uuid not null,
    path         text not null,
    attempt      smallint not null,
    attempt_path text not null,
    kind         text not null,
    sha256       text,
    bytes        bigint,
    completed_at timestamptz not null,
    published_at timestamptz,
    primary key (task_id, path)
);
create index artifact_unpublished on artifact (completed_at) where published_at is null;
create index artifact_path on artifact using hash (path);
comment on table artifact is
    'Files of a completed run. Until published_at is set the file may still stand under attempt_path; anyone may rename it.';

create table audit (
    at      timestamptz not null,
    task_id uuid not null,
    action  text not null,
    -- Who acts through the web interface is told behind the role, which nobody can feign; see 69_tokens.sql.
    actor   text not null default session_user || coalesce(': ' || nullif(current_setting('absurd.actor', true), ''), ''),
    detail  text
);
create index audit_task on audit (task_id);
comment on table audit is 'What people did to tasks: cancel, retry, edit, requeue.';

create table worker (
    id            integer generated always as identity primary key,
    name          text not null,
    host          text not null,
    pid           integer not null,
    state         text not null default 'running',
    queues        text[] not null,
    concurrency   integer not null,
    lease_seconds double precision not null,
    versions      jsonb not null,
    offers        jsonb not null,
    machine       text,
    started       uuid[] not null default '{}',
    defaults      jsonb not null default '{}',
    load          jsonb not null default '{}',
    held_up_since timestamptz,
    draining      boolean not null default false,
    wanted_concurrency integer,
    started_at    timestamptz not null,
    last_seen     timestamptz not null,
    reserve_after double precision not null default 30,
    oldest_claim bigint not null default 0,
    constraint worker_wanted_concurrency_positive check (wanted_concurrency > 0),
    constraint worker_state_known check (state in ('running', 'stopping', 'stopped', 'lost')),
    constraint worker_lease_positive check (lease_seconds > 0)
) with (fillfactor = 50);
create index worker_alive on worker (id) where state in ('running', 'stopping');
comment on table worker is 'Workers that ever were; one small update a beat keeps all their leases alive.';

comment on column worker.machine is 'Tells whether the process still lives, for another one on the same machine; null: cannot be told.';
comment on column worker.defaults is 'What its settings say of runs that are lost with it: max_attempts, dead_letters.';
comment on column worker.reserve_after is 'For how many seconds others may go before a task that fits it and finds no room.';
comment on column worker.started is 'Tasks it had started by its last sign of life.';
comment on column worker.load is 'What it told of itself with its last sign of life: runs at work, load of its machine, memory.';
comment on column worker.held_up_since is 'Its last own sign of life, while another process gives them in its stead: something in it holds up everything.';
comment on column worker.oldest_claim is 'The leases of its claims with lower numbers are gone for good: a mark, see _live_leases().';
comment on column worker.draining is 'An order: claim nothing more, and leave once all is done.';
comment on column worker.wanted_concurrency is 'An order: run so many at a time; null: as it was started.';

create table pulse (
    singleton boolean primary key default true check (singleton),
    at        timestamptz not null default clock_timestamp(),
    away_from timestamptz,
    back_at   timestamptz
) with (fillfactor = 50);
insert into pulse default values;
comment on table pulse is
    'When anybody last gave a sign of life, and the last silence of all: workers have a lease''s time from back_at on.';

create table listener (
    queue_id  integer not null,
    worker_id integer not null,
    primary key (queue_id, worker_id)
);
comment on table listener is 'Idle workers by queue: only while one listens does a spawn pay for a NOTIFY.';
