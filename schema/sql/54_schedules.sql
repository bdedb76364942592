-- Schedules: make, change, pause, remove and list them.

create or replace function _known_schedule(p_name text, p_lock boolean default false) returns schedule
    language plpgsql
    as $$
declare
    v_schedule schedule;
begin
    if p_lock then
        select * into v_schedule from schedule where name = p_name for no key update;
    else
        select * into v_schedule from schedule where name = p_name;
    end if;
    if v_schedule.id is null then
        raise exception 'there is no schedule called %', coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB012';
    end if;
    return v_schedule;
end $$;

-- The zone by its name in the database of time zones, not an offset or an abbreviation, whose rules nobody states.
create or replace function _option_zone(p_schedule jsonb) returns text
    language plpgsql stable
    as $$
declare
    v_zone text := coalesce(_option_text(p_schedule, 'zone', 100), 'UTC');
begin
    if v_zone <> 'UTC' and not exists (select from pg_timezone_names where name = v_zone) then
        raise exception 'option zone is %, which is no time zone; write America/Los_Angeles, say', quote_literal(v_zone) using errcode = 'AB001';
    end if;
    return v_zone;
end $$;

-- A place on Earth: {"longitude", "latitude"} in degrees, east and north, {"height"} in metres above the ellipsoid.
create or replace function _option_site(p_schedule jsonb) returns jsonb
    language plpgsql immutable
    as $$
declare
    v_site  jsonb := _option(p_schedule, 'site', 'object');
    v_named jsonb := (select jsonb_object_agg('site.' || k, v) from jsonb_each(v_site) s (k, v));
begin
    if v_site is null then
        return null;
    end if;
    perform _check_keys('option site', v_site, array['longitude', 'latitude', 'height']);
    if v_site ->> 'longitude' is null or v_site ->> 'latitude' is null then
        raise exception 'option site lacks its longitude or latitude' using errcode = 'AB001';
    end if;
    perform _option_number(v_named, 'site.longitude', -360, 360), _option_number(v_named, 'site.latitude', -90, 90),
            _option_number(v_named, 'site.height', -1000, 100000);
    return v_site;
end $$;

-- One option that is one of some words.
create or replace function _option_word(p_options jsonb, p_name text, p_pattern text, p_known text) returns text
    language plpgsql immutable
    as $$
declare
    v_word text := _option_text(p_options, p_name, 100);
begin
    if v_word !~ p_pattern then
        raise exception 'option % is %; it must be %', p_name, quote_literal(v_word), p_known using errcode = 'AB001';
    end if;
    return v_word;
end $$;

-- A schedule as it is described, checked but for its trigger, which schedulers read.
create or replace function _read_schedule(p_name text, p_schedule jsonb) returns schedule
    language plpgsql stable
    as $$
declare
    v_new    schedule;
    v_barred text;
begin
    if p_name is null or p_name !~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$' then
        raise exception 'schedule name % is not valid: 1 to 128 letters, digits or _ . : - and no leading punctuation',
            coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB007';
    end if;
    if jsonb_typeof(p_schedule) is distinct from 'object' then
        raise exception 'a schedule is %; it must be a JSON object', left(p_schedule::text, 100) using errcode = 'AB001';
    end if;
    perform _check_keys('schedule', p_schedule, array[
        'trigger', 'zone', 'site', 'queue', 'executor', 'params', 'options', 'misfire', 'grace', 'look_back', 'overlap', 'jitter',
        'starts_at', 'ends_at', 'paused']);
    v_new.name := p_name;
    v_new.trigger := _option_text(p_schedule, 'trigger', 1000);
    v_new.executor := _option_text(p_schedule, 'executor', 128);
    if v_new.trigger is null or v_new.executor is null then
        raise exception 'a schedule needs a trigger and an executor' using errcode = 'AB001';
    end if;
    v_new.zone := _option_zone(p_schedule);
    v_new.site := _option_site(p_schedule);
    v_new.queue := _option_text(p_schedule, 'queue', 128);
    v_new.params := coalesce(_option(p_schedule, 'params', 'object'), '{}');
    perform _check_size('params', v_new.params);
    v_new.options := coalesce(_option(p_schedule, 'options', 'object'), '{}');
    perform _read_options(null, v_new.options);
    select k into v_barred from jsonb_object_keys(v_new.options) k
    where k in ('delay', 'run_at', 'depends_on', 'when', 'workflow', 'node', 'id') limit 1;
    if found then
        raise exception 'option %s of a scheduled task is not possible: its schedule says when it runs', v_barred using errcode = 'AB001';
    end if;
    v_new.misfire := coalesce(_option_word(p_schedule, 'misfire', '^(skip|once|all|last [1-9][0-9]{0,3})$', 'skip, once, all or last N'), 'once');
    v_new.overlap := coalesce(_option_word(p_schedule, 'overlap', '^(allow|skip|queue|cancel)$', 'allow, skip, queue or cancel'), 'allow');
    v_new.grace := coalesce(_option_seconds(p_schedule, 'grace', 0, 31536000), interval '1 minute');
    v_new.look_back := coalesce(_option_seconds(p_schedule, 'look_back', 0, 315360000), interval '1 day');
    v_new.jitter := coalesce(_option_seconds(p_schedule, 'jitter', 0, 86400), interval '0');
    v_new.starts_at := _option_time(p_schedule, 'starts_at');
    v_new.ends_at := _option_time(p_schedule, 'ends_at');
    if v_new.ends_at <= v_new.starts_at then
        raise exception 'the schedule ends at %, before it starts at %', v_new.ends_at, v_new.starts_at using errcode = 'AB001';
    end if;
    v_new.paused_at := case when (_option(p_schedule, 'paused', 'boolean'))::boolean then clock_time() end;
    return v_new;
