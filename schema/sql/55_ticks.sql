-- Ticks: a schedule that is due spawns its task, once for each time it is due.

-- Spawn what is due and note what is skipped, in one transaction: p_due in order, p_skipped beside it (null: spawn; else why
-- not), p_missed how many times due each stands for.  All due up to p_settled is done with then; p_next is due next.
-- Whoever reckoned with another version of the schedule, or is late because somebody else fired it, changes nothing
-- and is told so by the null it gets, else how many tasks were spawned.  Several schedulers need no leader for that.
-- A task that cannot be spawned is noted as such: one such schedule holds up none of the others.
-- Touches schedule, then tick and what spawn_tasks() touches; with overlap `cancel` what cancel_task() touches before.
create or replace function fire_schedule(
    p_id integer, p_version integer, p_due timestamptz[], p_skipped text[], p_missed integer[], p_settled timestamptz, p_next timestamptz)
    returns integer
    language plpgsql security definer set search_path from current
    as $$
declare
    v_schedule schedule;
    v_spawned  integer := 0;
    v_task     uuid;
begin
    perform _require_read_committed();
    perform _require_no_upgrade();
    -- Not skip locked: an edit in the way takes a moment, and afterwards its version decides.
    select * into v_schedule from schedule where id = p_id for no key update;
    if v_schedule.version is distinct from p_version or v_schedule.paused_at is not null or v_schedule.settled_at >= p_settled then
        return null;
    end if;
    if p_settled > clock_time() then
        raise exception 'schedule % is not due before %', v_schedule.name, p_settled using errcode = 'AB004';
    end if;
    for n in 1..coalesce(cardinality(p_due), 0) loop
        continue when p_due[n] <= v_schedule.settled_at;
        if p_skipped[n] is not null then
            insert into tick (schedule_id, due_at, fired_at, skipped, missed) values (p_id, p_due[n], clock_time(), p_skipped[n], p_missed[n])
                on conflict do nothing;
        else
            v_task := _fire(v_schedule, p_due[n], v_schedule.overlap, false);
            v_spawned := v_spawned + (v_task is not null)::integer;
        end if;
    end loop;
    update schedule set settled_at = p_settled, next_due = p_next, error = null where id = p_id;
    return v_spawned;
end $$;
comment on function fire_schedule(integer, integer, timestamptz[], text[], integer[], timestamptz, timestamptz) is
    'Spawn what is due of a schedule, once; null if it has changed or was fired meanwhile.';

-- One tick of a locked schedule.  Returns its task, null if there is none.
create or replace function _fire(p_schedule schedule, p_due timestamptz, p_overlap text, p_by_hand boolean) returns uuid
    language plpgsql
    as $$
declare
    v_open    uuid[] := case when p_overlap <> 'allow' then _open_tasks(p_schedule.id) else '{}' end;
    v_options jsonb := _tick_options(p_schedule, p_due, p_by_hand);
    v_task    uuid;
    v_made    boolean;
    v_error   text;
begin
    if (p_overlap = 'skip' and cardinality(v_open) > 0) or (p_overlap = 'queue' and cardinality(v_open) > 1) then
        insert into tick (schedule_id, due_at, fired_at, skipped, detail, by_hand)
            values (p_schedule.id, p_due, clock_time(), 'overlap', format('task %s has not ended', v_open[1]), p_by_hand);
        return null;
    end if;
    begin
        if p_overlap = 'cancel' then
            perform cancel_task(t, format('schedule %s is due again', p_schedule.name)) from unnest(v_open) t;
        elsif p_overlap = 'queue' and cardinality(v_open) > 0 then
            v_options := v_options || jsonb_build_object('depends_on', to_jsonb(v_open), 'when', 'all_done');
        end if;
        select s.task_id, s.created into v_task, v_made
            from spawn_task(_tick_queue(p_schedule), p_schedule.executor, p_schedule.params, v_options) s;
    exception when sqlstate 'AB001' or sqlstate 'AB004' or sqlstate 'AB007' or sqlstate 'AB008' or sqlstate 'AB009' then
        v_error := sqlerrm;
    end;
    if not v_made then  -- by its key it is the task of another time, and nothing came of this one
        insert into tick (schedule_id, due_at, fired_at, skipped, detail, by_hand)
            values (p_schedule.id, p_due, clock_time(), 'overlap', format('task %s has the same key', v_task), p_by_hand);
        return null;
    end if;
    insert into tick (schedule_id, due_at, fired_at, task_id, skipped, detail, by_hand)
        values (p_schedule.id, p_due, clock_time(), v_task, case when v_task is null then 'error' end, v_error, p_by_hand);
    return v_task;
end $$;

-- The queue it names, else the one its executor belongs to.
create or replace function _tick_queue(p_schedule schedule) returns text
    language sql stable
    as $$ select coalesce(p_schedule.queue, (select x.queue from executor x where x.name = p_schedule.executor), 'default') $$;

-- What the schedule says of its tasks, and in headers and tags where they come from.  The jitter is the same for a time
-- due whoever fires it.
create or replace function _tick_options(p_schedule schedule, p_due timestamptz, p_by_hand boolean) returns jsonb
    language plpgsql stable
    as $$
declare
    v_options jsonb := p_schedule.options;
begin
    v_options := v_options || jsonb_build_object(
        'headers', coalesce(nullif(v_options -> 'headers', 'null'), '{}')
                   || jsonb_build_object('schedule', p_schedule.name, 'due_at', to_jsonb(p_due)),
        'tags', coalesce(nullif(v_options -> 'tags', 'null'), '[]') || to_jsonb('schedule:' || p_schedule.name));
    if p_schedule.jitter > interval '0' and not p_by_hand then
        v_options := v_options || jsonb_build_object('run_at', p_due + p_schedule.jitter
            * ((hashtextextended(p_schedule.name || extract(epoch from p_due), 0) & 1048575) / 1048576.0));
    end if;
    return v_options;
