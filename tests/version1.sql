-- absurd: the schema of the queue, version 1.
\set ON_ERROR_STOP on

begin;

select pg_advisory_xact_lock(hashtextextended('absurd.schema.absurd', 0));

create schema if not exists "absurd";

do $$ begin
    if exists (select from pg_class where relnamespace = '"absurd"'::regnamespace)
       or exists (select from pg_proc where pronamespace = '"absurd"'::regnamespace) then
        raise exception 'schema absurd is not empty';
    end if;
end $$;

set local search_path = "absurd", pg_temp;

-- 00_schema.sql

-- What this schema is, and the clock everything in it goes by.
--
-- The installer creates the schema and sets search_path to it; every name in these files is
-- unqualified, and every public function keeps that path (SET search_path FROM CURRENT), so the
-- queue may live in a schema of any name.  Names that begin with _ are private to the schema.

create table meta (
    key   text primary key,
    value text not null
);
comment on table meta is 'What is installed here: product (tells our schema from a foreign one) and version.';

insert into meta (key, value) values ('product', 'absurd-observatory'), ('version', '1');

create function clock_time() returns timestamptz
    language sql stable
    as $$ select clock_timestamp() $$;
comment on function clock_time() is
    'The time all states go by. Tests replace this one function to move the clock.';

create function _id_floor(p_time timestamptz) returns uuid
    language sql immutable strict parallel safe
    as $$
        select (lpad(to_hex(greatest(0, floor(extract(epoch from p_time) * 1000))::bigint), 12, '0')
                || '70008000000000000000')::uuid
    $$;
comment on function _id_floor(timestamptz) is 'The lowest UUIDv7 (RFC 9562) of a millisecond: bounds a range of task ids by time.';

create function _id_time(p_id uuid) returns timestamptz
    language sql immutable strict parallel safe
    as $$
        select to_timestamp(('x' || translate(left(p_id::text, 13), '-', ''))::bit(48)::bigint / 1000.0)
    $$;
comment on function _id_time(uuid) is 'The time in a UUIDv7.';

create function new_task_id() returns uuid
    language sql volatile parallel safe security definer set search_path from current
    as $$
        select (left(translate(_id_floor(clock_timestamp())::text, '-', ''), 12) || '7'
                || substr(md5(gen_random_uuid()::text), 1, 3) || '8'
                || substr(md5(gen_random_uuid()::text), 1, 15))::uuid
    $$;
comment on function new_task_id() is 'A UUIDv7, for callers that bring no id of their own.';

create function lease_worker(p_lease bigint) returns integer
    language sql immutable strict parallel safe
    as $$ select (p_lease >> 32)::integer $$;
comment on function lease_worker(bigint) is
    'The worker that made a lease id: its number in the high half, its own count of claims in the low half.';

create function _require_read_committed() returns void
    language plpgsql stable
    as $$
begin
    -- Under a stricter isolation a statement cannot see what committed since the transaction
    -- began, and every "then, in a new statement" below would silently look at the past.
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'this function runs at READ COMMITTED only, not at %',
            upper(current_setting('transaction_isolation')) using errcode = 'AB006';
    end if;
end $$;

-- 10_tables.sql

-- A task's state is where its row is:
--
--     blocked -> ready (pending) -> lease (running) -> run (completed, failed, cancelled)
--                timer (sleeping) <-'
--
-- The body in `task` is written once and never updated.  No status column exists that could
-- disagree: a task stands in exactly one of blocked, ready, timer and lease, or it has ended and
-- its last run tells how.
--
-- Lock order, for every function: task, lease by id, ready and timer by task id (claims skip what
-- is locked and never wait), blocked by task id and once per transaction, then tables that only grow.

create table queue (
    id         integer generated always as identity primary key,
    name       text not null unique,
    paused_at  timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    constraint queue_name_valid check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$')
);
comment on table queue is 'Names of queues; a paused queue hands out nothing.';

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
    primary key (id),
    constraint task_priority_range check (priority between -10000 and 10000),
    constraint task_max_attempts_range check (max_attempts >= 0),
    constraint task_timeout_positive check (timeout > interval '0')
) partition by range (id);
comment on table task is 'The body of a task: written once at spawn, never updated, dropped with its partition.';

create sequence ready_seq cache 1;

create table ready (
    task_id  uuid not null,
    seq      bigint not null default nextval('ready_seq'),
    queue_id integer not null,
    level    integer not null,
    attempt  smallint not null,
    constraint ready_attempt_counts check (attempt > 0)
);
create index ready_claim on ready (queue_id, level, seq);
create unique index ready_task on ready (task_id);
alter sequence ready_seq owned by ready.seq;
comment on table ready is
    'Pending: may be claimed. Inserted, deleted by the claim, never updated: a row that moves could be passed over by a claim.';
comment on column ready.level is '2 x priority, + 1 for runs that were handed back and go ahead of their priority.';
comment on column ready.seq is
    'Order within a level. Drawn after the body was inserted, so the drawing transaction has an xid the marks can wait for.';

create table timer (
    task_id  uuid primary key,
    wake_at  timestamptz not null,
    queue_id integer not null,
    level    integer not null,
    attempt  smallint not null,
    reason   text not null,
    constraint timer_attempt_counts check (attempt > 0)
);
create index timer_due on timer (wake_at);
comment on table timer is 'Sleeping: until a time, the next attempt, or (at infinity) an event.';

create table blocked (
    task_id   uuid primary key,
    queue_id  integer not null,
    level     integer not null,
    attempt   smallint not null default 1,
    remaining integer not null,
    run_at    timestamptz,
    constraint blocked_waits_for_something check (remaining > 0)
);
comment on table blocked is 'Waits for `remaining` parents to complete.';

create table edge (
    parent_id uuid not null,
    child_id  uuid not null,
    primary key (parent_id, child_id),
    constraint edge_not_to_itself check (parent_id <> child_id)
);
create index edge_child on edge (child_id);
comment on table edge is 'Which task waits for which.';

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
    constraint lease_holds_something check (cardinality(task_ids) > 0),
    constraint lease_attempt_per_task check (cardinality(task_ids) = cardinality(attempts))
);
comment on table lease is
    'Running: one row for each claimed batch. Its id is the epoch that fences every write; reporting a part narrows the row.';

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
create index run_unfortunate on run (task_id) where ends and state <> 'completed';
comment on table run is 'History: appended when a run ends. `ends` marks the run with which its task ended.';

create table dead_letter (
    task_id     uuid primary key,
    died_at     timestamptz not null,
    queue_id    integer not null,
    executor_id integer not null,
    attempts    smallint not null,
    error       jsonb,
    body        jsonb not null
);
comment on table dead_letter is
    'Tasks whose attempts are spent, with a copy of the body: they outlive the partitions they came from.';

create table task_key (
    queue_id integer not null,
    key      text not null,
    task_id  uuid not null,
    primary key (queue_id, key)
);
create index task_key_task on task_key (task_id);
comment on table task_key is 'Idempotency: the first task spawned under a key of a queue.';

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
comment on table waiter is 'Tasks whose end somebody waits for: their end is notified.';

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
comment on table artifact is
    'Files of a completed run. Until published_at is set the file may still stand under attempt_path; anyone may rename it.';

create table audit (
    at      timestamptz not null,
    task_id uuid not null,
    action  text not null,
    actor   text not null default session_user,
    detail  text
);
create index audit_task on audit (task_id);
comment on table audit is 'What people did to tasks: cancel, retry.';

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
    started_at    timestamptz not null,
    last_seen     timestamptz not null,
    constraint worker_state_known check (state in ('running', 'stopping', 'stopped', 'lost')),
    constraint worker_lease_positive check (lease_seconds > 0)
) with (fillfactor = 50);
create index worker_alive on worker (id) where state in ('running', 'stopping');
comment on table worker is 'Workers that ever were; one small update a beat keeps all their leases alive.';

create table listener (
    queue_id  integer not null,
    worker_id integer not null,
    primary key (queue_id, worker_id)
);
comment on table listener is 'Idle workers by queue: only while one listens does a spawn pay for a NOTIFY.';

-- Counting and marks ------------------------------------------------------------------------------

create table tally (
    id        bigint generated always as identity primary key,
    queue_id  integer not null,
    blocked   integer not null default 0,
    pending   integer not null default 0,
    sleeping  integer not null default 0,
    running   integer not null default 0,
    completed integer not null default 0,
    failed    integer not null default 0,
    cancelled integer not null default 0
);
comment on table tally is
    'Changes of the counts, appended by each statement that moves tasks: a counter row would be walked by every update beside a held snapshot.';

create table total (
    queue_id  integer primary key,
    blocked   bigint not null default 0,
    pending   bigint not null default 0,
    sleeping  bigint not null default 0,
    running   bigint not null default 0,
    completed bigint not null default 0,
    failed    bigint not null default 0,
    cancelled bigint not null default 0
);
comment on table total is 'Folded tallies: a queue counts total + tallies from horizon.tally_base up.';

create table level (
    queue_id integer not null,
    level    integer not null,
    base     bigint not null default 0,
    primary key (queue_id, level)
) with (fillfactor = 50);
comment on table level is
    'Levels a queue has used. No row of `ready` can ever appear below `base`, so claims start there and skip what died below.';

create table horizon (
    singleton   boolean primary key default true check (singleton),
    noted_seq   bigint not null default 0,
    noted_tally bigint not null default 0,
    seq         bigint,
    tally       bigint,
    xid         xid8,
    tally_base  bigint not null default 0
) with (fillfactor = 50);
insert into horizon default values;
comment on table horizon is
    'How far the marks may rise: see advance_marks(). tally_base is the mark of `tally`; those of `ready` stand in `level`.';

-- 11_partitions.sql

-- Partitions of `task` (by the time in its id) and `run` (by the time it finished), a week each.
-- History leaves by dropping them, never by DELETE.

create table task_default partition of task default;
create table run_default partition of run default;

-- Make the partitions for the weeks around now: ids may be a day behind, and a fortnight ahead is
-- kept in stock.  Returns how many were made.  The default partitions catch what no week holds.
create function ensure_partitions() returns integer
    language plpgsql security definer set search_path from current set lock_timeout = '1s'
    as $$
declare
    v_made  integer := 0;
    v_start timestamptz;
    v_end   timestamptz;
    v_name  text;
begin
    -- The names carry the UTC week, so that sessions in different zones agree on them.
    v_start := date_trunc('week', (clock_time() - interval '1 day') at time zone 'UTC') at time zone 'UTC';
    if to_regclass('run_' || to_char((v_start + interval '15 days') at time zone 'UTC', 'IYYY"w"IW')) is not null then
        return 0;
    end if;
    if not pg_try_advisory_xact_lock(hashtext(current_schema() || '.partitions')) then
        return 0;
    end if;
    for i in 0..3 loop
        v_end := v_start + interval '7 days';
        v_name := to_char((v_start + interval '1 day') at time zone 'UTC', 'IYYY"w"IW');
        if to_regclass('run_' || v_name) is null then
            begin
                execute format('create table %I partition of task for values from (%L) to (%L)',
                               'task_' || v_name, _id_floor(v_start), _id_floor(v_end));
                execute format('create table %I partition of run for values from (%L) to (%L)',
                               'run_' || v_name, v_start, v_end);
                v_made := v_made + 1;
            exception
                -- Rows of that week lie in the default partition, or somebody holds it: it goes on serving.
                when check_violation or lock_not_available then
                    raise warning 'partitions of week % were not made: %', v_name, sqlerrm;
            end;
        end if;
        v_start := v_end;
    end loop;
    return v_made;
end $$;
comment on function ensure_partitions() is 'Make the weekly partitions around now; returns how many were made.';

do $$ begin perform ensure_partitions(); end $$;

-- 20_queues.sql

-- Queues: make, pause, resume, purge.

-- The id of a queue, made at its first use.  Raises AB007 for a name that is not allowed.
create function _queue_id(p_name text) returns integer
    language plpgsql
    as $$
declare
    v_id integer;
begin
    select id into v_id from queue where name = p_name;
    if v_id is null then
        if p_name is null or p_name !~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$' then
            raise exception 'queue name % is not valid: 1 to 128 letters, digits or _ . : - and no leading punctuation',
                coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB007';
        end if;
        insert into queue (name) values (p_name) on conflict do nothing returning id into v_id;
        if v_id is null then  -- another session made it meanwhile
            select id into v_id from queue where name = p_name;
        else
            insert into total (queue_id) values (v_id);
        end if;
    end if;
    return v_id;
end $$;

-- The id of an executor's name, made at its first use.  Raises AB007 for a name that is not allowed.
create function _executor_id(p_name text) returns integer
    language plpgsql
    as $$
declare
    v_id integer;