end $$;

-- Make or change a schedule.  p_next is when the trigger of a new one is due for the first time after now; without it, as from
-- plain SQL, and after a change, since intervals go on counting from when the schedule was made, the next scheduler reads
-- the trigger and reckons that.  What is due anew counts from now, never from the past; a change of the end or
-- of anything else keeps what is settled.  A schedule that was paused stays so, unless `paused` says otherwise.
-- Returns created, changed or unchanged.  Raises AB001, AB007, AB009.
create or replace function set_schedule(p_name text, p_schedule jsonb, p_next timestamptz default null, p_dry_run boolean default false)
    returns text
    language plpgsql security definer set search_path from current
    as $$
declare
    v_new   schedule := _read_schedule(p_name, p_schedule);
    v_old   schedule;
    v_now   timestamptz := clock_time();
    v_moved boolean;
    v_anew  boolean;
begin
    select * into v_old from schedule where name = p_name for no key update;
    if v_old.id is null then
        if not p_dry_run then
            insert into schedule (name, trigger, zone, site, queue, executor, params, options, misfire, grace, look_back, overlap,
                                  jitter, starts_at, ends_at, created_at, paused_at, settled_at, next_due)
                select v_new.name, v_new.trigger, v_new.zone, v_new.site, v_new.queue, v_new.executor, v_new.params, v_new.options,
                       v_new.misfire, v_new.grace, v_new.look_back, v_new.overlap, v_new.jitter, v_new.starts_at, v_new.ends_at,
                       v_now, v_new.paused_at, v_now, p_next
                on conflict (name) do nothing;
            if not found then  -- another session made it meanwhile
                return set_schedule(p_name, p_schedule, p_next);
            end if;
            perform _tell_schedulers();
        end if;
        return 'created';
    end if;
    v_anew := (v_new.trigger, v_new.zone, v_new.site, v_new.starts_at)
              is distinct from (v_old.trigger, v_old.zone, v_old.site, v_old.starts_at);
    v_moved := v_anew or v_new.ends_at is distinct from v_old.ends_at;
    v_new.paused_at := case when not p_schedule ? 'paused' then v_old.paused_at
                            when v_new.paused_at is not null then coalesce(v_old.paused_at, v_new.paused_at) end;
    if not v_moved and (v_new.queue, v_new.executor, v_new.params, v_new.options, v_new.misfire, v_new.grace, v_new.look_back, v_new.overlap,
                        v_new.jitter, v_new.paused_at)
       is not distinct from (v_old.queue, v_old.executor, v_old.params, v_old.options, v_old.misfire, v_old.grace, v_old.look_back, v_old.overlap,
                             v_old.jitter, v_old.paused_at) then
        return 'unchanged';
    end if;
    -- One that goes on beyond its old end owes what is due and not fired yet, if that end is still to come.
    v_anew := v_anew or (v_old.paused_at is not null and v_new.paused_at is null) or (v_moved and v_old.ends_at <= v_now);
    v_moved := v_moved or v_anew;
    if not p_dry_run then
        update schedule
            set trigger = v_new.trigger, zone = v_new.zone, site = v_new.site, queue = v_new.queue, executor = v_new.executor,
                params = v_new.params, options = v_new.options, misfire = v_new.misfire, grace = v_new.grace, look_back = v_new.look_back,
                overlap = v_new.overlap, jitter = v_new.jitter, starts_at = v_new.starts_at, ends_at = v_new.ends_at,
                paused_at = v_new.paused_at, version = version + 1,
                settled_at = case when v_anew then greatest(settled_at, v_now) else settled_at end,
                next_due = case when not v_moved then next_due end, error = case when not v_moved then error end
            where id = v_old.id;
        perform _tell_schedulers();
    end if;
    return 'changed';
