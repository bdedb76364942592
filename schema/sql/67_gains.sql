-- Sets of gains: registered once their folders are whole, accepted or quarantined, and found by time and declination.
-- Who changes which sets of a telescope are valid holds its advisory lock, taken before any row: two that do so at once
-- would wait for each other in gain_set_one_valid, which decides in any case.

create or replace function _hold_gain_sets(p_telescope text) returns void
    language sql
    as $$
        select pg_advisory_xact_lock(hashtextextended('absurd.gains.' || current_schema() || '.' || p_telescope, 0))
    $$;

-- Whether two sets may not be valid beside one another: as the constraint gain_set_one_valid has it.
create or replace function _are_rivals(p_one gain_set, p_other gain_set) returns boolean
    language sql immutable
    as $$
        select p_one.id is distinct from p_other.id and p_one.telescope = p_other.telescope
           and tstzrange(p_one.observed_from, p_one.observed_until) && tstzrange(p_other.observed_from, p_other.observed_until)
           and numrange((p_one.declination - p_one.strip / 2)::numeric, (p_one.declination + p_one.strip / 2)::numeric)
               && numrange((p_other.declination - p_other.strip / 2)::numeric, (p_other.declination + p_other.strip / 2)::numeric)
           and numrange(p_one.lowest_hz::numeric, p_one.highest_hz::numeric) && numrange(p_other.lowest_hz::numeric, p_other.highest_hz::numeric)
    $$;

-- The valid sets that may not be so beside this one.
create or replace function _rivals_of_gain_set(p_set gain_set) returns setof bigint
    language sql stable
    as $$
        select g.id from gain_set g where g.state = 'valid' and g.telescope = p_set.telescope and _are_rivals(g, p_set)
    $$;

-- Its row, locked.  Raises AB016.
create or replace function _held_gain_set(p_id bigint) returns gain_set
    language plpgsql
    as $$
declare
    v_set gain_set;
begin
    select * into v_set from gain_set where id = p_id;
    if v_set.id is null then
        raise exception 'there is no gain set %', coalesce(p_id::text, 'null') using errcode = 'AB016';
    end if;
    perform _hold_gain_sets(v_set.telescope);
    select * into v_set from gain_set where id = p_id for update;
    if v_set.id is null then
        raise exception 'there is no gain set %', p_id using errcode = 'AB016';
    end if;
    return v_set;
end $$;

-- Touches the advisory lock of the telescope's sets, gain_set.  The same folder with the same content is the same set,
-- in whatever state that is now: a task that runs again changes nothing.  For when and where it holds is not of its
-- content, and is what was told last, but of a quarantined one.
create or replace function register_gain_set(p_set jsonb, p_state text default 'valid')
    returns table (id bigint, state text, created boolean, superseded bigint[])
    language plpgsql security definer set search_path from current
    as $$
#variable_conflict use_column
declare
    v_set     gain_set;
    v_known   gain_set;
    v_rivals  bigint[] := '{}';
    v_unknown text;
begin
    perform _require_read_committed();
    if jsonb_typeof(p_set) is distinct from 'object' then
        raise exception 'a gain set must be an object' using errcode = 'AB001';
    end if;
    select k into v_unknown from jsonb_object_keys(p_set) k
    where k not in ('telescope', 'path', 'checksum', 'bytes', 'kinds', 'source', 'ra', 'declination', 'strip', 'lowest_hz', 'highest_hz',
                    'observed_from', 'observed_until', 'observed_at', 'valid_from', 'valid_until', 'quality', 'provenance', 'task_id')
    limit 1;
    if v_unknown is not null then
        raise exception 'a gain set has no key %', quote_literal(left(v_unknown, 200)) using errcode = 'AB001';
    end if;
    if (p_state in ('candidate', 'valid')) is not true then
        raise exception 'a gain set is registered as candidate or valid, not as %', coalesce(quote_literal(left(p_state, 200)), 'null') using errcode = 'AB001';
    end if;
    v_set := jsonb_populate_record(null::gain_set, p_set);
    v_set.observed_at := coalesce(v_set.observed_at, v_set.observed_from + (v_set.observed_until - v_set.observed_from) / 2);
    perform _hold_gain_sets(v_set.telescope);
    select * into v_known from gain_set g where g.path = v_set.path and g.checksum = v_set.checksum;
    if v_known.id is not null then
        if v_known.state <> 'quarantined' and (v_known.valid_from, v_known.valid_until, v_known.strip)
           is distinct from (v_set.valid_from, v_set.valid_until, v_set.strip) then
            v_known := _hold_elsewhere(v_known, v_set.valid_from, v_set.valid_until, v_set.strip);
        end if;
        return query select v_known.id, v_known.state, false, '{}'::bigint[];
        return;
    end if;
    insert into gain_set (telescope, path, checksum, bytes, kinds, source, ra, declination, strip, lowest_hz, highest_hz, observed_from,
                          observed_until, observed_at, valid_from, valid_until, state, quality, provenance, task_id, registered_at, decided_at)
        select v_set.telescope, v_set.path, v_set.checksum, v_set.bytes, v_set.kinds, v_set.source, v_set.ra, v_set.declination, v_set.strip,
               v_set.lowest_hz, v_set.highest_hz, v_set.observed_from, v_set.observed_until, v_set.observed_at, v_set.valid_from,
               v_set.valid_until, 'candidate', v_set.quality, v_set.provenance, v_set.task_id, clock_time(), clock_time()
        returning * into v_set;
    if p_state = 'valid' then
        v_rivals := _validate_gain_set(v_set, false);
    end if;
    return query select v_set.id, p_state, true, v_rivals;