end $$;

-- Its tasks that have not ended, the first of them first.  Of the last twenty: where overlap is limited there are no more,
-- but for those triggered by hand all the same.
create or replace function _open_tasks(p_schedule integer) returns uuid[]
    language sql stable
    as $$
        select array(
            select s.task_id
            from get_states(array(select t.task_id from tick t where t.schedule_id = p_schedule and t.task_id is not null
                                  order by t.due_at desc limit 20)) s
            where s.state not in ('completed', 'failed', 'cancelled') order by s.task_id)
    $$;

-- Spawn its task now, whether it is due or paused.  Its overlap policy holds, unless p_overlap names another.
-- Returns the tick: task_id, or skipped with the detail.  Raises AB001, AB012.
create or replace function trigger_schedule(p_name text, p_overlap text default null) returns jsonb
    language plpgsql security definer set search_path from current
    as $$
declare
    v_schedule schedule;
    v_due      timestamptz;
begin
    perform _require_read_committed();
    perform _require_no_upgrade();
    if p_overlap not in ('allow', 'skip', 'queue', 'cancel') then
        raise exception 'option overlap is %; it must be allow, skip, queue or cancel', quote_literal(left(p_overlap, 100)) using errcode = 'AB001';
    end if;
    v_schedule := _known_schedule(p_name, true);
    -- A time of its own, be the clock frozen.
    select greatest(clock_time(), max(t.due_at) filter (where t.by_hand) + interval '1 us') into v_due from tick t where t.schedule_id = v_schedule.id;
    perform _fire(v_schedule, v_due, coalesce(p_overlap, v_schedule.overlap), true);
    return (select to_jsonb(t) - 'schedule_id' from tick t where t.schedule_id = v_schedule.id and t.due_at = v_due and t.by_hand);
end $$;
comment on function trigger_schedule(text, text) is 'Spawn the task of a schedule now, by hand; returns the tick.';

-- Schedules that are due, or of which nobody knows when; with the clock, who leads, and when others are due.
-- The lead is renewed by who has it, and taken by who finds it run out.
create or replace function get_due_schedules(p_holder text, p_lease double precision) returns jsonb
    language plpgsql security definer set search_path from current
    as $$
declare
    v_now timestamptz := clock_time();
begin
    perform _note_pulse();
    insert into leader as l (role, holder, until) values ('scheduler', p_holder, v_now + make_interval(secs => p_lease))
        on conflict (role) do update set holder = excluded.holder, until = excluded.until
        -- Nobody's lease lasts longer than his own says: the clock may have been set back.
        where l.holder = p_holder or l.until <= v_now or l.until > v_now + make_interval(secs => p_lease);
    return jsonb_build_object(
        'now', v_now,
        'leader', (select holder from leader where role = 'scheduler'),
        'next_seconds', (select extract(epoch from min(next_due) - v_now) from schedule where paused_at is null and next_due > v_now and isfinite(next_due)),
        'schedules', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'id', s.id, 'version', s.version, 'name', s.name, 'trigger', s.trigger, 'zone', s.zone, 'site', s.site, 'misfire', s.misfire,
                'grace', extract(epoch from s.grace), 'look_back', extract(epoch from s.look_back), 'starts_at', s.starts_at, 'ends_at', s.ends_at,
                'created_at', s.created_at, 'settled_at', s.settled_at, 'next_due', s.next_due) order by s.next_due, s.id), '[]')
            from schedule s
            where s.paused_at is null and (s.next_due is null or s.next_due <= v_now)));
end $$;
comment on function get_due_schedules(text, double precision) is
    'What a scheduler must look after now, and whether it goes first.';

-- Note when a schedule is due next, or why that cannot be said (p_error): then nothing comes of it until it is changed.
create or replace function set_next_due(p_id integer, p_version integer, p_next timestamptz, p_error text default null) returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    update schedule set next_due = p_next, error = left(p_error, 1000) where id = p_id and version = p_version;
end $$;
comment on function set_next_due(integer, integer, timestamptz, text) is 'Note when a schedule is due next, or why that cannot be said.';

-- Give the lead up, so that another need not wait for it to run out.
create or replace function resign_leader(p_holder text) returns void
    language plpgsql security definer set search_path from current
    as $$
begin
    delete from leader where holder = p_holder;  -- among those that measure alerts too
    if found then
        perform _tell_schedulers();
    end if;
end $$;
comment on function resign_leader(text) is 'Give up the lead among schedulers.';

-- Of each schedule the latest 10,000 ticks are kept; what came before is settled, and never comes again without them.
create or replace function prune_ticks() returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set enable_bitmapscan = off
    as $$
declare
    v_schedule integer;
    v_below    timestamptz;
    v_count    integer;
    v_pruned   integer := 0;
begin
    for v_schedule in select id from schedule loop
        select due_at into v_below from tick where schedule_id = v_schedule order by due_at desc offset 10000 limit 1;
        if found then
            delete from tick where schedule_id = v_schedule and due_at <= v_below;
            get diagnostics v_count = row_count;
            v_pruned := v_pruned + v_count;
        end if;
    end loop;
    return v_pruned;
end $$;
comment on function prune_ticks() is 'Forget all but the latest 10,000 ticks of each schedule; returns how many.';