end $$;
comment on function set_schedule(text, jsonb, timestamptz, boolean) is
    'Make or change a schedule: trigger, executor, and zone, site, queue, params, options, misfire, grace, look_back, overlap, jitter, starts_at, ends_at, paused. Returns created, changed or unchanged.';

-- What was due while it was paused is not made up for.  Raises AB012.
create or replace function set_schedule_paused(p_name text, p_paused boolean) returns void
    language plpgsql security definer set search_path from current
    as $$
declare
    v_id integer := (_known_schedule(p_name, true)).id;
begin
    update schedule
        set paused_at = case when p_paused then clock_time() end, version = version + 1, error = null,
            settled_at = case when p_paused then settled_at else greatest(settled_at, clock_time()) end,
            next_due = case when p_paused then next_due end
        where id = v_id and (paused_at is not null) <> p_paused;
    perform _tell_schedulers();
end $$;
comment on function set_schedule_paused(text, boolean) is 'Pause a schedule, or let it go on from now.';

-- Its tasks stay, whatever their state.  Returns false if there is none of that name.
create or replace function remove_schedule(p_name text) returns boolean
    language plpgsql security definer set search_path from current
    as $$
declare
    v_id integer;
begin
    delete from schedule where name = p_name returning id into v_id;
    delete from tick where schedule_id = v_id;
    return v_id is not null;
end $$;
comment on function remove_schedule(text) is 'Remove a schedule and its history; its tasks stay.';

create or replace function _tell_schedulers() returns void
    language plpgsql
    as $$
begin
    perform pg_notify(current_schema() || '_schedule', '');
end $$;

create or replace function _schedule_document(p_schedule schedule) returns jsonb
    language sql stable
    as $$
        select jsonb_build_object(
            'name', p_schedule.name, 'state', case when p_schedule.paused_at is null then 'active' else 'paused' end,
            'trigger', p_schedule.trigger, 'zone', p_schedule.zone, 'site', p_schedule.site, 'queue', p_schedule.queue,
            'executor', p_schedule.executor, 'params', p_schedule.params, 'options', p_schedule.options, 'misfire', p_schedule.misfire,
            'grace', extract(epoch from p_schedule.grace), 'look_back', extract(epoch from p_schedule.look_back),
            'overlap', p_schedule.overlap, 'jitter', extract(epoch from p_schedule.jitter), 'starts_at', p_schedule.starts_at,
            'ends_at', p_schedule.ends_at, 'created_at', p_schedule.created_at, 'paused_at', p_schedule.paused_at,
            'next_due', case when isfinite(p_schedule.next_due) then p_schedule.next_due end,
            'over', coalesce(p_schedule.next_due = 'infinity', false), 'error', p_schedule.error,
            'last', (select to_jsonb(t) - 'schedule_id' from tick t where t.schedule_id = p_schedule.id order by t.due_at desc limit 1))
    $$;

create or replace function list_schedules() returns setof jsonb
    language sql stable security definer set search_path from current
    as $$ select _schedule_document(s) from schedule s order by s.name $$;
comment on function list_schedules() is 'All schedules, with the next time each is due and what came of the last.';

create or replace function get_schedule(p_name text) returns jsonb
    language plpgsql stable security definer set search_path from current
    as $$ begin return _schedule_document(_known_schedule(p_name)); end $$;
comment on function get_schedule(text) is 'One schedule; AB012 if there is none of that name.';

-- The latest first, from before p_before.  late_seconds: from the time due until it was fired.
create or replace function list_ticks(p_name text, p_before timestamptz default null, p_limit integer default 50)
    returns setof jsonb
    language plpgsql stable security definer set search_path from current
    as $$
declare
    v_id integer := (_known_schedule(p_name)).id;
begin
    return query
        select to_jsonb(t) - 'schedule_id' || jsonb_build_object(
            'late_seconds', extract(epoch from t.fired_at - t.due_at), 'state', case when t.task_id is not null then get_state(t.task_id) end)
        from tick t
        where t.schedule_id = v_id and (p_before is null or t.due_at < p_before)
        order by t.due_at desc limit least(greatest(p_limit, 1), 1000);
end $$;
comment on function list_ticks(text, timestamptz, integer) is 'What came of each time a schedule was due, the latest first.';