begin
    select id into v_id from executor where name = p_name;
    if v_id is null then
        if p_name is null or p_name !~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$' then
            raise exception 'executor name % is not valid: 1 to 128 letters, digits or _ . : - and no leading punctuation',
                coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB007';
        end if;
        insert into executor (name) values (p_name) on conflict do nothing returning id into v_id;
        if v_id is null then
            select id into v_id from executor where name = p_name;
        end if;
    end if;
    return v_id;
end $$;

-- The id of a queue that must exist.  Raises AB005.
create function _known_queue_id(p_name text) returns integer
    language plpgsql stable
    as $$
declare
    v_id integer;
begin
    select id into v_id from queue where name = p_name;
    if v_id is null then
        raise exception 'there is no queue called %', coalesce(quote_literal(left(p_name, 200)), 'null')
            using errcode = 'AB005';
    end if;
    return v_id;
end $$;

create function create_queue(p_name text) returns boolean
    language plpgsql security definer set search_path from current
    as $$
begin
    if exists (select from queue where name = p_name) then
        return false;
    end if;
    perform _queue_id(p_name);
    return true;
end $$;
comment on function create_queue(text) is 'Make a queue; false if it exists. Spawning makes queues by itself.';

-- The word of a pause travels with the next claim: nothing is notified, what runs goes on.
create function set_queue_paused(p_name text, p_paused boolean) returns void
    language plpgsql security definer set search_path from current
    as $$
declare
    v_id integer := _known_queue_id(p_name);
begin
    update queue set paused_at = case when p_paused then coalesce(paused_at, clock_time()) end where id = v_id;
    if not p_paused then
        perform _wake(array[v_id]);
    end if;
end $$;
comment on function set_queue_paused(text, boolean) is 'Pause a queue (nothing new is claimed from it) or resume it.';

-- Tell idle workers that something became claimable: one coalesced NOTIFY a queue and transaction,
-- and none while every worker is busy, because NOTIFY takes an instance-wide lock at commit.
-- plpgsql for its cached plan: a volatile SQL function would be planned at every call.
create function _wake(p_queue_ids integer[]) returns void
    language plpgsql
    as $$
begin
    if exists (select from listener where queue_id = any (p_queue_ids)) then
        perform pg_notify(current_schema() || '_ready', q.name)
        from queue q
        where q.id = any (p_queue_ids) and exists (select from listener l where l.queue_id = q.id);
    end if;
end $$;

-- 21_levels.sql

-- Levels a queue uses, and the marks below which no claim needs to look.

-- Remember that a queue uses a level: claims discover levels here, not in `ready`.
create function _use_level(p_queue_id integer, p_level integer) returns void
    language plpgsql
    as $$
begin
    if not exists (select from level where queue_id = p_queue_id and level = p_level) then
        insert into level (queue_id, level) values (p_queue_id, p_level) on conflict do nothing;
    end if;
end $$;

-- Advance the base marks.  A seq may be committed long after a higher one, so "the lowest row I
-- see" is no mark.  Instead: note the highest seq handed out; in a later transaction take an xid;
-- every seq up to the note was drawn by a transaction with a lower xid, so once all of those have
-- ended, what a later statement sees at or below the note is all there will ever be there.
-- Called about once a second, alone in its transaction; each call moves one note and judges one.
-- Returns whether marks were advanced.
create function advance_marks() returns boolean
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_horizon horizon;
    v_level   record;
    v_lowest  bigint;
    v_risen   boolean := false;
begin
    perform _require_read_committed();
    if pg_current_xact_id_if_assigned() is not null then
        raise exception 'advance_marks must be the first to write in its transaction: its xid would be too old'
            using errcode = 'AB004';
    end if;
    if not pg_try_advisory_xact_lock(hashtext(current_schema() || '.marks')) then
        return false;
    end if;
    select * into v_horizon from horizon;

    if v_horizon.xid is not null and pg_snapshot_xmin(pg_current_snapshot()) > v_horizon.xid then
        for v_level in select * from level where base <= v_horizon.seq order by queue_id, level loop
            select r.seq into v_lowest from ready r
            where r.queue_id = v_level.queue_id and r.level = v_level.level and r.seq >= v_level.base
            order by r.seq limit 1;
            v_lowest := least(v_lowest, v_horizon.seq + 1);
            if v_lowest > v_level.base then
                update level set base = v_lowest where queue_id = v_level.queue_id and level = v_level.level;
            end if;
        end loop;
        -- Tallies that are committed but not yet folded hold their mark back in the same way.
        select t.id into v_lowest from tally t where t.id >= v_horizon.tally_base order by t.id limit 1;
        v_horizon.tally_base := greatest(v_horizon.tally_base, least(v_lowest, v_horizon.tally + 1));
        v_horizon.xid := null;
        v_risen := true;
    end if;
    if v_horizon.xid is null then
        v_horizon.seq := v_horizon.noted_seq;
        v_horizon.tally := v_horizon.noted_tally;
        -- Not a snapshot's xmax: running transactions can lie above that.
        v_horizon.xid := pg_current_xact_id();
    end if;
    update horizon set seq = v_horizon.seq, tally = v_horizon.tally, xid = v_horizon.xid, tally_base = v_horizon.tally_base,
        -- A sequence that was never drawn from names its first number as the last.
        noted_seq = (select last_value - (not is_called)::integer from ready_seq),
        noted_tally = (select last_value - (not is_called)::integer from tally_id_seq);
    return v_risen;
end $$;
comment on function advance_marks() is 'Advance the marks below which claims and folds need not look.';

-- 30_spawn.sql

-- Spawn tasks: a body and a place for each, in the caller's own transaction.

create type _spawn as (
    ordinal      integer,
    id           uuid,
    queue_id     integer,
    executor_id  integer,
    params       jsonb,
    fresh        boolean,
    priority     integer,
    run_at       timestamptz,
    key          text,
    depends_on   uuid[],
    headers      jsonb,
    tags         text[],
    max_attempts integer,
    timeout      interval,
    retry        jsonb,
    needs        jsonb
);

-- One option as a number within bounds; AB001 names the option and its value.
create function _option_number(p_options jsonb, p_name text, p_low double precision, p_high double precision,
                               p_whole boolean default false)
    returns double precision
    language plpgsql immutable
    as $$
declare
    v_value jsonb := p_options -> p_name;
begin
    if v_value is null or v_value = 'null' then
        return null;
    end if;
    if jsonb_typeof(v_value) <> 'number' or not (v_value::double precision between p_low and p_high) then
        raise exception 'option % is %; it must be a number from % to %', p_name, left(v_value::text, 100), p_low, p_high
            using errcode = 'AB001';
    end if;
    if p_whole and v_value::numeric % 1 <> 0 then
        raise exception 'option % is %; it must be a whole number', p_name, left(v_value::text, 100) using errcode = 'AB001';
    end if;
    return v_value::double precision;
end $$;

-- One option as a value of the wanted JSON type; AB001 names the option and its value.
create function _option(p_options jsonb, p_name text, p_type text) returns jsonb
    language plpgsql immutable
    as $$
declare
    v_value jsonb := p_options -> p_name;
begin
    if v_value is null or v_value = 'null' then
        return null;
    end if;
    if jsonb_typeof(v_value) <> p_type then
        raise exception 'option % is %; it must be a JSON %', p_name, left(v_value::text, 100), p_type
            using errcode = 'AB001';
    end if;
    return v_value;
end $$;

-- Options of one task, checked.  Unknown keys are refused, so that a typing error is never a lost wish.
create function _read_options(p_spawn _spawn, p_options jsonb) returns _spawn
    language plpgsql stable
    as $$
declare
    v_unknown text;
    v_text    text;
begin
    if jsonb_typeof(p_options) <> 'object' then
        raise exception 'options are %; they must be a JSON object', left(p_options::text, 100) using errcode = 'AB001';
    end if;
    select string_agg(k, ', ') into v_unknown from jsonb_object_keys(p_options) k
    where k <> all (array['id', 'priority', 'delay', 'run_at', 'key', 'depends_on', 'headers', 'tags',
                          'max_attempts', 'timeout', 'retry', 'needs']);
    if v_unknown is not null then
        raise exception 'unknown option %; known are priority, delay, run_at, key, depends_on, headers, tags, max_attempts, timeout, retry, needs',
            v_unknown using errcode = 'AB001';
    end if;
    p_spawn.priority := coalesce(_option_number(p_options, 'priority', -10000, 10000, true), 0);
    p_spawn.max_attempts := _option_number(p_options, 'max_attempts', 0, 32767, true);
    p_spawn.timeout := make_interval(secs => _option_number(p_options, 'timeout', 0.001, 31536000));
    p_spawn.key := _option(p_options, 'key', 'string') #>> '{}';
    p_spawn.headers := _option(p_options, 'headers', 'object');
    p_spawn.retry := _option(p_options, 'retry', 'object');
    p_spawn.needs := _option(p_options, 'needs', 'object');
    for v_text in select unnest(array['tags', 'depends_on']) loop
        if exists (select from jsonb_array_elements(coalesce(_option(p_options, v_text, 'array'), '[]')) e
                   where jsonb_typeof(e) <> 'string') then
            raise exception 'option % is %; it must be a list of strings', v_text, left((p_options -> v_text)::text, 100)
                using errcode = 'AB001';
        end if;
    end loop;
    if length(p_spawn.key) not between 1 and 1000 then
        raise exception 'option key has % characters; it must have 1 to 1000', length(p_spawn.key) using errcode = 'AB001';
    end if;
    if _option(p_options, 'tags', 'array') is not null then
        p_spawn.tags := array(select jsonb_array_elements_text(p_options -> 'tags'));
    end if;
    if _option(p_options, 'run_at', 'string') is not null then
        if coalesce(p_options -> 'delay', 'null') <> 'null' then
            raise exception 'options delay and run_at exclude each other' using errcode = 'AB001';
        end if;
        v_text := p_options ->> 'run_at';
        begin
            if v_text !~ '\d(Z|[+-]\d\d(:?\d\d)?)$' then
                raise exception 'no zone';
            end if;
            p_spawn.run_at := v_text::timestamptz;
        exception when others then
            raise exception 'option run_at is %; it must be a time with its zone', quote_literal(left(v_text, 100))
                using errcode = 'AB001';
        end;
        if not isfinite(p_spawn.run_at) then
            raise exception 'option run_at is %; it must be finite', v_text using errcode = 'AB001';
        end if;
    else
        p_spawn.run_at := clock_time() + make_interval(secs => nullif(_option_number(p_options, 'delay', 0, 315360000), 0));
    end if;
    if _option(p_options, 'depends_on', 'array') is not null then
        begin
            p_spawn.depends_on := array(
                select distinct t::uuid from jsonb_array_elements_text(p_options -> 'depends_on') t order by 1);
        exception when invalid_text_representation then
            raise exception 'option depends_on is %; it must be a list of task ids', left((p_options -> 'depends_on')::text, 100)
                using errcode = 'AB001';
        end;
        p_spawn.depends_on := nullif(p_spawn.depends_on, '{}');
    end if;
    return p_spawn;
end $$;

-- Spawn many tasks at once.  The arrays run in parallel; options may be null, as a whole or for one
-- task.  Ids are UUIDv7 made by the caller, so that a spawn repeated after a lost answer is the
-- same spawn.  All or nothing.  Returns one row for each task, in order: the id it has (that of the
-- first task when its key was taken) and whether this call created it.
-- Raises AB001, AB007, AB008.  Touches queue, executor, task, task_key, edge, late, ready, timer, blocked, level, tally.
create function spawn_tasks(p_ids uuid[], p_queues text[], p_names text[], p_params jsonb[], p_options jsonb[] default null)
    returns table (ordinal integer, task_id uuid, created boolean)
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_count  integer := coalesce(cardinality(p_ids), 0);
    v_now    timestamptz := clock_time();
    v_lowest  uuid := _id_floor(v_now - interval '1 day');
    v_highest uuid := _id_floor(v_now + interval '1 day');
    v_specs  _spawn[];
begin
    if v_count = 0 then
        return;
    end if;
    if v_count is distinct from cardinality(p_queues) or v_count is distinct from cardinality(p_names)
       or v_count is distinct from cardinality(p_params) or v_count <> coalesce(cardinality(p_options), v_count) then
        raise exception 'the arrays of spawn_tasks differ in length' using errcode = 'AB001';
    end if;
    if exists (select from unnest(p_ids) i where i is null or i not between v_lowest and v_highest) then
        raise exception 'a task id is not a UUIDv7 of the last or next day by the database''s clock' using errcode = 'AB001';
    end if;

    if p_options is null or array_remove(p_options, null) = '{}' then
        return query select * from _spawn_plain(p_ids, p_queues, p_names, p_params, v_now);
        return;
    end if;
    v_specs := _insert_bodies(_take_keys(_spawn_specs(p_ids, p_queues, p_names, p_params, p_options)), v_now);
    perform _insert_edges(v_specs);
    perform _place(v_specs, v_now);
    return query select s.ordinal, s.id, s.fresh from unnest(v_specs) s;
