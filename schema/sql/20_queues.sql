-- Queues: make, pause, resume, purge.

-- All leases there are.  Beside an old snapshot the dead ones of a worker pile up below those it holds, so of each worker that
-- is alive the look begins at its mark; what stands between two of them is what came of claims of workers that are gone.
-- By the index always, because the table keeps the size that it once swelled to.  Planned as part of the statement that
-- calls it, which has sequential scans switched off.
create or replace function _live_leases() returns setof lease
    language sql stable
    as $$
        select l.* from (
            select (w.id::bigint << 32) + w.oldest_claim as low, coalesce(lead(w.id) over (order by w.id), 2147483647)::bigint << 32 as high
            from worker w where w.state in ('running', 'stopping')
            union all
            select 1, coalesce(min(w.id), 2147483647)::bigint << 32 from worker w where w.state in ('running', 'stopping')) r
        join lease l on l.id >= r.low and l.id < r.high
    $$;

-- The id of a queue, made at its first use.  Raises AB007 for a name that is not allowed.
create or replace function _queue_id(p_name text) returns integer
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
create or replace function _executor_id(p_name text) returns integer
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

-- Make what is missing of queues and executors, but wait for nobody who makes one: a name that another transaction is just
-- making, which may stay open for hours, is left to that.  Once it has ended the name is there, or can be made: who needs it
-- comes again.
create or replace function _make_names(p_queues text[], p_executors text[]) returns void
    language plpgsql
    as $$
begin
    perform _try_queue(q) from unnest(p_queues) q where not exists (select from queue where name = q) order by q;
    perform _try_executor(x) from unnest(p_executors) x where not exists (select from executor where name = x) order by x;
end $$;

-- The bound is for these two only: who has to read `queue` waits while a queue is being dropped.
create or replace function _try_queue(p_name text) returns void
    language plpgsql
    set lock_timeout = '20ms'
    as $$
begin
    perform _queue_id(p_name);
exception when lock_not_available then
    return;
end $$;

create or replace function _try_executor(p_name text) returns void
    language plpgsql
    set lock_timeout = '20ms'
    as $$
begin
    perform _executor_id(p_name);
exception when lock_not_available then
    return;
end $$;

-- The id of a queue that must exist.  Raises AB005.
create or replace function _known_queue_id(p_name text) returns integer
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

create or replace function create_queue(p_name text) returns boolean
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
create or replace function set_queue_paused(p_name text, p_paused boolean) returns void
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
create or replace function _wake(p_queue_ids integer[]) returns void
    language plpgsql
    as $$
begin
    if exists (select from listener where queue_id = any (p_queue_ids)) then
        perform pg_notify(current_schema() || '_ready', q.name)
        from queue q
        where q.id = any (p_queue_ids) and exists (select from listener l where l.queue_id = q.id);
    end if;
end $$;

-- Tell those who rest until something is due (maintain) that something is due at p_at, perhaps before that: they rest
-- for 30 seconds at most.  Workers that do not listen make their rounds each second, so it costs nothing while all are busy.
create or replace function _tell_due(p_at timestamptz) returns void
    language plpgsql
    as $$
begin
    if p_at < clock_time() + interval '40 seconds' and exists (select from listener) then
        perform pg_notify(current_schema() || '_due', extract(epoch from p_at)::text);
    end if;
end $$;
