-- Resources that the workers of all hosts share, and what runs hold of these and of their workers' own.

-- What of its needs a task counts against the worker that claims it: it goes with the task from place to place, and its
-- body keeps the rest.  What a worker sends to a Dask cluster takes none of its own machine; what it takes there
-- is counted there, if at all.
create or replace function _counted(p_needs jsonb) returns jsonb
    language sql immutable
    as $$ select case when p_needs ? 'dask' then p_needs - array['cpu', 'memory_gib', 'scratch_gib', 'gpu'] else p_needs end $$;

create or replace function set_resource(p_name text, p_total double precision) returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    if p_name is null or p_name !~ '^[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}$' or p_name ~ '^file:' then
        raise exception 'resource name % is not valid: 1 to 128 letters, digits or _ . : / -, no leading punctuation, and no file',
            coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB007';
    end if;
    if p_total is null or not p_total between 0 and 1e300 then
        raise exception 'the total of resource % is %; it must be a number from 0 to 1e300', p_name, coalesce(p_total::text, 'null')
            using errcode = 'AB001';
    end if;
    insert into resource (name, total) values (p_name, p_total::numeric)
        on conflict (name) do update set total = excluded.total;
    perform _wake_needy(array[p_name]);
end $$;
comment on function set_resource(text, double precision) is
    'Say how much of something the workers of all hosts share; what is held of it already counts.';

-- Afterwards the name is each worker's own again, to offer or not.
create or replace function remove_resource(p_name text) returns boolean
    language plpgsql security definer set search_path from current
    as $$
begin
    delete from resource where name = p_name;
    if not found then
        return false;
    end if;
    perform _wake_needy(array[p_name]);
    return true;
end $$;
comment on function remove_resource(text) is 'Share a resource no more; false if there is none of that name.';

-- Whether a holding counts: its lease still holds the task.
create or replace function _is_held(p_holding holding) returns boolean
    language sql stable
    as $$ select exists (select from lease l where l.id = p_holding.lease_id and p_holding.task_id = any (l.task_ids)) $$;

-- How many of the first thousand tasks of each queue that need something need this.
create or replace function _waiting_for(p_name text) returns integer
    language sql stable
    as $$
        select count(*)::integer
        from _levels() l cross join lateral (
            select r.needs from ready r
            where r.queue_id = l.queue_id and r.level = l.level and r.seq >= l.base and r.needs is not null
            order by r.seq limit 1000) n
        where n.needs ? p_name
    $$;

create or replace function list_resources()
    returns table (name text, total double precision, held double precision, tasks uuid[], waiting integer)
    language sql stable security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off set jit = off
    as $$
        select s.name, s.total::double precision, coalesce(h.held, 0)::double precision, coalesce(h.tasks, '{}'), _waiting_for(s.name)
        from resource s
        left join lateral (
            select sum(h.amount) as held, (array_agg(h.task_id order by h.lease_id, h.task_id))[1:100] as tasks
            from holding h where h.resource = s.name and _is_held(h)) h on true
        order by s.name
    $$;
comment on function list_resources() is
    'What the workers of all hosts share: how much there is, how much is held, by which tasks (100 at most), and how many wait for it (1000 at most).';

-- Tell idle workers of the queues in which something waits for one of these.
create or replace function _wake_needy(p_names text[]) returns void
    language plpgsql
    as $$
begin
    if exists (select from listener) then
        perform _wake(array(
            select q.id from queue q
            where exists (select from listener l where l.queue_id = q.id)
              and exists (
                select from _levels() l cross join lateral (
                    select r.needs from ready r
                    where r.queue_id = l.queue_id and r.level = l.level and r.seq >= l.base and r.needs is not null
                    order by r.seq limit 1000) n
                where l.queue_id = q.id and n.needs ?| p_names)));
    end if;
end $$;

-- What tasks of a lease held is free again: for their own worker, which looks anyway, and, where it is shared, for others.
create or replace function _release(p_lease bigint, p_tasks uuid[]) returns void
    language plpgsql
    as $$
declare
    v_names text[];
begin
    with gone as (delete from holding where lease_id = p_lease and task_id = any (p_tasks) returning resource)
    select array_agg(distinct g.resource) into v_names from gone g where g.resource in (select name from resource);
    if v_names is not null and current_setting('absurd.step', true) = 'on' then
        perform set_config('absurd.released', (nullif(current_setting('absurd.released', true), '')::text[] || v_names)::text, true);
    elsif v_names is not null then
        perform _wake_needy(v_names);
    end if;
end $$;

-- Tell others what a step has released, unless its own claim has it again: a line at a licence would else wake every idle
-- worker for each run.
create or replace function _pass_on(p_names text[]) returns void
    language plpgsql
    as $$
declare
    v_left text[];
begin
    select array_agg(s.name) into v_left from resource s
    where s.name = any (p_names)
      and s.total > (select coalesce(sum(h.amount), 0) from holding h where h.resource = s.name and _is_held(h));
    if v_left is not null then
        perform _wake_needy(v_left);
    end if;
end $$;

-- Forget what does not count any more: holdings of leases that are gone, notes of tasks that do not wait or of workers
-- that have left.  Nothing depends on it but that these tables stay small, so it is done every ten seconds for all workers
-- together: beside a held snapshot it walks over all that was held since.
create or replace function _sweep_holdings() returns integer
    language plpgsql
    as $$
declare
    v_names text[];
    v_swept integer;
begin
    perform from horizon where clock_time() not between swept_at and swept_at + interval '10 seconds' for update skip locked;
    if not found then
        return 0;
    end if;
    update horizon set swept_at = clock_time();
    with gone as (
        delete from holding where (lease_id, task_id, resource) in (
            select h.lease_id, h.task_id, h.resource from holding h where not _is_held(h) for update skip locked)
        returning resource)
    select array_agg(distinct resource), count(*) into v_names, v_swept from gone;
    if v_names is not null then
        perform _wake_needy(v_names);
    end if;
    delete from reservation where task_id in (
        select n.task_id from reservation n
        where not exists (select from ready r where r.task_id = n.task_id)
           or not exists (select from worker w where w.id = n.worker_id and w.state in ('running', 'stopping'))
        for update skip locked);
    delete from affinity where task_id in (
        select n.task_id from affinity n where not exists (select from ready r where r.task_id = n.task_id) for update skip locked);
    return v_swept;
end $$;