end $$;
comment on function spawn_tasks(uuid[], text[], text[], jsonb[], jsonb[]) is
    'Spawn many tasks, all or nothing; one row each: its id and whether this call created it.';

create function spawn_task(p_queue text, p_name text, p_params jsonb, p_options jsonb default null)
    returns table (task_id uuid, created boolean)
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_id uuid;
begin
    begin
        v_id := coalesce((p_options ->> 'id')::uuid, new_task_id());
    exception when invalid_text_representation then
        raise exception 'option id is %; it must be a UUIDv7', left((p_options -> 'id')::text, 100) using errcode = 'AB001';
    end;
    return query select s.task_id, s.created
        from spawn_tasks(array[v_id], array[p_queue], array[p_name], array[p_params],
                         case when p_options is not null then array[p_options] end) s;
end $$;
comment on function spawn_task(text, text, jsonb, jsonb) is
    'Spawn one task; options: priority, delay, run_at, key, depends_on, headers, tags, max_attempts, timeout, retry, needs, id.';

-- Tasks without options: bodies and ready rows, nothing else.
create function _spawn_plain(p_ids uuid[], p_queues text[], p_names text[], p_params jsonb[], p_now timestamptz)
    returns table (ordinal integer, task_id uuid, created boolean)
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_queue_ids    integer[];
    v_executor_ids integer[];
    v_new          uuid[];
begin
    if p_queues[1] = all (p_queues) and p_names[1] = all (p_names) then
        v_queue_ids := array_fill(_queue_id(p_queues[1]), array[cardinality(p_ids)]);
        v_executor_ids := array_fill(_executor_id(p_names[1]), array[cardinality(p_ids)]);
    else
        v_queue_ids := array(select _queue_id(q) from unnest(p_queues) with ordinality as u (q, n) order by n);
        v_executor_ids := array(select _executor_id(e) from unnest(p_names) with ordinality as u (e, n) order by n);
    end if;
    begin
        insert into task (id, created_at, queue_id, executor_id, params)
            select id, p_now, queue_id, executor_id, coalesce(params, '{}')
            from unnest(p_ids, v_queue_ids, v_executor_ids, p_params) as u (id, queue_id, executor_id, params);
        v_new := p_ids;
    exception when unique_violation then
        -- Some of it came before.  Tried second, because on conflict costs a third more.
        with inserted as (
            insert into task (id, created_at, queue_id, executor_id, params)
            select id, p_now, queue_id, executor_id, coalesce(params, '{}')
            from unnest(p_ids, v_queue_ids, v_executor_ids, p_params) as u (id, queue_id, executor_id, params)
            on conflict do nothing returning id)
        select coalesce(array_agg(id), '{}') into v_new from inserted;
    end;
    -- An id that exists already is the same spawn come again: it has its place.
    insert into ready (task_id, queue_id, level, attempt)
        select id, queue_id, 0, 1 from unnest(p_ids, v_queue_ids) as u (id, queue_id)
        where cardinality(v_new) = cardinality(p_ids) or id = any (v_new);
    insert into tally (queue_id, pending)
        select queue_id, count(*) from unnest(p_ids, v_queue_ids) as u (id, queue_id)
        where cardinality(v_new) = cardinality(p_ids) or id = any (v_new) group by queue_id;
    perform _use_level(u.queue_id, 0) from (select distinct unnest(v_queue_ids) as queue_id) u;
    perform _wake(v_queue_ids);
    return query select n::integer, id, cardinality(v_new) = cardinality(p_ids) or id = any (v_new)
        from unnest(p_ids) with ordinality as u (id, n);
end $$;

-- The arrays as rows, names turned into ids, options read.
create function _spawn_specs(p_ids uuid[], p_queues text[], p_names text[], p_params jsonb[], p_options jsonb[])
    returns _spawn[]
    language plpgsql
    as $$
declare
    v_specs _spawn[];
begin
    v_specs := array(
        select row(n, i, _queue_id(queue), _executor_id(name), coalesce(p, '{}'), true, 0,
                   null, null, null, null, null, null, null, null, null)::_spawn
        from unnest(p_ids, p_queues, p_names, p_params) with ordinality as u (i, queue, name, p, n) order by n);
    return array(
        select case when p_options[s.ordinal] is null then s else _read_options(s, p_options[s.ordinal]) end
        from unnest(v_specs) s order by s.ordinal);
end $$;

-- Claim idempotency keys.  A spec whose key is taken becomes the task that took it first.
create function _take_keys(p_specs _spawn[]) returns _spawn[]
    language plpgsql
    as $$
#variable_conflict use_column
begin
    if not exists (select from unnest(p_specs) s where s.key is not null) then
        return p_specs;
    end if;
    -- In key order: two calls with the same keys wait for one another instead of deadlocking.
    insert into task_key (queue_id, key, task_id)
        select distinct on (queue_id, key) queue_id, key, id from unnest(p_specs)
        where key is not null order by queue_id, key, ordinal
        on conflict do nothing;
    -- In a new statement, which sees the rows that other sessions committed while we waited.
    return array(
        select row(s.ordinal, coalesce(k.task_id, s.id), s.queue_id, s.executor_id, s.params,
                   k.task_id is null or (k.task_id = s.id and not exists (select from task t where t.id = s.id)),
                   s.priority, s.run_at, s.key, s.depends_on, s.headers, s.tags, s.max_attempts, s.timeout, s.retry, s.needs)::_spawn
        from unnest(p_specs) s left join task_key k on k.queue_id = s.queue_id and k.key = s.key
        order by s.ordinal);
end $$;

