-- Orders to workers: drain, and run so many at a time.  They stand in the worker's row and come to it with the
-- answer to its next sign of life, which it gives at once when it hears of them.

-- The state of a worker, which keeps it if it has left, once an order stands in its row.  Raises AB013.
create or replace function _ordered(p_worker integer) returns text
    language plpgsql
    as $$
declare
    v_state text;
begin
    select state into v_state from worker where id = p_worker;
    if not found then
        raise exception 'there is no worker %', p_worker using errcode = 'AB013';
    end if;
    if v_state in ('running', 'stopping') then
        perform pg_notify(current_schema() || '_lease', (p_worker::bigint << 32)::text);  -- the number of none of its leases
    end if;
    return v_state;
end $$;

-- Touches worker.  Raises AB013.
create or replace function drain_worker(p_worker integer, p_draining boolean default true) returns text
    language plpgsql security definer set search_path from current
    as $$
begin
    update worker set draining = p_draining where id = p_worker and state in ('running', 'stopping');
    return _ordered(p_worker);
end $$;
comment on function drain_worker(integer, boolean) is
    'Order a worker to claim nothing more and to leave once its runs have ended, or (false) take that back while it is there; returns its state.';

-- Touches worker.  Runs at work go on, even if they are more than that.  Raises AB001, AB013.
create or replace function set_worker_concurrency(p_worker integer, p_concurrency integer default null) returns text
    language plpgsql security definer set search_path from current
    as $$
begin
    if p_concurrency not between 1 and 10000 then
        raise exception 'concurrency is %; it must be from 1 to 10000', p_concurrency using errcode = 'AB001';
    end if;
    update worker set wanted_concurrency = p_concurrency where id = p_worker and state in ('running', 'stopping');
    return _ordered(p_worker);
end $$;
comment on function set_worker_concurrency(integer, integer) is
    'Order a worker to run so many at a time from now on, null: as it was started; returns its state.';