exception when data_exception or integrity_constraint_violation then
    raise exception 'a gain set cannot be registered: %', sqlerrm using errcode = 'AB001';
end $$;
comment on function register_gain_set(jsonb, text) is
    'Register a gain set once its folder is whole, as valid or as a candidate that accept_gain_set makes valid: {telescope, path, checksum, bytes, kinds, source, ra, declination, strip, lowest_hz, highest_hz, observed_from, observed_until, valid_from, valid_until, quality, provenance, task_id}. Valid sets of the same recording are superseded. Of a path and checksum that are known returns that set in the state it has; unless it is quarantined, it holds then for what was told.';

-- Make it valid in place of its rivals, which are returned; where one of them was registered later and not p_again, it is
-- superseded itself.
create or replace function _validate_gain_set(p_set gain_set, p_again boolean) returns bigint[]
    language plpgsql
    as $$
declare
    v_rivals bigint[] := array(select r from _rivals_of_gain_set(p_set) r order by r);
    v_later  bigint := (select max(r) from unnest(v_rivals) r where r > p_set.id);
begin
    if v_later is not null and not p_again then
        update gain_set set state = 'superseded', superseded_by = v_later, decided_at = clock_time() where id = p_set.id;
        return '{}';
    end if;
    update gain_set set state = 'superseded', superseded_by = p_set.id, decided_at = clock_time() where id = any (v_rivals);
    update gain_set set state = 'valid', reason = null, superseded_by = null, decided_at = clock_time() where id = p_set.id;
    return v_rivals;
end $$;

-- Have a set hold for other times and declinations.
create or replace function _hold_elsewhere(p_set gain_set, p_from timestamptz, p_until timestamptz, p_strip double precision)
    returns gain_set
    language plpgsql
    as $$
declare
    v_set gain_set;
begin
    -- With a wider strip it may have rivals that it had not: it is as if it had been registered in its turn.
    update gain_set set valid_from = p_from, valid_until = p_until, strip = p_strip, decided_at = clock_time(),
        state = case state when 'valid' then 'candidate' else state end
        where id = p_set.id returning * into v_set;
    if p_set.state = 'valid' then
        perform _validate_gain_set(v_set, false);
        perform _restore_gain_sets(p_set);
    end if;
    return (select g from gain_set g where g.id = p_set.id);
end $$;

-- Make valid again what this set had superseded, the latest first, where no valid set is in the way.
create or replace function _restore_gain_sets(p_set gain_set) returns void
    language plpgsql
    as $$
declare
    v_other gain_set;
begin
    for v_other in
        select g.* from gain_set g
        where g.state = 'superseded' and g.telescope = p_set.telescope and _are_rivals(g, p_set)
        order by g.id desc
    loop
        if not exists (select from _rivals_of_gain_set(v_other)) then
            update gain_set set state = 'valid', superseded_by = null, decided_at = clock_time() where id = v_other.id;
        end if;
    end loop;
end $$;

-- Touches the advisory lock of the telescope's sets, gain_set.
create or replace function accept_gain_set(p_id bigint, p_quality jsonb default null, p_again boolean default false) returns text
    language plpgsql security definer set search_path from current
    as $$
declare
    v_set   gain_set;
    v_again boolean := coalesce(p_again, false);
begin
    perform _require_read_committed();
    v_set := _held_gain_set(p_id);
    if v_set.state = 'quarantined' and not v_again then
        raise exception 'gain set % is quarantined: %', p_id, v_set.reason using errcode = 'AB017', hint = 'accept it again, if it is good after all';
    end if;
    update gain_set set quality = p_quality where id = p_id and p_quality is not null;
    if v_set.state = 'candidate' or v_again and v_set.state <> 'valid' then
        perform _validate_gain_set(v_set, v_again);
    end if;
    return (select state from gain_set where id = p_id);
end $$;
comment on function accept_gain_set(bigint, jsonb, boolean) is
    'Make a candidate valid in place of those of the same recording, or superseded where one of these was registered later; returns its state. A set that is superseded or quarantined becomes valid only with p_again. p_quality is what gates have measured.';

-- Touches the advisory lock of the telescope's sets, gain_set.  Without it the latest of those that it had superseded is
-- what there is of the recording: that had been valid, or would have been if this one had not come.
create or replace function quarantine_gain_set(p_id bigint, p_reason text, p_quality jsonb default null) returns boolean
    language plpgsql security definer set search_path from current
    as $$
