-- Orders to workers: drain, and run so many at a time.  They stand in the worker's row and come to it with the
-- answer to its next sign of life, which it gives at once when it hears of them.

-- The word that makes a worker give a sign of life now: the number of none of its leases.
create or replace function _call_worker(p_worker integer) returns void
    language plpgsql
    as $$
begin
    perform pg_notify(current_schema() || '_lease', (p_worker::bigint << 32)::text);
end $$;

-- Touches worker.  What runs is not touched; a worker that has left stays as it was.  Raises AB013.
create or replace function drain_worker(p_worker integer, p_draining boolean default true) returns text
    language plpgsql security definer set search_path from current
    as $$
declare
    v_state text;
begin
    update worker set draining = p_draining
    where id = p_worker and state in ('running', 'stopping') returning state into v_state;
    if found then
        perform _call_worker(p_worker);
        return v_state;
    end if;
    select state into v_state from worker where id = p_worker;
    if not found then
        raise exception 'there is no worker %', p_worker using errcode = 'AB013';
    end if;
    return v_state;
end $$;
comment on function drain_worker(integer, boolean) is
    'Order a worker to claim nothing more and to leave once its runs have ended, or (false) take that back while it is there; returns its state.';

-- Touches worker.  Runs at work go on, even if they are more than that.  Raises AB001, and AB013 for one that has left.
create or replace function set_worker_concurrency(p_worker integer, p_concurrency integer default null) returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    if p_concurrency not between 1 and 10000 then
        raise exception 'concurrency is %; it must be from 1 to 10000', p_concurrency using errcode = 'AB001';
    end if;
    update worker set wanted_concurrency = p_concurrency where id = p_worker and state in ('running', 'stopping');
    if not found then
        raise exception 'there is no worker % at work', p_worker using errcode = 'AB013';
    end if;
    perform _call_worker(p_worker);
end $$;
comment on function set_worker_concurrency(integer, integer) is
    'Order a worker to run so many at a time from now on; null: as it was started.';
