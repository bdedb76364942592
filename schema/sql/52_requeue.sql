-- Dead letters come back to life.

-- Put dead letters back into their own queues, the oldest task first, each with one more round of attempts: as
-- many again as it had, counted on from those that are spent.  Params change by a merge patch (p_params) and by
-- values at paths (p_set); p_rate: so many a second, the first after p_delay seconds.  What cannot come back is
-- told and stays.  One call takes p_limit at most; go on with p_after, the last id of the call before.
-- Returns a row each: {id, queue, name, requeued, reason, run_at}.  Raises AB001, AB005, AB009.
-- Locks: task by id, then as retry_task.
create or replace function requeue_dead_letters(
    p_filter jsonb default null, p_params jsonb default null, p_set jsonb default null, p_rate double precision default null,
    p_limit integer default 1000, p_dry_run boolean default false, p_after uuid default null, p_delay double precision default 0)
    returns setof jsonb
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_now      timestamptz := clock_time();
    v_letter   dead_letter;
    v_letters  dead_letter[];
    v_upstream uuid[];
    v_ids      uuid[] := '{}';
    v_run_at   timestamptz;
    v_reason   text;
begin
    perform _require_read_committed();
    if p_rate <= 0 then
        raise exception 'rate is %; it must be a number above 0', p_rate using errcode = 'AB001';
    end if;
    if p_delay < 0 then
        raise exception 'delay is %; it must not be negative', p_delay using errcode = 'AB001';
    end if;
    execute format('select array(select d from dead_letter d where %s and ($1 is null or d.task_id > $1) order by d.task_id limit $2)',
                   _letters_where(p_filter)) into v_letters using p_after, least(greatest(p_limit, 1), 1000);
    if not p_dry_run then
        v_upstream := _ended_upstream_of(array(select l.task_id from unnest(v_letters) l));
        perform from task t where t.id = any (v_upstream || array(select l.task_id from unnest(v_letters) l)) order by t.id for no key update;
        -- What is being purged is waited for, and told below.
        perform from dead_letter d where d.task_id in (select l.task_id from unnest(v_letters) l) order by d.task_id for update;
    end if;
    foreach v_letter in array v_letters loop
        v_run_at := v_now + make_interval(secs => coalesce(p_delay, 0) + coalesce(cardinality(v_ids) / p_rate, 0));
        v_reason := _requeue_obstacle(v_letter);
        if v_reason is null then
            begin  -- one that cannot be edited does not keep the others
                perform _requeue_body(v_letter, _edited(v_letter.body -> 'params', p_params, p_set), p_dry_run);
                v_ids := v_ids || v_letter.task_id;
            exception when sqlstate 'AB001' or sqlstate 'AB009' or check_violation or unique_violation then
                v_reason := sqlerrm;
            end;
        end if;
        return next _letter_row(v_letter) || jsonb_build_object('requeued', v_reason is null, 'reason', v_reason,
                                                                'run_at', case when v_reason is null then v_run_at end);
    end loop;
    if p_dry_run or cardinality(v_ids) = 0 then
        return;
    end if;
    perform _revive(v_ids, array(select u from unnest(v_upstream) u where u <> all (v_ids) and _ended_upstream(u)
                                 and exists (select from _descendants(v_ids) d where u = any (d)) order by u));
    -- Not due yet: nobody has seen their rows of `ready`.
    with due as materialized (
        select u.id, v_now + make_interval(secs => coalesce(p_delay, 0) + coalesce((u.n - 1) / p_rate, 0)) as run_at
        from unnest(v_ids) with ordinality as u (id, n)),
    gone as (delete from ready r using due where r.task_id = due.id and due.run_at > v_now
             returning r.task_id, due.run_at, r.queue_id, r.level, r.attempt, r.suspect, r.lane, r.needs),
    slept as (
        insert into timer (task_id, wake_at, queue_id, level, attempt, suspect, lane, needs, reason)
        select task_id, run_at, queue_id, level, attempt, suspect, lane, needs, 'requeue' from gone)
    insert into tally (queue_id, pending, sleeping) select queue_id, -count(*), count(*) from gone group by queue_id;
    if coalesce(p_delay, 0) + coalesce(1 / p_rate, 0) > 0 then
        perform _tell_due(v_now + make_interval(secs => greatest(coalesce(p_delay, 0), 0.001)));
    end if;
end $$;
comment on function requeue_dead_letters(jsonb, jsonb, jsonb, double precision, integer, boolean, uuid, double precision) is
    'Put dead letters back into their queues with a new round of attempts; a row each tells whether it went and why not.';

-- Why a dead letter cannot be requeued; null if it can.
create or replace function _requeue_obstacle(p_letter dead_letter) returns text
    language plpgsql stable
    as $$
declare
    v_state  text := get_state(p_letter.task_id);
    v_holder uuid;
begin
    if not exists (select from dead_letter where task_id = p_letter.task_id) or coalesce(v_state, 'failed') <> 'failed' then
        return format('it is %s', coalesce(v_state, 'not in the dead letters any more'));
    end if;
    if not exists (select from queue where id = p_letter.queue_id) then
        return 'its queue was removed';
    end if;
    select k.task_id into v_holder from task_key k
    where k.queue_id = p_letter.queue_id and k.key = p_letter.body ->> 'key' and k.task_id <> p_letter.task_id
      and get_state(k.task_id) in ('blocked', 'pending', 'sleeping', 'running');
    return case when v_holder is not null then format('its key is held by task %s, which has not ended', v_holder) end;
end $$;

-- Give a dead letter's task its new params and its new limit of attempts; one that is not kept any more is
-- made again from the copy, with its history, so that attempts go on counting.
create or replace function _requeue_body(p_letter dead_letter, p_params jsonb, p_dry_run boolean) returns void
    language plpgsql
    as $$
#variable_conflict use_column
declare
    v_task  task := jsonb_populate_record(null::task, p_letter.body);
    v_round integer;
begin
    if p_dry_run then
        return;
    end if;
    -- The limit grows with each requeue; a round is as long as the first one was.
    v_round := coalesce((select (detail::jsonb ->> 'round')::integer from audit
                         where task_id = p_letter.task_id and action = 'requeue' order by at desc limit 1),
                        v_task.max_attempts, (v_task.retry ->> 'max_attempts')::integer,
                        (select max_attempts from executor where id = p_letter.executor_id), 5);
    v_round := greatest(1, v_round);
    v_task.max_attempts := least(32767, p_letter.attempts + v_round);
    v_task.params := p_params;
    update task set (max_attempts, params) = (v_task.max_attempts, v_task.params) where id = p_letter.task_id;
    if not found then
        insert into task select (v_task).*;
        insert into run (task_id, started_at, finished_at, lease_id, state, attempt, ends, error)
            select v_task.id, r.started_at, r.finished_at, case when r.state <> 'cancelled' then 0 end, r.state, r.attempt,
                   r.state in ('completed', 'cancelled') or r.finished_at = max(r.finished_at) over (), r.error
            from jsonb_to_recordset(p_letter.runs)
                as r (started_at timestamptz, finished_at timestamptz, state run_state, attempt smallint, error jsonb);
        insert into tally (queue_id, failed) values (v_task.queue_id, 1);
    end if;
    insert into audit (at, task_id, action, detail) values (clock_time(), v_task.id, 'requeue', jsonb_strip_nulls(jsonb_build_object(
        'round', v_round, 'max_attempts', v_task.max_attempts,
        'params', case when p_params <> p_letter.body -> 'params' then _difference(p_letter.body -> 'params', p_params) end))::text);
end $$;