declare
    v_set gain_set;
begin
    perform _require_read_committed();
    if coalesce(p_reason, '') = '' then
        raise exception 'a gain set is quarantined for a reason: tell it' using errcode = 'AB001';
    end if;
    v_set := _held_gain_set(p_id);
    if v_set.state = 'quarantined' then
        return false;
    end if;
    update gain_set set state = 'quarantined', reason = left(p_reason, 4000), superseded_by = null,
        quality = coalesce(p_quality, quality), decided_at = clock_time() where id = p_id;
    if v_set.state = 'valid' then
        perform _restore_gain_sets(v_set);
    end if;
    return true;
end $$;
comment on function quarantine_gain_set(bigint, text, jsonb) is
    'Have a gain set never be chosen, for a reason; false if it is quarantined already, for the reason that was told first. The latest of those that it had superseded is valid again.';

-- Touches the advisory lock of the telescope's sets, gain_set.  Without it the latest of those that it had superseded is
-- what there is of the recording, as where it is quarantined.
create or replace function forget_gain_set(p_id bigint) returns boolean
    language plpgsql security definer set search_path from current
    as $$
declare
    v_set gain_set;
begin
    perform _require_read_committed();
    select * into v_set from gain_set where id = p_id;
    if v_set.id is null then
        return false;
    end if;
    perform _hold_gain_sets(v_set.telescope);
    delete from gain_set where id = p_id returning * into v_set;
    if v_set.id is null then
        return false;
    end if;
    if v_set.state = 'valid' then
        perform _restore_gain_sets(v_set);
    end if;
    return true;
end $$;
comment on function forget_gain_set(bigint) is
    'Remove a gain set from the database, not its folder; false if there is none of that number. The latest of those that it had superseded is valid again.';

-- Valid sets of a telescope nearest in time to p_at, on both sides, apart for those whose strip holds the declination
-- and for others: the latter only tell why there is none.
create or replace function find_gain_sets(p_telescope text, p_at timestamptz, p_declination double precision, p_limit integer default 3)
    returns setof jsonb
    language plpgsql stable security definer set search_path from current
    as $$
begin
    if p_at is null or not isfinite(p_at) or (p_declination between -90 and 90) is not true then
        raise exception 'gain sets are found for a time and a declination from -90 to 90 degrees, not for % and %',
            coalesce(p_at::text, 'null'), coalesce(p_declination::text, 'null') using errcode = 'AB001';
    end if;
    return query
        select to_jsonb(f) from (
            select x.* from (values (true), (false)) w (within) cross join lateral (
                (select g.* from gain_set g
                 where g.telescope = p_telescope and g.state = 'valid' and g.observed_at <= p_at
                   and (abs(g.declination - p_declination) <= g.strip) = w.within
                 order by g.observed_at desc limit least(greatest(p_limit, 1), 100))
                union all
                (select g.* from gain_set g
                 where g.telescope = p_telescope and g.state = 'valid' and g.observed_at > p_at
                   and (abs(g.declination - p_declination) <= g.strip) = w.within
                 order by g.observed_at limit least(greatest(p_limit, 1), 100))) x) f
        order by greatest(f.observed_at - p_at, p_at - f.observed_at), f.id;
end $$;
comment on function find_gain_sets(text, timestamptz, double precision, integer) is
    'Valid gain sets of a telescope nearest to a time, before and after it, the nearest first: up to p_limit on each side whose strip holds the declination (degrees), and as many of other strips.';

create or replace function get_gain_set(p_id bigint) returns jsonb
    language sql stable security definer set search_path from current
    as $$ select to_jsonb(g) from gain_set g where g.id = p_id $$;
comment on function get_gain_set(bigint) is 'A gain set, in whatever state; null if there is none of that number.';

create or replace function get_stored_gain_set(p_path text, p_checksum text) returns jsonb
    language sql stable security definer set search_path from current
    as $$ select to_jsonb(g) from gain_set g where g.path = p_path and g.checksum = p_checksum $$;
comment on function get_stored_gain_set(text, text) is
    'The gain set of a folder with what it holds (SHA-256), in whatever state; null if there is none.';

create or replace function list_gain_sets(
    p_telescope text default null, p_state text default null, p_since timestamptz default null, p_until timestamptz default null,
    p_limit integer default 100)
    returns setof jsonb
    language sql stable security definer set search_path from current
    as $$
        select to_jsonb(g) from gain_set g
        where (p_telescope is null or g.telescope = p_telescope) and (p_state is null or g.state = p_state)
          and (p_since is null or g.observed_at >= p_since) and (p_until is null or g.observed_at < p_until)
        order by g.observed_at desc, g.id desc limit least(greatest(p_limit, 1), 10000)
    $$;
comment on function list_gain_sets(text, text, timestamptz, timestamptz, integer) is
    'Gain sets, the latest recording first: of a telescope, in a state, recorded in a span of time.';
