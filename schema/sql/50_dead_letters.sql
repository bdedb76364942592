-- Dead letters: tasks whose attempts are spent, with all that tells why.

-- What failures that look alike have in common: executor, error, and message without what varies.
create or replace function _fingerprint(p_executor integer, p_error jsonb) returns text
    language sql immutable
    as $$
        select left(md5(concat_ws('|', p_executor, p_error ->> 'code', p_error ->> 'type',
                                  regexp_replace(left(p_error ->> 'message', 1000), '(0x)?[0-9a-fA-F-]*\d[0-9a-fA-F-]*', '#', 'g'))), 12)
    $$;

-- The runs of a task so far, as documents, oldest first.
create or replace function _runs_of(p_task uuid) returns jsonb
    language sql stable
    as $$
        select coalesce(jsonb_agg(jsonb_build_object(
                   'attempt', r.attempt, 'state', r.state, 'started_at', r.started_at, 'finished_at', r.finished_at,
                   'worker', (select w.name from worker w where w.id = lease_worker(r.lease_id)), 'error', r.error)
               order by r.finished_at), '[]')
        from run r where r.task_id = p_task and r.finished_at >= _ran_from(p_task)
    $$;

-- Reading ------------------------------------------------------------------------------------------

-- A filter of dead letters as the condition of a query on dead_letter d.  Unknown keys are refused:
-- a typing error in a filter would else choose everything.  Raises AB001, AB005.
create or replace function _letters_where(p_filter jsonb) returns text
    language plpgsql stable
    as $$
declare
    v_known constant text[] := array['queue', 'name', 'fingerprint', 'code', 'since', 'until', 'ids', 'text'];
    v_bad   text;
    v_where text := 'true';
begin
    if p_filter is null then
        return v_where;
    end if;
    if jsonb_typeof(p_filter) <> 'object' then
        raise exception 'the filter is %; it must be a JSON object', left(p_filter::text, 100) using errcode = 'AB001';
    end if;
    select string_agg(k, ', ') into v_bad from jsonb_object_keys(p_filter) k where k <> all (v_known);
    if v_bad is not null then
        raise exception 'unknown filter %; known are %', v_bad, array_to_string(v_known, ', ') using errcode = 'AB001';
    end if;
    if _option_text(p_filter, 'queue', 128) is not null then
        v_where := v_where || format(' and d.queue_id = %s', _known_queue_id(p_filter ->> 'queue'));
    end if;
    if _option_text(p_filter, 'name', 128) is not null then
        v_where := v_where || format(' and d.executor_id = %s',
                                     coalesce((select id from executor where name = p_filter ->> 'name'), 0));
    end if;
    if _option_text(p_filter, 'fingerprint', 100) is not null then
        v_where := v_where || format(' and d.fingerprint = %L', p_filter ->> 'fingerprint');
    end if;
    if _option_text(p_filter, 'code', 100) is not null then
        v_where := v_where || format(' and d.error ->> ''code'' = %L', p_filter ->> 'code');
    end if;
    if _option_time(p_filter, 'since') is not null then
        v_where := v_where || format(' and d.died_at >= %L::timestamptz', _option_time(p_filter, 'since'));
    end if;
    if _option_time(p_filter, 'until') is not null then
        v_where := v_where || format(' and d.died_at < %L::timestamptz', _option_time(p_filter, 'until'));
    end if;
    if _option(p_filter, 'ids', 'array') is not null then
        v_where := v_where || format(' and d.task_id = any (%L::uuid[])', coalesce(_option_ids(p_filter, 'ids'), '{}'));
    end if;
    if _option_text(p_filter, 'text', 1000) is not null then
        v_where := v_where || format(' and (strpos(lower(d.error ->> ''message''), lower(%1$L)) > 0'
                                     ' or strpos(lower(d.body ->> ''params''), lower(%1$L)) > 0)', p_filter ->> 'text');
    end if;
    return v_where;
end $$;

-- A dead letter as a row of a list.
create or replace function _letter_row(p_letter dead_letter) returns jsonb
    language sql stable
    as $$
        select jsonb_build_object(
            'id', p_letter.task_id, 'queue', (select name from queue where id = p_letter.queue_id),
            'name', (select name from executor where id = p_letter.executor_id), 'died_at', p_letter.died_at,
            'attempts', p_letter.attempts, 'fingerprint', p_letter.fingerprint, 'host', p_letter.host,
            'error', p_letter.error - 'traceback', 'created_at', p_letter.body -> 'created_at')
    $$;

-- The oldest of the p_look newest dead letters below p_after: where a look that is bounded ends.  Null: they are not so many.
create or replace function _letters_floor(p_after uuid, p_look integer) returns uuid
    language sql stable
    set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set jit = off
    as $$
        select d.task_id from dead_letter d where p_look is not null and (p_after is null or d.task_id < p_after)
        order by d.task_id desc offset greatest(p_look, 1) - 1 limit 1
    $$;

-- p_look: as in list_tasks().
create or replace function list_dead_letters(p_filter jsonb default null, p_after uuid default null, p_limit integer default 50,
                                             p_look integer default null)
    returns setof jsonb
    language plpgsql stable security definer set search_path from current
    as $$
declare
    v_limit integer := least(greatest(p_limit, 1), 1000);
    v_floor uuid := case when p_filter is not null then _letters_floor(p_after, p_look) end;
    v_count integer;
