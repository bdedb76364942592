-- The clock everything goes by, ids that carry its time, and what every function needs of a session.
-- Those that a spawn calls are not in SQL: a function in SQL that cannot be inlined is parsed anew by each transaction before
-- PostgreSQL 18, and the first two made up a fifth of what the server spent on a single spawn.

create or replace function clock_time() returns timestamptz
    language plpgsql stable
    as $$ begin return clock_timestamp(); end $$;
comment on function clock_time() is
    'The time all states go by. Tests replace this one function to move the clock.';

create or replace function _id_floor(p_time timestamptz) returns uuid
    language plpgsql immutable strict parallel safe
    as $$
begin
    return (lpad(to_hex(greatest(0, floor(extract(epoch from p_time) * 1000))::bigint), 12, '0') || '70008000000000000000')::uuid;
end $$;
comment on function _id_floor(timestamptz) is 'The lowest UUIDv7 (RFC 9562) of a millisecond: bounds a range of task ids by time.';

create or replace function _id_time(p_id uuid) returns timestamptz
    language sql immutable strict parallel safe
    as $$
        select to_timestamp(('x' || translate(left(p_id::text, 13), '-', ''))::bit(48)::bigint / 1000.0)
    $$;
comment on function _id_time(uuid) is 'The time in a UUIDv7.';

-- From when on the runs of a task lie, so that only their partitions are opened: an id is at most a day ahead
-- of the database's clock when it is spawned.  One that is further ahead now is from before that clock was set
-- back, and tells nothing.
create or replace function _ran_from(p_id uuid) returns timestamptz
    language sql stable
    as $$
        select case when _id_time(p_id) > clock_time() + interval '1 day' then '-infinity' else _id_time(p_id) - interval '1 day' end
    $$;

create or replace function new_task_id() returns uuid
    language plpgsql volatile parallel safe security definer set search_path from current
    as $$
begin
    return (left(translate(_id_floor(clock_timestamp())::text, '-', ''), 12) || '7'
            || substr(md5(gen_random_uuid()::text), 1, 3) || '8'
            || substr(md5(gen_random_uuid()::text), 1, 15))::uuid;
end $$;
comment on function new_task_id() is 'A UUIDv7, for callers that bring no id of their own.';

create or replace function lease_worker(p_lease bigint) returns integer
    language sql immutable strict parallel safe
    as $$ select (p_lease >> 32)::integer $$;
comment on function lease_worker(bigint) is
    'The worker that made a lease id: its number in the high half, its own count of claims in the low half.';

create or replace function _require_read_committed() returns void
    language plpgsql stable
    as $$
begin
    -- Under a stricter isolation a statement cannot see what committed since the transaction
    -- began, and every "then, in a new statement" below would silently look at the past.
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'this function runs at READ COMMITTED only, not at %',
            upper(current_setting('transaction_isolation')) using errcode = 'AB006';
    end if;
    perform _require_no_upgrade();
end $$;

-- Every function that moves tasks passes here before it touches a table.  An upgrade waits for those
-- that have passed; who comes while it lasts would go on after it with what is left of the old
-- function, on tables and helpers of the new version, and is therefore sent away to come again.
create or replace function _require_no_upgrade() returns void
    language plpgsql stable
    as $$
declare
    v_key bigint := hashtextextended('absurd.upgrade.' || current_schema(), 0);
begin
    if not pg_try_advisory_xact_lock_shared(v_key) then
        perform _await_upgrade(v_key);
        raise exception 'an upgrade of the schema came between, make the call again' using errcode = 'serialization_failure';
    end if;
end $$;

-- Come again when it has ended, but soon: it may be waiting for what this transaction holds.
create or replace function _await_upgrade(p_key bigint) returns void
    language plpgsql stable set lock_timeout = '0.5s'
    as $$
begin
    perform pg_advisory_xact_lock_shared(p_key);
exception when lock_not_available or deadlock_detected then
    return;
end $$;