-- Insert the bodies.  An id that exists already is the same spawn come again: not fresh.
create function _insert_bodies(p_specs _spawn[], p_now timestamptz) returns _spawn[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_new   uuid[];
begin
    with inserted as (
        insert into task (id, created_at, queue_id, executor_id, priority, max_attempts, timeout, run_at, params,
                          headers, tags, key, depends_on, retry, needs)
        select id, p_now, queue_id, executor_id, priority, max_attempts, timeout, run_at, params,
               headers, tags, key, depends_on, retry, needs
        from unnest(p_specs) where fresh
        on conflict do nothing
        returning id)
    select coalesce(array_agg(id), '{}') into v_new from inserted;
    if cardinality(v_new) = cardinality(p_specs) then
        return p_specs;
    end if;
    return array(
        select row(s.ordinal, s.id, s.queue_id, s.executor_id, s.params, s.fresh and s.id = any (v_new), s.priority, s.run_at, s.key,
                   s.depends_on, s.headers, s.tags, s.max_attempts, s.timeout, s.retry, s.needs)::_spawn
        from unnest(p_specs) s order by s.ordinal);
end $$;

-- Note who waits for whom.  Parents must exist; within one call they stand before their children,
-- so that no cycle can be written down.
create function _insert_edges(p_specs _spawn[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_bad record;
begin
    if not exists (select from unnest(p_specs) s where s.fresh and s.depends_on is not null) then
        return;
    end if;
    select s.id as child, d.parent, t.id is not null as known into v_bad
    from unnest(p_specs) s cross join unnest(s.depends_on) d (parent)
    left join task t on t.id = d.parent
    left join unnest(p_specs) sibling on sibling.id = d.parent
    where s.fresh and (t.id is null or sibling.ordinal >= s.ordinal)
    limit 1;
    if found then
        raise exception '%', case when not v_bad.known then format('depends_on names %s, which is no task', v_bad.parent)
                                  else format('depends_on of %s names %s, which does not come before it', v_bad.child, v_bad.parent) end
            using errcode = 'AB008';
    end if;
    insert into edge (parent_id, child_id)
        select d.parent, s.id from unnest(p_specs) s cross join unnest(s.depends_on) d (parent)
        where s.fresh;
    -- A parent that existed before may be ending right now, unseen by us and not seeing us.
    insert into late (child_id)
        select s.id from unnest(p_specs) s
        where s.fresh and s.depends_on is not null
          and exists (select from unnest(s.depends_on) d (parent)
                      where not exists (select from unnest(p_specs) sibling where sibling.fresh and sibling.id = d.parent));
    if found then
        perform pg_notify(current_schema() || '_ready', '');
    end if;
end $$;

-- Give every fresh task its place, count it, and wake who waits for it.
create function _place(p_specs _spawn[], p_now timestamptz) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_queues integer[];
begin
    insert into ready (task_id, queue_id, level, attempt)
        select id, queue_id, 2 * priority, 1 from unnest(p_specs)
        where fresh and depends_on is null and (run_at is null or run_at <= p_now);
    if found then
        select array_agg(distinct queue_id) into v_queues from unnest(p_specs)
        where fresh and depends_on is null and (run_at is null or run_at <= p_now);
    end if;
    insert into timer (task_id, wake_at, queue_id, level, attempt, reason)
        select id, run_at, queue_id, 2 * priority, 1, 'delay' from unnest(p_specs)
        where fresh and depends_on is null and run_at > p_now;
    insert into blocked (task_id, queue_id, level, remaining, run_at)
        select id, queue_id, 2 * priority, cardinality(depends_on), run_at from unnest(p_specs)
        where fresh and depends_on is not null;
    perform _use_level(l.queue_id, l.level)
        from (select distinct queue_id, 2 * priority as level from unnest(p_specs) where fresh order by 1, 2) l;
    insert into tally (queue_id, blocked, pending, sleeping)
        select queue_id, count(*) filter (where depends_on is not null),
               count(*) filter (where depends_on is null and (run_at is null or run_at <= p_now)),
               count(*) filter (where depends_on is null and run_at > p_now)
        from unnest(p_specs) where fresh group by queue_id;
    perform _wake(v_queues);
end $$;

-- 31_claim.sql

-- Hand runs to a worker, with a lease on the batch.

-- What few tasks have, as one JSON text; null for the others.
create function _details(p_task task) returns text
    language plpgsql stable
    as $$
begin
    if p_task.headers is null and p_task.tags is null and p_task.timeout is null and p_task.max_attempts is null
       and p_task.retry is null and p_task.depends_on is null and p_task.needs is null then
        return null;
    end if;
    return jsonb_strip_nulls(jsonb_build_object(
        'headers', p_task.headers, 'tags', p_task.tags, 'timeout', extract(epoch from p_task.timeout),
        'max_attempts', p_task.max_attempts, 'retry', p_task.retry, 'needs', p_task.needs,
        'parents', _parent_results(p_task.depends_on)));
end $$;

-- One statement takes the rows and writes the lease.  It is safe at READ COMMITTED: the inner select
-- runs once, its rows are visible to the statement's snapshot (so vacuum cannot free their ctid) and
-- locked (so nobody else moves them).  Split over two statements it would not be.
-- Levels are walked from the highest; each is read from the caller's mark up, which skips the dead
-- entries of what was claimed before, or from its base mark where the caller names none.
-- A lease that exists already is a claim whose answer was lost: its runs are given again.
-- Returns one row of parallel arrays, ordered as the runs should start; null when nothing was claimed.
create function claim_runs(
    p_lease bigint, p_queue_id integer, p_wanted integer, p_levels integer[], p_marks bigint[],
    out task_ids uuid[], out attempts smallint[], out levels integer[], out seqs bigint[],
    out executor_ids integer[], out params text[], out details text[])
    language plpgsql security definer
    set search_path from current set enable_seqscan = off set jit = off set enable_hashjoin = off set enable_mergejoin = off
    as $$
#variable_conflict use_column
declare
    v_now timestamptz := clock_time();
begin
    perform _require_read_committed();
    if exists (select from lease where id = p_lease) then
        select l.task_ids, l.attempts into task_ids, attempts from lease l where l.id = p_lease;
        levels := array_fill(0, array[cardinality(task_ids)]);
        seqs := array_fill(0::bigint, array[cardinality(task_ids)]);
    elsif p_wanted > 0 and exists (select from queue where id = p_queue_id and paused_at is null)
          and exists (select from worker where id = lease_worker(p_lease) and state in ('running', 'stopping')) then
        with taken as (
            delete from ready
            where ctid = any (array(
                select r.ctid
                from (select l.level, coalesce(known.mark, l.base) as mark
                      from level l left join unnest(p_levels, p_marks) as known (level, mark) on known.level = l.level
                      where l.queue_id = p_queue_id order by l.level desc) m
                cross join lateral (
                    select ctid from ready
                    where queue_id = p_queue_id and level = m.level and seq >= m.mark
                    order by seq limit p_wanted
                    for update skip locked) r
                limit p_wanted))
            returning task_id, attempt, level, seq),
        ordered as materialized (select * from taken order by level desc, seq),
        leased as (
            insert into lease (id, claimed_at, queue_id, task_ids, attempts)
            select p_lease, v_now, p_queue_id, array_agg(task_id), array_agg(attempt) from ordered having count(*) > 0)
        select array_agg(o.task_id), array_agg(o.attempt), array_agg(o.level), array_agg(o.seq)
        into task_ids, attempts, levels, seqs from ordered o;
        if task_ids is not null then
            insert into tally (queue_id, pending, running)
            values (p_queue_id, -cardinality(task_ids), cardinality(task_ids));
        end if;
    end if;
    if task_ids is not null then
        -- Bounded by the lowest and highest id, so that only their partitions are opened.
        select array_agg(b.executor_id), array_agg(b.params), array_agg(b.details)
        into executor_ids, params, details
        from (select t.executor_id, t.params::text as params, _details(t) as details
              from unnest(task_ids) with ordinality as wanted (id, n)
              join task t on t.id = wanted.id
              order by n) b;
    end if;
end $$;
comment on function claim_runs(bigint, integer, integer, integer[], bigint[]) is
    'Claim up to p_wanted runs of a queue under one lease; one row of parallel arrays.';

-- Results of completed parents, by task id.
create function _parent_results(p_parents uuid[]) returns jsonb
    language sql stable
    as $$
        select jsonb_object_agg(r.task_id, r.result)
        from run r
        where r.task_id = any (p_parents) and r.state = 'completed'
          and r.finished_at >= (select min(_id_time(p)) - interval '1 day' from unnest(p_parents) p)
    $$;

-- Close finished runs and claim the next in one round trip: what a busy worker does all day.
create function step(
    p_leases bigint[], p_tasks uuid[], p_ages integer[], p_results text[],
    p_lease bigint, p_queue_id integer, p_wanted integer, p_levels integer[], p_marks bigint[],
    out stale uuid[], out task_ids uuid[], out attempts smallint[], out levels integer[], out seqs bigint[],
    out executor_ids integer[], out params text[], out details text[])
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
begin
    if cardinality(p_tasks) > 0 then
        stale := complete_runs(p_leases, p_tasks, p_ages, p_results);
    end if;
    select c.task_ids, c.attempts, c.levels, c.seqs, c.executor_ids, c.params, c.details
    into task_ids, attempts, levels, seqs, executor_ids, params, details
    from claim_runs(p_lease, p_queue_id, p_wanted, p_levels, p_marks) c;
end $$;
comment on function step(bigint[], uuid[], integer[], text[], bigint, integer, integer, integer[], bigint[]) is
    'complete_runs and claim_runs in one round trip.';

-- 32_complete.sql

-- Close runs.  Every outcome names its lease and its task: what is no longer held under that lease
-- changes nothing and comes back as stale, the rest of the batch is kept.

-- Take tasks out of their leases: the fence that every outcome passes.  A lease loses the reported
-- tasks and keeps its id; reported whole, it goes.  Returns what was held.
-- Leases are locked in id order.
create function _take_claims(p_leases bigint[], p_tasks uuid[])
    returns table (n integer, task_id uuid, attempt smallint, lease_id bigint, queue_id integer, claimed_at timestamptz)
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_group record;
    v_lease lease;
begin
    for v_group in
        select l as id, array_agg(t order by o) as tasks, array_agg(o::integer order by o) as places
        from unnest(p_leases, p_tasks) with ordinality as u (l, t, o) group by l order by l
    loop
        select * into v_lease from lease where id = v_group.id for update;
        continue when not found;
        if v_lease.task_ids = v_group.tasks then  -- the whole batch, in order: the common case
            delete from lease where id = v_group.id;
            return query select unnest(v_group.places), unnest(v_lease.task_ids), unnest(v_lease.attempts),
                                v_lease.id, v_lease.queue_id, v_lease.claimed_at;
        else
            if v_lease.task_ids <@ v_group.tasks then
                delete from lease where id = v_group.id;
            else
                update lease set (task_ids, attempts) = (
                    select array_agg(h.task order by h.o), array_agg(h.attempt order by h.o)
                    from unnest(v_lease.task_ids, v_lease.attempts) with ordinality as h (task, attempt, o)
                    where h.task <> all (v_group.tasks))
                where id = v_group.id;
            end if;
            return query
                select g.place, h.task, h.attempt, v_lease.id, v_lease.queue_id, v_lease.claimed_at
                from unnest(v_lease.task_ids, v_lease.attempts) as h (task, attempt)
                join unnest(v_group.tasks, v_group.places) as g (task, place) on g.task = h.task;
        end if;
    end loop;
end $$;

create type _held as (
    n integer, task_id uuid, attempt smallint, lease_id bigint, queue_id integer, claimed_at timestamptz);

-- What was reported and not held.  A report that arrived before and is repeated after a lost answer
-- is not stale: its run stands in the history under the same lease, ended the same way.
create function _stale(p_leases bigint[], p_tasks uuid[], p_held _held[], p_state run_state) returns uuid[]
    language plpgsql
    as $$
#variable_conflict use_column
begin
    if cardinality(p_held) = cardinality(p_tasks) then
        return null;
    end if;
    return nullif(array(
        select u.task from unnest(p_leases, p_tasks) as u (lease, task)
        where not exists (select from unnest(p_held) h where h.task_id = u.task and h.lease_id = u.lease)
          and not exists (select from run r where r.task_id = u.task and r.lease_id = u.lease and r.state = p_state)), '{}');
end $$;

-- Completed runs with their results (JSON texts, null for none) and, for those that published
-- files, artifacts: [{task, path, attempt_path, kind, sha256, bytes}].  Ages are milliseconds since
-- the start, so that the worker's clock never enters.  Returns the stale tasks, null when there are none.
-- Touches lease, run, artifact, tally; then edge, blocked, ready for the dependents; waiter.
create function complete_runs(
    p_leases bigint[], p_tasks uuid[], p_ages integer[], p_results text[], p_artifacts jsonb default null) returns uuid[]
    language plpgsql security definer
    set search_path from current set enable_seqscan = off set jit = off set enable_hashjoin = off set enable_mergejoin = off
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_held _held[];
begin
    perform _require_read_committed();
    v_held := array(select row(h.*)::_held from _take_claims(p_leases, p_tasks) h);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, result)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'completed', h.attempt, true,
               p_results[h.n]::jsonb
        from unnest(v_held) h;
    insert into tally (queue_id, running, completed)
        select queue_id, -count(*), count(*) from unnest(v_held) group by queue_id;
    if p_artifacts is not null then
        insert into artifact (task_id, path, attempt, attempt_path, kind, sha256, bytes, completed_at)
            select h.task_id, a.path, h.attempt, a.attempt_path, a.kind, a.sha256, a.bytes, v_now
            from jsonb_to_recordset(p_artifacts)
                as a (task uuid, path text, attempt_path text, kind text, sha256 text, bytes bigint)
            join unnest(v_held) h on h.task_id = a.task
            on conflict (task_id, path) do update
                set (attempt, attempt_path, kind, sha256, bytes, completed_at, published_at)
                  = (excluded.attempt, excluded.attempt_path, excluded.kind, excluded.sha256, excluded.bytes, v_now, null);
    end if;
    perform _settle(array(select h.task_id from unnest(v_held) h), true);
    return _stale(p_leases, p_tasks, v_held, 'completed');
end $$;
comment on function complete_runs(bigint[], uuid[], integer[], text[], jsonb) is
    'Close completed runs; their results, artifacts and dependents in one transaction. Returns the stale ones.';

-- Files of a task that a crash may have left under the attempt's own name.
create function get_publications(p_task uuid)
    returns table (path text, attempt_path text, attempt smallint)
    language sql stable security definer set search_path from current
    as $$ select path, attempt_path, attempt from artifact where task_id = p_task and published_at is null $$;
comment on function get_publications(uuid) is 'Artifacts of a completed task that are not yet known to be renamed.';

-- Artifacts that should have been renamed long ago: the worker that completed them has died meanwhile.
create function get_overdue_publications(p_seconds double precision default 10, p_limit integer default 100)
    returns table (task_id uuid, path text, attempt_path text, attempt smallint)
    language sql stable security definer set search_path from current
    as $$
        select task_id, path, attempt_path, attempt from artifact
        where published_at is null and completed_at < clock_time() - make_interval(secs => p_seconds)
        order by completed_at limit p_limit
    $$;
comment on function get_overdue_publications(double precision, integer) is 'Artifacts whose renaming a crash has interrupted.';

-- An attempt's rename was done.  A later attempt of a task run anew is not touched by an earlier
-- one's word.  Who waits for the task is told again: its files are now in place.
create function mark_published(p_task uuid, p_path text, p_attempt_path text) returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    update artifact set published_at = clock_time()
    where task_id = p_task and path = p_path and attempt_path = p_attempt_path and published_at is null;
    if not exists (select from artifact where task_id = p_task and published_at is null) then
        perform pg_notify(current_schema() || '_ended', w.task_id::text) from waiter w where w.task_id = p_task;
    end if;
end $$;
comment on function mark_published(uuid, text, text) is 'Note that an artifact stands under its final name.';

-- 33_fail.sql

-- Runs that end otherwise than well: failed, suspended, handed back, cancelled by themselves.
-- All pass the same fence as completions (_take_claims) and return the stale tasks.

-- Put tasks whose claim was just taken into their next place: at the tail of their level when due,
-- else to sleep.  p_ahead: ahead of their priority instead (handed back, recovered).
create function _requeue(p_tasks uuid[], p_attempts integer[], p_wake_at timestamptz[], p_reasons text[], p_ahead boolean) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_now    timestamptz := clock_time();
    v_queues integer[];
begin
    with item as materialized (
        select u.task, u.attempt, u.wake_at, coalesce(u.reason, 'retry') as reason, t.queue_id,
               2 * t.priority + p_ahead::integer as level
        from unnest(p_tasks, p_attempts, p_wake_at, p_reasons) with ordinality as u (task, attempt, wake_at, reason, n)
        join task t on t.id = u.task order by n),
    readied as (
        insert into ready (task_id, queue_id, level, attempt)
        select task, queue_id, level, attempt from item where wake_at is null or wake_at <= v_now
        returning queue_id, level),
    slept as (
        insert into timer (task_id, wake_at, queue_id, level, attempt, reason)
        select task, wake_at, queue_id, level, attempt, reason from item where wake_at > v_now),
    counted as (
        insert into tally (queue_id, running, pending, sleeping)
        select queue_id, -count(*), count(*) filter (where wake_at is null or wake_at <= v_now), count(*) filter (where wake_at > v_now)
        from item group by queue_id)
    select array_agg(distinct queue_id) into v_queues from readied;
    if p_ahead then
        perform _use_level(l.queue_id, l.level)
            from (select distinct t.queue_id, 2 * t.priority + 1 as level from task t where t.id = any (p_tasks) order by 1, 2) l;
    end if;
    perform _wake(v_queues);
end $$;

-- Failed runs.  A delay in seconds asks for another attempt after it; null ends the task: it goes
-- to the dead letters (unless p_dead_letters is false) and its dependents end as `upstream`.
create function fail_runs(
    p_leases bigint[], p_tasks uuid[], p_ages integer[], p_errors text[], p_delays double precision[],
    p_dead_letters boolean default true) returns uuid[]
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_held _held[];
begin
    perform _require_read_committed();
    v_held := array(select row(h.*)::_held from _take_claims(p_leases, p_tasks) h order by h.task_id);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'failed', h.attempt,
               p_delays[h.n] is null, p_errors[h.n]::jsonb
        from unnest(v_held) h;
    perform _requeue(array_agg(h.task_id), array_agg(h.attempt + 1), array_agg(v_now + make_interval(secs => p_delays[h.n])),
                     array_agg('retry'::text), false)
        from unnest(v_held) h where p_delays[h.n] is not null having count(*) > 0;
    perform _bury(array(select row(h.*)::_held from unnest(v_held) h where p_delays[h.n] is null),
                  array(select p_errors[h.n]::jsonb from unnest(v_held) h where p_delays[h.n] is null), p_dead_letters);
    return _stale(p_leases, p_tasks, v_held, 'failed');
end $$;
comment on function fail_runs(bigint[], uuid[], integer[], text[], double precision[], boolean) is
    'Close failed runs: next attempt after a delay, or dead letter. Returns the stale ones.';

-- End tasks whose last run has failed.
create function _bury(p_held _held[], p_errors jsonb[], p_dead_letters boolean) returns void
    language plpgsql
    as $$
#variable_conflict use_column
begin
    if cardinality(p_held) = 0 then
        return;
    end if;
    if p_dead_letters then
        insert into dead_letter (task_id, died_at, queue_id, executor_id, attempts, error, body)
            select t.id, clock_time(), t.queue_id, t.executor_id, h.attempt, p_errors[o], to_jsonb(t)
            from unnest(p_held) with ordinality as h (n, task_id, attempt, lease_id, queue_id, claimed_at, o)
            join task t on t.id = h.task_id
            on conflict (task_id) do nothing;
    end if;
    insert into tally (queue_id, running, failed)
        select queue_id, -count(*), count(*) from unnest(p_held) group by queue_id;
    perform _settle(array(select h.task_id from unnest(p_held) h), false);
end $$;

-- Runs that went to sleep (a delay in seconds) or to wait for an event (with a delay as its
-- time-out, or null for ever).  No attempt is spent.
create function suspend_runs(
    p_leases bigint[], p_tasks uuid[], p_ages integer[], p_delays double precision[], p_reasons text[], p_events text[])
    returns uuid[]
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_held _held[];
begin
    perform _require_read_committed();
    -- Before anything else, and in name order: emit_event takes the same lock.
    perform pg_advisory_xact_lock(hashtextextended(current_schema() || '.event.' || e, 0))
        from (select distinct e from unnest(p_events) e where e is not null order by e) named;
    v_held := array(select row(h.*)::_held from _take_claims(p_leases, p_tasks) h order by h.task_id);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'suspended', h.attempt, false,
               jsonb_build_object('code', 'suspended', 'type', 'suspended', 'message', p_reasons[h.n])
        from unnest(v_held) h;
    perform _requeue(array_agg(h.task_id), array_agg(h.attempt::integer),
                     array_agg(coalesce(v_now + make_interval(secs => p_delays[h.n]),
                                        case when p_events[h.n] is not null then timestamptz 'infinity' end)),
                     array_agg(p_reasons[h.n]), false)
        from unnest(v_held) h having count(*) > 0;
    insert into wait (task_id, event)
        select h.task_id, p_events[h.n] from unnest(v_held) h where p_events[h.n] is not null
        on conflict (task_id) do update set event = excluded.event;
    perform _wake_waiting(e.name, e.payload)
        from event e where e.name = any (p_events);
    return _stale(p_leases, p_tasks, v_held, 'suspended');
end $$;
comment on function suspend_runs(bigint[], uuid[], integer[], double precision[], text[], text[]) is
    'Put running tasks to sleep until a time or an event; no attempt is spent. Returns the stale ones.';

-- Runs handed back unfinished.  An age of null tells that the run never started: it leaves no trace.
create function return_runs(p_leases bigint[], p_tasks uuid[], p_ages integer[]) returns uuid[]
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_held _held[];
begin
    perform _require_read_committed();
    v_held := array(select row(h.*)::_held from _take_claims(p_leases, p_tasks) h order by h.n);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'returned', h.attempt, false,
               jsonb_build_object('code', 'returned', 'type', 'returned', 'message', 'handed back by its worker')
        from unnest(v_held) h where p_ages[h.n] is not null;
    perform _requeue(array_agg(h.task_id), array_agg(h.attempt::integer), array_agg(null::timestamptz), array_agg(null::text), true)
        from unnest(v_held) h having count(*) > 0;
    return _stale(p_leases, p_tasks, v_held, 'returned');
end $$;
comment on function return_runs(bigint[], uuid[], integer[]) is
    'Hand claimed runs back, attempts intact, ahead of their priority. Returns the stale ones.';

-- Runs whose executor asked to cancel its own task.
create function cancel_runs(p_leases bigint[], p_tasks uuid[], p_ages integer[], p_reasons text[]) returns uuid[]
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_held _held[];
begin
    perform _require_read_committed();
    v_held := array(select row(h.*)::_held from _take_claims(p_leases, p_tasks) h order by h.task_id);
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, greatest(h.claimed_at, v_now - p_ages[h.n] * interval '1 ms'), v_now, h.lease_id, 'cancelled', h.attempt, true,
               _cancellation(p_reasons[h.n])
        from unnest(v_held) h;
    insert into tally (queue_id, running, cancelled)
        select queue_id, -count(*), count(*) from unnest(v_held) group by queue_id;
    perform _settle(array(select h.task_id from unnest(v_held) h), false);
    return _stale(p_leases, p_tasks, v_held, 'cancelled');
end $$;
comment on function cancel_runs(bigint[], uuid[], integer[], text[]) is
    'Close runs whose executor cancelled its task. Returns the stale ones.';

-- 34_workers.sql

-- Workers and their leases: a worker's heartbeat keeps all it holds.

create function register_worker(
    p_name text, p_host text, p_pid integer, p_queues text[], p_concurrency integer,
    p_versions jsonb, p_offers jsonb, p_lease_seconds double precision) returns integer
    language plpgsql security definer set search_path from current
    as $$
declare
    v_id integer;
begin
    perform _queue_id(q) from unnest(p_queues) q;
    insert into worker (name, host, pid, queues, concurrency, versions, offers, lease_seconds, started_at, last_seen)
    values (p_name, p_host, p_pid, p_queues, p_concurrency, p_versions, p_offers, p_lease_seconds, clock_time(), clock_time())
    returning id into v_id;
    return v_id;
end $$;
comment on function register_worker(text, text, integer, text[], integer, jsonb, jsonb, double precision) is
    'Announce a worker; returns its number, the high half of its lease ids.';

-- What a worker can run.  Tasks that were put aside because nobody knew their executor wake up.
create function register_executors(p_executors jsonb) returns void
    language plpgsql security definer set search_path from current
    as $$
declare
    v_each record;
begin
    for v_each in
        select * from jsonb_to_recordset(p_executors)
            as e (name text, queue text, runs_in text, description text, max_attempts smallint, retry jsonb,
                  timeout double precision, params_schema jsonb)
        order by name
    loop
        perform _executor_id(v_each.name);
        update executor
        set (queue, runs_in, description, max_attempts, retry, timeout, params_schema, registered_at)
          = (v_each.queue, v_each.runs_in, v_each.description, v_each.max_attempts, v_each.retry,
             make_interval(secs => v_each.timeout), v_each.params_schema, clock_time())
        where name = v_each.name;
    end loop;
    update timer set wake_at = clock_time()
    where reason = 'no_executor' and task_id = any (array(
        select t.task_id from timer t join task b on b.id = t.task_id join executor x on x.id = b.executor_id
        where t.reason = 'no_executor' and x.name in (select e.name from jsonb_to_recordset(p_executors) as e (name text))
        order by t.task_id for update of t skip locked));
end $$;
comment on function register_executors(jsonb) is 'Tell what a worker can run: [{name, queue, runs_in, description, ...}].';

-- Sign of life.  Returns what the worker still holds, so that it learns what was taken from it;
-- leases it does not list and that are older than its lease time were never heard of by it (the
-- answer to its claim was lost): they go back, attempts intact.
-- Raises AB002 when the worker was given up meanwhile.
create function beat(p_worker integer, p_leases bigint[], p_state text default 'running')
    returns table (lease_id bigint, task_id uuid)
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_worker worker;
    v_lost   lease;
begin
    perform _require_read_committed();
    update worker set last_seen = clock_time(), state = p_state
    where id = p_worker and state in ('running', 'stopping') returning * into v_worker;
    if not found then
        raise exception 'worker % was given up: it did not answer for longer than its lease', p_worker using errcode = 'AB002';
    end if;
    for v_lost in
        select * from lease
        where id >= p_worker::bigint << 32 and id < (p_worker + 1)::bigint << 32 and id <> all (p_leases)
          and claimed_at < clock_time() - make_interval(secs => v_worker.lease_seconds)
        order by id for update
    loop
        delete from lease where id = v_lost.id;
        perform _requeue(v_lost.task_ids, v_lost.attempts::integer[], array_fill(null::timestamptz, array[cardinality(v_lost.task_ids)]),
                         null, true);
    end loop;
    return query
        select l.id, t from lease l cross join unnest(l.task_ids) t
        where l.id = any (p_leases) and lease_worker(l.id) = p_worker;
end $$;
comment on function beat(integer, bigint[], text) is 'A worker''s sign of life; returns what it still holds.';

-- A worker that leaves in good order.  What it still holds goes back, attempts intact.
create function unregister_worker(p_worker integer) returns void
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_lease lease;
begin
    perform _require_read_committed();
    -- The worker's row before its leases, as recover_runs does.
    update worker set state = 'stopped', last_seen = clock_time()
    where id = p_worker and state in ('running', 'stopping');
    delete from listener where worker_id = p_worker;
    for v_lease in
        select * from lease where id >= p_worker::bigint << 32 and id < (p_worker + 1)::bigint << 32 order by id for update
    loop
        delete from lease where id = v_lease.id;
        perform _requeue(v_lease.task_ids, v_lease.attempts::integer[],
                         array_fill(null::timestamptz, array[cardinality(v_lease.task_ids)]), null, true);
    end loop;
end $$;
comment on function unregister_worker(integer) is 'A worker leaves; what it still holds goes back.';

-- Say whether a worker is idle.  It then claims once more before it listens: a spawn that looked
-- before this committed has not notified it.
create function set_listening(p_worker integer, p_queue_ids integer[], p_listening boolean) returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    if p_listening then
        insert into listener (queue_id, worker_id) select q, p_worker from unnest(p_queue_ids) q on conflict do nothing;
    else
        delete from listener where worker_id = p_worker and queue_id = any (p_queue_ids);
    end if;
end $$;
comment on function set_listening(integer, integer[], boolean) is 'An idle worker wants to be notified of what becomes claimable.';

-- Is this claim still held?  Raises AB002 when not.  The row is locked: what the caller writes next
-- in this transaction cannot outlive the claim.
create function check_claim(p_lease bigint, p_task uuid) returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    perform _require_read_committed();
    perform from lease where id = p_lease and p_task = any (task_ids) for share;
    if not found then
        raise exception 'the claim on task % is lost: its lease ended or the task was cancelled', p_task using errcode = 'AB002';
    end if;
end $$;
comment on function check_claim(bigint, uuid) is 'Raise AB002 unless the task is still held under this lease.';

-- Names and ids a worker needs to read its claims.
create function get_names() returns table (kind text, id integer, name text)
    language sql stable security definer set search_path from current
    as $$
        select 'queue', id, name from queue
        union all select 'executor', id, name from executor
    $$;
comment on function get_names() is 'Ids of queues and executors, as claims carry them.';

-- 35_cancel.sql

-- Cancel a task in any state; retry one that has ended.

-- The state in which a task ended, by its last run.
create function _end_state(p_task uuid) returns text
    language sql stable
    as $$
        select case when r.state = 'lost' then 'failed' else r.state::text end
        from run r
        where r.task_id = p_task and r.finished_at >= _id_time(p_task) - interval '1 day' and r.ends
        order by r.finished_at desc limit 1
    $$;

-- Where a task stands, in one statement; null for an id that was never a task.
create function get_state(p_task uuid) returns text
    language sql stable security definer set search_path from current
    as $$
        select coalesce(
            (select 'pending' from ready where task_id = p_task),
            (select 'running' from lease where p_task = any (task_ids)),
            (select 'sleeping' from timer where task_id = p_task),
            (select 'blocked' from blocked where task_id = p_task),
            _end_state(p_task))
    $$;
comment on function get_state(uuid) is 'The state of a task, null for an unknown id.';

create function get_states(p_tasks uuid[]) returns table (task_id uuid, state text)
    language sql stable security definer set search_path from current
    as $$ select t, get_state(t) from unnest(p_tasks) t $$;
comment on function get_states(uuid[]) is 'States of several tasks; null for unknown ids.';

-- Cancel a task and all that waits for it.  What runs is taken from its lease at once, so that
-- nothing it reports from now on counts, and its worker is told to stop it.  A task that has ended
-- stays as it is.  Returns the state afterwards.  Raises AB003.
create function cancel_task(p_task uuid, p_reason text default null) returns text
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_now   timestamptz := clock_time();
    v_state text;
    v_lease lease;
    v_place record;
begin
    perform _require_read_committed();
    perform from task where id = p_task for update;
    if not found then
        raise exception 'there is no task %', coalesce(p_task::text, 'null') using errcode = 'AB003';
    end if;
    -- A row that moves between the look and the lock is looked for again.
    for i in 1..100 loop
        v_state := get_state(p_task);
        case v_state
        when 'running' then
            select * into v_lease from lease where p_task = any (task_ids) for update;
            continue when not found or p_task <> all (v_lease.task_ids);
            select h.attempt, h.claimed_at, h.lease_id, h.queue_id into v_place from _take_claims(array[v_lease.id], array[p_task]) h;
            insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
            values (p_task, v_place.claimed_at, v_now, v_place.lease_id, 'cancelled', v_place.attempt, true, _cancellation(p_reason));
            insert into tally (queue_id, running, cancelled) values (v_place.queue_id, -1, 1);
            perform pg_notify(current_schema() || '_lease', v_lease.id::text);
            perform _settle(array[p_task], false);
        when 'pending' then
            delete from ready where task_id = p_task returning queue_id, attempt into v_place;
            continue when not found;
            insert into run (task_id, finished_at, state, attempt, ends, error)
            values (p_task, v_now, 'cancelled', v_place.attempt, true, _cancellation(p_reason));
            insert into tally (queue_id, pending, cancelled) values (v_place.queue_id, -1, 1);
            perform _settle(array[p_task], false);
        when 'sleeping' then
            delete from timer where task_id = p_task returning queue_id, attempt into v_place;
            continue when not found;
            delete from wait where task_id = p_task;
            insert into run (task_id, finished_at, state, attempt, ends, error)
            values (p_task, v_now, 'cancelled', v_place.attempt, true, _cancellation(p_reason));
            insert into tally (queue_id, sleeping, cancelled) values (v_place.queue_id, -1, 1);
            perform _settle(array[p_task], false);
        when 'blocked' then
            continue when p_task <> all (coalesce(_cancel_blocked(array[p_task], p_task, p_reason), '{}'));
        when 'completed', 'failed', 'cancelled' then
            return v_state;
        else
            continue;  -- between two places of an uncommitted move
        end case;
        insert into audit (at, task_id, action, detail) values (v_now, p_task, 'cancel', p_reason);
        return 'cancelled';
    end loop;
    raise exception 'task % moves too fast to be cancelled; try again', p_task using errcode = 'AB004';
end $$;
comment on function cancel_task(uuid, text) is 'Cancel a task and its dependents; returns the state afterwards.';

-- Give a task that has ended one more attempt, in place: same id, history kept.
-- Raises AB003, AB004.
create function retry_task(p_task uuid) returns text
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_task    task;
    v_state   text;
    v_attempt integer;
begin
    perform _require_read_committed();
    -- The lock first, then the look: two retries of one task would else make two rows.
    select * into v_task from task where id = p_task for update;
    if not found then
        raise exception 'there is no task %', coalesce(p_task::text, 'null') using errcode = 'AB003';
    end if;
    v_state := get_state(p_task);
    if v_state is null or v_state not in ('completed', 'failed', 'cancelled') then
        raise exception 'task % is %; only a task that has ended can be retried', p_task, coalesce(v_state, 'moving') using errcode = 'AB004';
    end if;
    -- A run that was cancelled before it started has used no attempt.
    select max(r.attempt + (r.started_at is not null)::integer) into v_attempt
        from run r where r.task_id = p_task and r.finished_at >= _id_time(p_task) - interval '1 day';
    delete from dead_letter where task_id = p_task;
    delete from edge where child_id = p_task;
    insert into ready (task_id, queue_id, level, attempt) values (p_task, v_task.queue_id, 2 * v_task.priority, v_attempt);
    insert into tally (queue_id, pending, completed, failed, cancelled)
    values (v_task.queue_id, 1, -(v_state = 'completed')::integer, -(v_state = 'failed')::integer, -(v_state = 'cancelled')::integer);
    insert into audit (at, task_id, action, detail) values (clock_time(), p_task, 'retry', 'was ' || v_state);
    perform _restore_children(p_task);
    -- Children still blocked may have counted it off already: sweep_late counts them anew.
    insert into late (child_id)
        select b.task_id from edge e join blocked b on b.task_id = e.child_id where e.parent_id = p_task
        on conflict do nothing;
    if found then
        perform pg_notify(current_schema() || '_ready', '');
    end if;
    perform _wake(array[v_task.queue_id]);
    return 'pending';
end $$;
comment on function retry_task(uuid) is 'Give an ended task one more attempt; its descendants that ended as upstream wait again.';

-- Descendants that were cancelled only because this task could not complete wait for it again.
create function _restore_children(p_task uuid) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_children uuid[];
begin
    v_children := array(
        with recursive down (id) as (
            select e.child_id from edge e where e.parent_id = p_task
            union
            select e.child_id from down d join edge e on e.parent_id = d.id)
        select d.id from down d where _ended_upstream(d.id) order by d.id);
    if cardinality(v_children) = 0 then
        return;
    end if;
    perform from task where id = any (v_children) order by id for update;
    insert into blocked (task_id, queue_id, level, attempt, remaining, run_at)
        select t.id, t.queue_id, 2 * t.priority, 1, cardinality(t.depends_on), t.run_at
        from task t where t.id = any (v_children) and _ended_upstream(t.id);
    insert into tally (queue_id, blocked, cancelled)
        select t.queue_id, count(*), -count(*) from task t where t.id = any (v_children) group by t.queue_id;
    -- Other parents may have ended: sweep_late counts anew.
    insert into late (child_id) select unnest(v_children) on conflict do nothing;
    perform pg_notify(current_schema() || '_ready', '');
end $$;

create function _ended_upstream(p_task uuid) returns boolean
    language sql stable
    as $$
        select not exists (select from blocked where task_id = p_task)
           and not exists (select from ready where task_id = p_task)
           and not exists (select from timer where task_id = p_task)
           and coalesce((
            select r.state = 'cancelled' and r.started_at is null and r.error ->> 'code' = 'upstream'
            from run r where r.task_id = p_task and r.ends order by r.finished_at desc limit 1), false)
    $$;

-- 36_settle.sql

-- What the end of tasks means for others: their dependents, and whoever waits for them.

-- p_completed: whether the tasks completed (else failed or cancelled).  Runs in a statement after
-- the one that wrote their runs and deleted their places, so that sweep_late and this function
-- cannot both miss an edge.
create function _settle(p_tasks uuid[], p_completed boolean) returns void
    language plpgsql
    as $$
#variable_conflict use_column
begin
    if exists (select from edge where parent_id = any (p_tasks)) then
        if p_completed then
            perform _release_children(p_tasks);
        else
            perform _cancel_blocked(array(select child_id from edge where parent_id = any (p_tasks)), null, null);
        end if;
    end if;
    perform pg_notify(current_schema() || '_ended', w.task_id::text) from waiter w where w.task_id = any (p_tasks);
end $$;

-- Count the completed parents off their children and release those that wait for nothing more.
-- Children whose count is still late are left to sweep_late, which will see these ends.
create function _release_children(p_parents uuid[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_children uuid[];
    v_free     uuid[];
begin
    v_children := array(
        select distinct e.child_id from edge e
        where e.parent_id = any (p_parents) and not exists (select from late l where l.child_id = e.child_id)
        order by e.child_id);
    -- Locked in id order first: "update ... from" promises none, and two batches would deadlock.
    perform from blocked where task_id = any (v_children) order by task_id for update;
    -- Grouped by child: joined plainly, a child of two parents in this batch would lose only one.
    v_free := array(
        select b.task_id
        from (select child_id, count(*) as ended from edge
              where parent_id = any (p_parents) and child_id = any (v_children) group by child_id) e
        join blocked b on b.task_id = e.child_id
        where b.remaining <= e.ended);
    update blocked b set remaining = b.remaining - e.ended
    from (select child_id, count(*)::integer as ended from edge
          where parent_id = any (p_parents) and child_id = any (v_children) and child_id <> all (v_free)
          group by child_id) e
    where b.task_id = e.child_id;
    perform _unblock(v_free);
end $$;

-- Move blocked tasks, already locked, to where their own start time sends them.
create function _unblock(p_tasks uuid[]) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_now    timestamptz := clock_time();
    v_queues integer[];
begin
    if cardinality(p_tasks) = 0 then
        return;
    end if;
    with freed as (
        delete from blocked where task_id = any (p_tasks) returning task_id, queue_id, level, attempt, run_at),
    slept as (
        insert into timer (task_id, wake_at, queue_id, level, attempt, reason)
        select task_id, run_at, queue_id, level, attempt, 'delay' from freed where run_at > v_now),
    readied as (
        insert into ready (task_id, queue_id, level, attempt)
        select task_id, queue_id, level, attempt from freed where run_at is null or run_at <= v_now order by task_id
        returning queue_id),
    counted as (
        insert into tally (queue_id, blocked, sleeping, pending)
        select queue_id, -count(*), count(*) filter (where run_at > v_now), count(*) filter (where run_at is null or run_at <= v_now)
        from freed group by queue_id)
    select array_agg(distinct queue_id) into v_queues from readied;
    perform _wake(v_queues);
end $$;

-- Cancel blocked tasks and all that depends on them; p_root, if it is among them, for p_reason, the
-- others as "upstream".  The closure is read first without locks, then locked once in id order: level
-- by level two overlapping cancels deadlock even though each level is sorted.
create function _cancel_blocked(p_tasks uuid[], p_root uuid, p_reason text) returns uuid[]
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_closure   uuid[];
    v_cancelled uuid[];
    v_now       timestamptz := clock_time();
begin
    v_closure := array(
        with recursive down (id) as (
            select unnest(p_tasks)
            union
            select e.child_id from down d join edge e on e.parent_id = d.id)
        select id from down order by id);
    perform from blocked where task_id = any (v_closure) order by task_id for update;
    with gone as (
        delete from blocked where task_id = any (v_closure) returning task_id, queue_id, attempt),
    written as (
        insert into run (task_id, finished_at, state, attempt, ends, error)
        select task_id, v_now, 'cancelled', attempt, true,
               case when task_id = p_root then _cancellation(p_reason)
                    else '{"code": "upstream", "type": "cancelled", "message": "upstream"}' end
        from gone),
    counted as (
        insert into tally (queue_id, blocked, cancelled) select queue_id, -count(*), count(*) from gone group by queue_id)
    select array_agg(task_id) into v_cancelled from gone;
    delete from late where child_id = any (v_cancelled);
    perform pg_notify(current_schema() || '_ended', w.task_id::text) from waiter w where w.task_id = any (v_cancelled);
    return v_cancelled;
end $$;

create function _cancellation(p_reason text) returns jsonb
    language sql immutable
    as $$ select jsonb_build_object('code', 'cancelled', 'type', 'cancelled', 'message', coalesce(p_reason, 'by request')) $$;

-- 37_checkpoints.sql

-- Steps that a run saves, and what it tells of its progress; both fenced by the claim.

create function get_checkpoints(p_task uuid) returns table (name text, value jsonb)
    language sql stable security definer set search_path from current
    as $$ select name, value from checkpoint where task_id = p_task $$;
comment on function get_checkpoints(uuid) is 'Saved steps of a task.';

create function set_checkpoint(p_lease bigint, p_task uuid, p_name text, p_value jsonb) returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    perform check_claim(p_lease, p_task);
    insert into checkpoint (task_id, name, value, created_at) values (p_task, p_name, p_value, clock_time())
    on conflict (task_id, name) do update set value = excluded.value, created_at = excluded.created_at;
end $$;
comment on function set_checkpoint(bigint, uuid, text, jsonb) is 'Save a step. Raises AB002 when the claim is lost.';

create function set_progress(p_lease bigint, p_task uuid, p_done double precision, p_total double precision, p_message text)
    returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    perform check_claim(p_lease, p_task);
    insert into progress (task_id, done, total, message, updated_at) values (p_task, p_done, p_total, p_message, clock_time())
    on conflict (task_id) do update
        set (done, total, message, updated_at) = (excluded.done, excluded.total, excluded.message, excluded.updated_at);
end $$;
comment on function set_progress(bigint, uuid, double precision, double precision, text) is
    'Tell how far a run is. Raises AB002 when the claim is lost.';

-- 38_events.sql

-- Events: the first emission of a name wins, and wakes whoever waits for it.

-- Waiting and emitting take one lock per name, so that neither can miss the other: without it an
-- emission would not see the uncommitted wait, nor the wait the uncommitted emission.
create function emit_event(p_name text, p_payload jsonb default null) returns boolean
    language plpgsql security definer set search_path from current
    as $$
begin
    if p_name is null or length(p_name) not between 1 and 500 then
        raise exception 'event name has % characters; it must have 1 to 500', coalesce(length(p_name), 0) using errcode = 'AB007';
    end if;
    perform _require_read_committed();
    perform pg_advisory_xact_lock(hashtextextended(current_schema() || '.event.' || p_name, 0));
    insert into event (name, payload, emitted_at) values (p_name, p_payload, clock_time()) on conflict do nothing;
    if not found then
        return false;
    end if;
    perform _wake_waiting(p_name, p_payload);
    return true;
end $$;
comment on function emit_event(text, jsonb) is 'Emit an event; false when it was emitted before (nothing changes then).';

-- Wake the tasks that wait for an event; each finds the payload as a checkpoint.
create function _wake_waiting(p_event text, p_payload jsonb) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_tasks  uuid[];
    v_queues integer[];
begin
    v_tasks := array(select t.task_id from timer t join wait w using (task_id) where w.event = p_event
                     order by t.task_id for update of t);
    if cardinality(v_tasks) = 0 then
        return;
    end if;
    delete from wait where task_id = any (v_tasks);
    insert into checkpoint (task_id, name, value, created_at)
        select t, 'event:' || p_event, jsonb_build_object('payload', p_payload), clock_time() from unnest(v_tasks) t
        on conflict (task_id, name) do nothing;
    with woken as (delete from timer where task_id = any (v_tasks) returning task_id, queue_id, level, attempt),
    readied as (
        insert into ready (task_id, queue_id, level, attempt) select task_id, queue_id, level, attempt from woken),
    counted as (
        insert into tally (queue_id, sleeping, pending) select queue_id, -count(*), count(*) from woken group by queue_id)
    select array_agg(distinct queue_id) into v_queues from woken;
    perform _wake(v_queues);
end $$;

-- Have the end of tasks notified on channel <schema>_ended, for an hour.
create function await_tasks(p_tasks uuid[]) returns void
    language sql volatile security definer set search_path from current
    as $$
        insert into waiter (task_id, expires_at)
        select distinct t, clock_time() + interval '1 hour' from unnest(p_tasks) t
        where exists (select from task where id = t) order by 1
        on conflict (task_id) do update set expires_at = excluded.expires_at
    $$;
comment on function await_tasks(uuid[]) is 'Ask that the end of these tasks be notified.';

-- 39_late.sql

-- Children spawned on parents that existed already.
--
-- Such a parent may be ending while its child is spawned: the completion does not see the edge, the
-- spawn does not see the end, and the child would wait for ever.  So the spawn only notes the child
-- in `late`, and after its commit this sweep takes the count: it locks the places where the parents
-- stand (their ends delete those places first), and reads in a new statement.  Returns how many
-- children were counted; those with a parent in motion are left for the next sweep.
create function sweep_late(p_limit integer default 500) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_children uuid[];
    v_parents  uuid[];
    v_ready    uuid[];
    v_dead     uuid[];
    v_counted  uuid[];
begin
    perform _require_read_committed();
    v_children := array(select child_id from late order by child_id limit p_limit for update skip locked);
    if cardinality(v_children) = 0 then
        return 0;
    end if;
    v_parents := array(select distinct parent_id from edge where child_id = any (v_children));
    -- The lock order of the house: leases by id, ready and timer by task, blocked by task.
    perform from lease where task_ids && v_parents order by id for share;
    perform from ready where task_id = any (v_parents) order by task_id for share;
    perform from timer where task_id = any (v_parents) order by task_id for share;
    perform from blocked where task_id = any (v_parents || v_children) order by task_id for update;

    with parent as materialized (
        select e.child_id, coalesce(get_state(e.parent_id), 'moving') as state from edge e where e.child_id = any (v_children)),
    child as (
        select c.id as child_id,
               coalesce(bool_or(p.state = 'moving'), false) as moving,
               coalesce(bool_or(p.state in ('failed', 'cancelled')), false) as dead,
               count(p.state) filter (where p.state not in ('completed', 'failed', 'cancelled')) as remaining
        from unnest(v_children) c (id) left join parent p on p.child_id = c.id group by c.id),
    updated as (
        update blocked b set remaining = c.remaining from child c
        where b.task_id = c.child_id and not c.moving and not c.dead and c.remaining > 0)
    select array_agg(child_id) filter (where not moving),
           array_agg(child_id) filter (where not moving and not dead and remaining = 0),
           array_agg(child_id) filter (where not moving and dead)
    into v_counted, v_ready, v_dead from child;

    delete from late where child_id = any (v_counted);
    perform _unblock(coalesce(v_ready, '{}'));
    if v_dead is not null then
        perform _cancel_blocked(v_dead, null, null);
    end if;
    return coalesce(cardinality(v_counted), 0);
end $$;
comment on function sweep_late(integer) is 'Count the parents of children that were spawned on existing tasks.';

-- 60_maintenance.sql

-- What keeps the queue going beside spawning and claiming.  Anybody may call these at any time, from
-- any number of processes: one does the work, the others pass by.

-- Sleepers that are due become ready.
create function promote_timers(p_limit integer default 1000) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_now    timestamptz := clock_time();
    v_tasks  uuid[];
    v_queues integer[];
begin
    with due as (
        delete from timer where ctid = any (array(
            select ctid from timer where wake_at <= v_now order by wake_at limit p_limit for update skip locked))
        returning task_id, wake_at, queue_id, level, attempt),
    readied as (
        insert into ready (task_id, queue_id, level, attempt)
        select task_id, queue_id, level, attempt from due order by wake_at),
    counted as (
        insert into tally (queue_id, sleeping, pending) select queue_id, -count(*), count(*) from due group by queue_id)
    select array_agg(task_id), array_agg(distinct queue_id) into v_tasks, v_queues from due;
    if v_tasks is null then
        return 0;
    end if;
    -- Those that waited for an event have waited long enough.
    with timed_out as (delete from wait where task_id = any (v_tasks) returning task_id, event)
    insert into checkpoint (task_id, name, value, created_at)
        select task_id, 'event:' || event, '{"timeout": true}', v_now from timed_out
        on conflict (task_id, name) do nothing;
    perform _wake(v_queues);
    return cardinality(v_tasks);
end $$;
comment on function promote_timers(integer) is 'Make due sleepers ready; returns how many.';

-- Workers that have not answered for longer than their lease are given up; what they held goes to
-- others as a new attempt, or to the dead letters when that was the last.  The zombie finds no
-- lease any more and changes nothing.  Returns how many runs were recovered.
create function recover_runs() returns integer
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_now       timestamptz := clock_time();
    v_worker    record;
    v_lease     lease;
    v_recovered integer := 0;
begin
    perform _require_read_committed();
    for v_worker in
        select id, name from worker
        where state in ('running', 'stopping') and last_seen < v_now - make_interval(secs => lease_seconds)
        order by id for update skip locked
    loop
        update worker set state = 'lost' where id = v_worker.id;
        delete from listener where worker_id = v_worker.id;
        for v_lease in
            select * from lease where id >= v_worker.id::bigint << 32 and id < (v_worker.id + 1)::bigint << 32 order by id for update
        loop
            delete from lease where id = v_lease.id;
            perform _lose_runs(v_lease, v_worker.name);
            v_recovered := v_recovered + cardinality(v_lease.task_ids);
        end loop;
    end loop;
    return v_recovered;
end $$;
comment on function recover_runs() is 'Take back the runs of workers that stopped answering; returns how many.';

create function _lose_runs(p_lease lease, p_worker text) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_time();
    v_runs _held[];
    v_last _held[];
    v_error jsonb := jsonb_build_object('code', 'worker_lost', 'type', 'WorkerLostError',
                                        'message', format('worker %s stopped answering', p_worker));
begin
    v_runs := array(
        select row(u.n, u.task, u.attempt, p_lease.id, p_lease.queue_id, p_lease.claimed_at)::_held
        from unnest(p_lease.task_ids, p_lease.attempts) with ordinality as u (task, attempt, n));
    v_last := array(
        select row(h.*)::_held from unnest(v_runs) h
        join task t on t.id = h.task_id join executor x on x.id = t.executor_id
        where h.attempt >= coalesce(t.max_attempts, x.max_attempts, 5));
    insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
        select h.task_id, h.claimed_at, v_now, h.lease_id, 'lost', h.attempt,
               exists (select from unnest(v_last) l where l.task_id = h.task_id), v_error
        from unnest(v_runs) h;
    perform _requeue(array_agg(h.task_id), array_agg(h.attempt + 1), array_agg(null::timestamptz), array_agg(null::text), true)
        from unnest(v_runs) h
        where not exists (select from unnest(v_last) l where l.task_id = h.task_id) having count(*) > 0;
    perform _bury(v_last, array_fill(v_error, array[cardinality(v_last)]), true);
end $$;

-- Fold tallies into totals.  One folder at a time; it reads from its mark, not through what it
-- deleted before.
create function fold_tallies(p_limit integer default 10000) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_base   bigint;
    v_folded integer;
begin
    if not pg_try_advisory_xact_lock(hashtext(current_schema() || '.tallies')) then
        return 0;
    end if;
    select tally_base into v_base from horizon;
    with gone as (
        delete from tally where id = any (array(select id from tally where id >= v_base order by id limit p_limit)) returning *),
    summed as (
        select queue_id, sum(blocked) as blocked, sum(pending) as pending, sum(sleeping) as sleeping, sum(running) as running,
               sum(completed) as completed, sum(failed) as failed, sum(cancelled) as cancelled, count(*) as n
        from gone group by queue_id),
    added as (
        update total t
        set (blocked, pending, sleeping, running, completed, failed, cancelled)
          = (t.blocked + s.blocked, t.pending + s.pending, t.sleeping + s.sleeping, t.running + s.running,
             t.completed + s.completed, t.failed + s.failed, t.cancelled + s.cancelled)
        from summed s where t.queue_id = s.queue_id)
    select coalesce(sum(n), 0) into v_folded from summed;
    return v_folded;
end $$;
comment on function fold_tallies(integer) is 'Fold appended counts into totals; returns how many rows.';

-- The regular round of a worker or scheduler.  What it returns: how much was done, whether late
-- children wait for sweep_late (which needs a transaction of its own), and in how many seconds the
-- next sleeper is due (null: none).
create function maintain() returns jsonb
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_recovered integer := recover_runs();
    v_promoted  integer := promote_timers();
    v_folded    integer := fold_tallies();
    v_next      timestamptz;
begin
    perform ensure_partitions();
    delete from waiter where expires_at < clock_time();
    select wake_at into v_next from timer order by wake_at limit 1;
    return jsonb_build_object(
        'recovered', v_recovered, 'promoted', v_promoted, 'folded', v_folded,
        'late', exists (select from late),
        'next_wake_seconds', case when isfinite(v_next) then greatest(0, extract(epoch from v_next - clock_time())) end);
end $$;
comment on function maintain() is 'Recover lost runs, wake due sleepers, fold counts, make partitions.';

-- 90_views.sql

-- Every read the command line and the interfaces make.

create type queue_stats as (
    blocked bigint, pending bigint, sleeping bigint, running bigint, completed bigint, failed bigint, cancelled bigint);

-- Counts of all queues: totals and what is not folded yet, read in one statement.
create function _counts() returns table (queue_id integer, stats queue_stats)
    language sql stable
    set enable_seqscan = off set jit = off
    as $$
        select c.queue_id, row(sum(blocked), sum(pending), sum(sleeping), sum(running), sum(completed), sum(failed), sum(cancelled))::queue_stats
        from (select * from total
              union all
              select queue_id, blocked, pending, sleeping, running, completed, failed, cancelled
              from tally where id >= (select tally_base from horizon)) c
        group by c.queue_id
    $$;

create function get_queue_stats(p_queue text) returns queue_stats
    language plpgsql stable security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_id    integer := _known_queue_id(p_queue);
    v_stats queue_stats;
begin
    select (c.stats).* into v_stats from _counts() c where c.queue_id = v_id;
    return v_stats;
end $$;
comment on function get_queue_stats(text) is 'How many tasks of a queue are in each state; its cost does not depend on how many there are.';

create function list_queues()
    returns table (name text, paused boolean, blocked bigint, pending bigint, sleeping bigint, running bigint,
                   completed bigint, failed bigint, cancelled bigint, oldest_pending_seconds double precision)
    language sql volatile security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
        select q.name, q.paused_at is not null, (c.stats).*,
               extract(epoch from clock_time() - oldest.created_at)::double precision
        from queue q join _counts() c on c.queue_id = q.id
        left join lateral (
            select min(t.created_at) as created_at
            from level l
            cross join lateral (select r.task_id from ready r where r.queue_id = l.queue_id and r.level = l.level and r.seq >= l.base
                                order by r.seq limit 1) first
            join task t on t.id = first.task_id
            where l.queue_id = q.id) oldest on true
        order by q.name
    $$;
comment on function list_queues() is 'Queues with their counts and the age of their oldest pending task.';

create function list_workers(p_all boolean default false)
    returns table (id integer, name text, host text, pid integer, state text, queues text[], concurrency integer, running integer,
                   started_at timestamptz, last_seen timestamptz)
    language sql stable security definer set search_path from current
    as $$
        select id, name, host, pid, state, queues, concurrency,
               (select coalesce(sum(cardinality(l.task_ids)), 0)::integer from lease l
                where l.id >= w.id::bigint << 32 and l.id < (w.id + 1)::bigint << 32),
               started_at, last_seen
        from worker w
        where state in ('running', 'stopping') or p_all or (state = 'lost' and last_seen > clock_time() - interval '1 hour')
        order by id
    $$;
comment on function list_workers(boolean) is 'Workers that are alive, and those lost within the hour; with p_all all that ever were.';

create function list_executors()
    returns table (name text, queue text, runs_in text, description text, max_attempts smallint, timeout double precision,
                   params_schema jsonb, registered_at timestamptz)
    language sql stable security definer set search_path from current
    as $$
        select name, queue, runs_in, description, max_attempts, extract(epoch from timeout)::double precision, params_schema, registered_at
        from executor where registered_at is not null order by name
    $$;
comment on function list_executors() is 'Executors that workers have registered.';

create function get_task(p_task uuid) returns jsonb
    language plpgsql stable security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_task  task;
    v_state text;
    v_last  run;
    v_lease lease;
    v_runs  jsonb;
    v_timer timer;
begin
    select * into v_task from task where id = p_task;
    if not found then
        return null;
    end if;
    -- A stable function sees one snapshot: state, place and history agree.
    v_state := get_state(p_task);
    select * into v_lease from lease where p_task = any (task_ids);
    select * into v_timer from timer where task_id = p_task;
    select * into v_last from run
        where task_id = p_task and finished_at >= _id_time(p_task) - interval '1 day' order by finished_at desc limit 1;
    select coalesce(jsonb_agg(to_jsonb(r) order by r.finished_at nulls last), '[]') into v_runs from (
        select attempt, state::text, (select w.name from worker w where w.id = lease_worker(lease_id)) as worker,
               started_at, finished_at, error
        from run where task_id = p_task and finished_at >= _id_time(p_task) - interval '1 day'
        union all
        select v_lease.attempts[array_position(v_lease.task_ids, p_task)], 'running',
               (select w.name from worker w where w.id = lease_worker(v_lease.id)), v_lease.claimed_at, null, null
        where v_lease.id is not null) r;
    return jsonb_build_object(
        'id', v_task.id,
        'queue', (select name from queue where id = v_task.queue_id),
        'name', (select name from executor where id = v_task.executor_id),
        'state', v_state,
        'priority', v_task.priority,
        'params', v_task.params,
        'headers', coalesce(v_task.headers, '{}'),
        'tags', coalesce(to_jsonb(v_task.tags), '[]'),
        'key', v_task.key,
        'workflow_id', v_task.workflow_id,
        'depends_on', coalesce(to_jsonb(v_task.depends_on), '[]'),
        'attempts', (select count(distinct (r ->> 'attempt')) from jsonb_array_elements(v_runs) r where r -> 'started_at' <> 'null'),
        'max_attempts', v_task.max_attempts,
        'timeout', extract(epoch from v_task.timeout),
        'created_at', v_task.created_at,
        'run_at', case when v_timer.task_id is null then v_task.run_at when isfinite(v_timer.wake_at) then v_timer.wake_at end,
        'started_at', (select min(started_at) from jsonb_to_recordset(v_runs) as r (started_at timestamptz)),
        'finished_at', case when v_state in ('completed', 'failed', 'cancelled') then v_last.finished_at end,
        'result', case when v_state = 'completed' then v_last.result end,
        'error', case when v_state = 'failed' then v_last.error
                      when v_state in ('pending', 'sleeping', 'running') and v_last.state in ('failed', 'lost') then v_last.error end,
        'reason', case when v_state = 'cancelled' then v_last.error ->> 'message' else v_timer.reason end,
        'progress', (select jsonb_build_object('done', done, 'total', total, 'message', message, 'updated_at', updated_at)
                     from progress where task_id = p_task),
        'runs', v_runs,
        'artifacts', (select coalesce(jsonb_agg(jsonb_build_object('path', path, 'kind', kind, 'sha256', sha256, 'bytes', bytes)
                                                order by path), '[]') from artifact where task_id = p_task),
        'history', (select coalesce(jsonb_agg(jsonb_build_object('at', at, 'action', action, 'actor', actor, 'detail', detail)
                                              order by at), '[]') from audit where task_id = p_task));
end $$;
comment on function get_task(uuid) is 'Everything about a task as one document; null for an unknown id.';

-- Tasks, newest first, from below p_after.  Null means any.
create function list_tasks(p_queue text default null, p_state text default null, p_name text default null, p_tag text default null,
                           p_after uuid default null, p_limit integer default 50)
    returns setof jsonb
    language plpgsql stable security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_queue    integer := case when p_queue is not null then _known_queue_id(p_queue) end;
    v_executor integer := (select id from executor where name = p_name);
    v_places   text := case p_state
        when 'pending' then 'select task_id as id from ready'
        when 'sleeping' then 'select task_id as id from timer'
        when 'blocked' then 'select task_id as id from blocked'
        when 'running' then 'select unnest(task_ids) as id from lease'
        when 'completed' then 'select task_id as id from run where ends and state = ''completed'''
        when 'failed' then 'select task_id as id from run where ends and state <> ''completed'' and state in (''failed'', ''lost'')'
        when 'cancelled' then 'select task_id as id from run where ends and state <> ''completed'' and state = ''cancelled'''
        else 'select id from task' end;
begin
    if p_state is not null and p_state not in ('blocked', 'pending', 'sleeping', 'running', 'completed', 'failed', 'cancelled') then
        raise exception 'state % is unknown; it must be blocked, pending, sleeping, running, completed, failed or cancelled',
            quote_literal(p_state) using errcode = 'AB001';
    end if;
    if p_name is not null and v_executor is null then
        return;
    end if;
    return query execute format($q$
        select jsonb_build_object('id', t.id, 'queue', q.name, 'name', x.name, 'state', s.state, 'priority', t.priority,
                                  'attempts', (select count(distinct r.attempt) from run r where r.task_id = t.id and r.started_at is not null),
                                  'created_at', t.created_at, 'tags', coalesce(to_jsonb(t.tags), '[]'))
        from (select distinct id from (%s) p where $1 is null or id < $1 order by id desc) p
        join task t on t.id = p.id
        join queue q on q.id = t.queue_id
        join executor x on x.id = t.executor_id
        cross join lateral (select get_state(t.id) as state) s
        where ($2 is null or t.queue_id = $2) and ($3 is null or t.executor_id = $3) and ($4 is null or $4 = any (t.tags))
          and ($5 is null or s.state = $5)
        order by t.id desc limit $6 $q$, v_places)
    using p_after, v_queue, v_executor, p_tag, p_state, least(greatest(p_limit, 1), 1000);
end $$;
comment on function list_tasks(text, text, text, text, uuid, integer) is
    'Tasks, newest first, filtered; p_after is the last id of the page before.';

-- What a task waits for, in a sentence; null for an unknown id.
create function task_why(p_task uuid) returns text
    language plpgsql stable security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_task  jsonb := get_task(p_task);
    v_text  text;
    v_count bigint;
begin
    if v_task is null then
        return null;
    end if;
    case v_task ->> 'state'
    when 'blocked' then
        select string_agg(format('%s (%s)', e.parent_id, coalesce(get_state(e.parent_id), 'moving')), ', ' order by e.parent_id), count(*)
        into v_text, v_count
        from edge e where e.child_id = p_task and get_state(e.parent_id) is distinct from 'completed';
        return format('It waits for %s of its parents to complete: %s.', v_count, v_text);
    when 'sleeping' then
        select w.event into v_text from wait w where w.task_id = p_task;
        return case
            when v_text is not null then format('It waits for the event %s.', quote_literal(v_text))
            when v_task ->> 'reason' = 'no_executor' then
                format('No worker that has claimed it knows the executor %s; start one with the module that defines it.', v_task ->> 'name')
            when v_task ->> 'reason' = 'retry' then format('Its last attempt failed; the next is due at %s.', v_task ->> 'run_at')
            else format('It sleeps (%s) until %s.', v_task ->> 'reason', v_task ->> 'run_at') end;
    when 'pending' then
        if exists (select from queue where name = v_task ->> 'queue' and paused_at is not null) then
            return format('Its queue %s is paused; `absurd queue resume %s` lets it go on.', v_task ->> 'queue', v_task ->> 'queue');
        end if;
        if not exists (select from worker where state = 'running' and v_task ->> 'queue' = any (queues)) then
            return format('No worker serves its queue %s; start one with `absurd-worker --queue %s`.', v_task ->> 'queue', v_task ->> 'queue');
        end if;
        select count(*) into v_count from (
            select from ready mine join ready r on r.queue_id = mine.queue_id
                and (r.level > mine.level or (r.level = mine.level and r.seq < mine.seq))
            where mine.task_id = p_task limit 10000) ahead;
        return format('It may be claimed now; %s tasks of its queue are ahead of it.',
                      case when v_count >= 10000 then 'at least 10000' else v_count::text end);
    when 'running' then
        return format('It runs on %s since %s.', v_task -> 'runs' -> -1 ->> 'worker', v_task -> 'runs' -> -1 ->> 'started_at');
    when 'failed' then
        return format('It failed for good: %s', v_task -> 'error' ->> 'message');
    when 'cancelled' then
        return format('It was cancelled: %s.', v_task ->> 'reason');
    else
        return format('It is %s.', v_task ->> 'state');
    end case;
end $$;
comment on function task_why(uuid) is 'What a task waits for, or how it ended, in a sentence.';

-- 91_status.sql

-- The state of the whole, with what is wrong and what to do about it; and emptying a queue.

create function _tasks(p_count bigint) returns text
    language sql immutable
    as $$ select case p_count when 1 then '1 task' else p_count || ' tasks' end $$;

create function get_status() returns jsonb
    language plpgsql volatile security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_now      timestamptz := clock_time();
    v_queues   jsonb;
    v_workers  jsonb;
    v_problems jsonb;
begin
    select coalesce(jsonb_agg(to_jsonb(q) order by q.name), '[]') into v_queues from list_queues() q;
    select coalesce(jsonb_agg(to_jsonb(w) order by w.id), '[]') into v_workers from list_workers() w;
    select coalesce(jsonb_agg(to_jsonb(p)), '[]') into v_problems from (
        select 'queue_unserved' as code,
               format('%s of queue %s pending and no worker serves it', _tasks(q.pending), q.name) as message,
               format('absurd-worker --queue %s', q.name) as action
        from list_queues() q
        where q.pending > 0 and not q.paused
          and not exists (select from worker w where w.state = 'running' and q.name = any (w.queues)
                          and w.last_seen > v_now - make_interval(secs => w.lease_seconds))
        union all
        select 'queue_paused', format('queue %s is paused with %s pending', q.name, _tasks(q.pending)),
               format('absurd queue resume %s', q.name)
        from list_queues() q where q.paused and q.pending > 0
        union all
        select 'executor_unknown', format('%s for the executor %s, which no worker knows', _tasks(count(*)), x.name),
               'absurd-worker --import MODULE'
        from (select task_id from timer where reason = 'no_executor' limit 10000) s
        join task t on t.id = s.task_id join executor x on x.id = t.executor_id group by x.name
        union all
        select 'worker_lost', format('worker %s stopped answering at %s', w.name, w.last_seen), 'absurd worker list'
        from worker w where w.state = 'lost' and w.last_seen > v_now - interval '1 hour'
        union all
        select 'dead_letters', format('%s of queue %s failed for good', _tasks(count(*)), q.name),
               format('absurd task list --state failed --queue %s', q.name)
        from dead_letter d join queue q on q.id = d.queue_id group by q.name
        union all
        select 'snapshot_held',
               format('session %s (%s) has held a transaction open for %s seconds and keeps dead rows from being removed',
                      a.pid, coalesce(nullif(a.application_name, ''), a.usename, 'unknown'), extract(epoch from v_now - a.xact_start)::integer),
               format('select pg_terminate_backend(%s)', a.pid)
        from pg_stat_activity a
        where a.datname = current_database() and a.backend_xmin is not null and a.xact_start < v_now - interval '5 minutes') p;
    return jsonb_build_object('queues', v_queues, 'workers', v_workers, 'schedules', '[]'::jsonb,
                              'dead_letters', (select count(*) from dead_letter), 'problems', v_problems);
end $$;
comment on function get_status() is 'Queues, workers, dead letters, and problems with what to do about each.';

-- Cancel all that waits in a queue.  Returns how many tasks that are (p_dry_run: would be).
create function purge_queue(p_queue text, p_dry_run boolean default false) returns bigint
    language plpgsql security definer set search_path from current
    as $$
declare
    v_id    integer := _known_queue_id(p_queue);
    v_task  uuid;
    v_count bigint := 0;
begin
    if p_dry_run then
        return (select count(*) from ready where queue_id = v_id) + (select count(*) from timer where queue_id = v_id);
    end if;
    for v_task in
        select task_id from (select task_id from ready where queue_id = v_id
                             union all select task_id from timer where queue_id = v_id) waiting order by task_id
    loop
        v_count := v_count + (cancel_task(v_task, 'purged') = 'cancelled')::integer;
    end loop;
    return v_count;
end $$;
comment on function purge_queue(text, boolean) is 'Cancel all pending and sleeping tasks of a queue.';

-- 99_privileges.sql

-- Nothing is anybody's by default; `absurd db grant` gives a role its functions.
do $$
begin
    execute format('revoke all on schema %I from public', current_schema());
    execute format('revoke all on all functions in schema %I from public', current_schema());
    execute format('revoke all on all tables in schema %I from public', current_schema());
    execute format('revoke all on all sequences in schema %I from public', current_schema());
end $$;

commit;