begin
    return query execute format(
        'select _letter_row(d) from dead_letter d where %s and ($1 is null or d.task_id < $1) and ($2 is null or d.task_id >= $2)'
        ' order by d.task_id desc limit $3', _letters_where(p_filter)) using p_after, v_floor, v_limit;
    get diagnostics v_count = row_count;
    if v_count < v_limit and v_floor is not null then
        return next jsonb_build_object('next', v_floor);
    end if;
end $$;
comment on function list_dead_letters(jsonb, uuid, integer, integer) is
    'Dead letters, newest task first; the filter has queue, name, fingerprint, code, since, until, ids, text; p_look as in list_tasks.';

-- What people did to a task, oldest first.
create or replace function _history_of(p_task uuid) returns jsonb
    language sql stable
    as $$
        select coalesce(jsonb_agg(jsonb_build_object('at', at, 'action', action, 'actor', actor, 'detail', detail) order by at), '[]')
        from audit where task_id = p_task
    $$;

create or replace function get_dead_letter(p_task uuid) returns jsonb
    language sql stable security definer set search_path from current
    as $$
        select _letter_row(d) || jsonb_build_object(
            'error', d.error, 'versions', d.versions, 'params', d.body -> 'params', 'headers', coalesce(nullif(d.body -> 'headers', 'null'), '{}'),
            'tags', coalesce(nullif(d.body -> 'tags', 'null'), '[]'), 'key', d.body -> 'key', 'priority', d.body -> 'priority',
            'max_attempts', d.body -> 'max_attempts', 'runs', d.runs, 'kept', exists (select from task t where t.id = d.task_id),
            'history', _history_of(d.task_id))
        from dead_letter d where d.task_id = p_task
    $$;
comment on function get_dead_letter(uuid) is
    'All about a dead letter: cause, traceback, host, versions, params, runs; null if there is none. kept: the task itself is still there.';

-- Reads every dead letter that the filter chooses, or the p_look newest below p_after, with a last row as in list_tasks();
-- most frequent first.
create or replace function group_dead_letters(p_filter jsonb default null, p_limit integer default 50, p_after uuid default null,
                                              p_look integer default null) returns setof jsonb
    language plpgsql stable security definer set search_path from current
    as $$
declare
    v_floor uuid := _letters_floor(p_after, p_look);
begin
    return query execute format($q$
        select jsonb_build_object(
            'fingerprint', g.fingerprint, 'count', g.n, 'first', g.first, 'last', g.last,
            'name', (select name from executor where id = d.executor_id), 'queue', (select name from queue where id = d.queue_id),
            'queues', g.queues, 'code', d.error ->> 'code', 'type', d.error ->> 'type', 'message', d.error ->> 'message', 'sample', d.task_id)
        from (select d.fingerprint, count(*) as n, min(d.died_at) as first, max(d.died_at) as last,
                     count(distinct d.queue_id) as queues, max(d.task_id::text)::uuid as newest
              from dead_letter d where %s and ($1 is null or d.task_id < $1) and ($2 is null or d.task_id >= $2)
              group by d.fingerprint order by count(*) desc, d.fingerprint limit $3) g
        join dead_letter d on d.task_id = g.newest
        order by g.n desc, g.fingerprint $q$, _letters_where(p_filter)) using p_after, v_floor, least(greatest(p_limit, 1), 1000);
    if v_floor is not null then
        return next jsonb_build_object('next', v_floor);
    end if;
end $$;
comment on function group_dead_letters(jsonb, integer, uuid, integer) is
    'Dead letters by fingerprint, most frequent first: how many, since when, and the newest of each; p_after and p_look as in list_dead_letters.';

create or replace function count_dead_letters(p_filter jsonb default null, p_look integer default null) returns bigint
    language plpgsql stable security definer set search_path from current
    as $$
declare
    v_floor uuid := _letters_floor(null, p_look);
    v_count bigint;
begin
    execute format('select count(*) from dead_letter d where %s and ($1 is null or d.task_id >= $1)', _letters_where(p_filter))
        into v_count using v_floor;
    return v_count;
end $$;
comment on function count_dead_letters(jsonb, integer) is 'How many dead letters a filter chooses, of the p_look newest if it is given.';

-- Removing -----------------------------------------------------------------------------------------

-- Forget dead letters, p_limit at most in one call.  Their tasks stay failed, for as long as they are kept.
-- Returns how many went (p_dry_run: would go in all).  Raises AB001, AB005.
create or replace function purge_dead_letters(p_filter jsonb default null, p_dry_run boolean default false, p_limit integer default 10000)
    returns bigint
    language plpgsql security definer set search_path from current
    as $$
declare
    v_tasks uuid[];
begin
    if p_dry_run then
        return count_dead_letters(p_filter);
    end if;
    execute format('with chosen as (select task_id from dead_letter d where %s order by task_id limit $1 for update skip locked),'
                   ' gone as (delete from dead_letter d using chosen c where d.task_id = c.task_id returning d.task_id)'
                   ' select coalesce(array_agg(task_id), ''{}'') from gone', _letters_where(p_filter))
        into v_tasks using least(greatest(p_limit, 1), 10000);
    -- The history of a task that is not kept was kept for its dead letter only.
    delete from audit a where a.task_id = any (v_tasks) and not exists (select from task t where t.id = a.task_id);
    insert into audit (at, task_id, action) select clock_time(), t.id, 'purge' from task t where t.id = any (v_tasks);
    return cardinality(v_tasks);
end $$;
comment on function purge_dead_letters(jsonb, boolean, integer) is 'Forget dead letters; returns how many went, or would go.';
