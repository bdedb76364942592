-- Files of sub-bands: recorded as they arrive, and put into groups of one recording.
--
-- All that changes an intake holds its row until it commits: what several watchers of a folder do, they do one after the
-- other, and none of it needs more than an instant.  Lock order: intake, then what spawns touch.

create or replace function _held_intake(p_name text) returns intake
    language plpgsql
    as $$
declare
    v_intake intake;
begin
    select * into v_intake from intake where name = p_name for no key update;
    if v_intake.id is null then
        raise exception 'there is no intake called %', coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB015';
    end if;
    return v_intake;
end $$;

create or replace function _known_intake(p_name text) returns integer
    language plpgsql stable
    as $$
declare
    v_id integer;
begin
    select id into v_id from intake where name = p_name;
    if v_id is null then
        raise exception 'there is no intake called %', coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB015';
    end if;
    return v_id;
end $$;

-- Make an intake, or change how it groups from now on; what is not named stays.  Returns created, changed or unchanged.
-- Raises AB001, AB007.  Touches intake.
create or replace function set_intake(p_name text, p_policy jsonb default '{}') returns text
    language plpgsql security definer set search_path from current
    as $$
declare
    v_before intake;
    v_after  intake;
    v_made   boolean;
begin
    perform _require_read_committed();
    if p_name is null or p_name !~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$' then
        raise exception 'the name % of an intake is not valid: 1 to 128 letters, digits or _ . : -, no leading punctuation',
            coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB007';
    end if;
    if jsonb_typeof(p_policy) is distinct from 'object' then
        raise exception 'a policy is %; it must be a JSON object', left(p_policy::text, 100) using errcode = 'AB001';
    end if;
    perform _check_keys('policy of an intake', p_policy, array[
        'subbands', 'min_subbands', 'time_tolerance', 'declination_tolerance', 'timeout', 'queue', 'params', 'options']);
    insert into intake (name, created_at) values (p_name, clock_time()) on conflict (name) do nothing;
    v_made := found;
    v_before := _held_intake(p_name);
    v_after := v_before;
    v_after.subbands := coalesce(_option_number(p_policy, 'subbands', 1, 4096, true), v_before.subbands);
    v_after.min_subbands := coalesce(
        _option_number(p_policy, 'min_subbands', 1, v_after.subbands, true),
        case when v_after.subbands = v_before.subbands then v_before.min_subbands else ceil(0.75 * v_after.subbands) end);
    v_after.time_tolerance := coalesce(_option_seconds(p_policy, 'time_tolerance', 0, 86400), v_before.time_tolerance);
    v_after.declination_tolerance := coalesce(_option_number(p_policy, 'declination_tolerance', 0, 180), v_before.declination_tolerance);
    v_after.timeout := coalesce(_option_seconds(p_policy, 'timeout', 0, 31536000), v_before.timeout);
    v_after.queue := coalesce(_option_text(p_policy, 'queue', 128), v_before.queue);
    v_after.params := coalesce(_option(p_policy, 'params', 'object'), v_before.params);
    v_after.options := coalesce(_option(p_policy, 'options', 'object'), v_before.options);
    perform _check_size('params', v_after.params);
    perform _read_options(null, v_after.options);
    if v_after.options ?| '{key,key_period,key_scope,depends_on,when,workflow,node,id}' then
        raise exception 'options of a conversion are those of a task by itself, without key, parents, workflow and id' using errcode = 'AB001';
    end if;
    if v_after is not distinct from v_before then
        return case when v_made then 'created' else 'unchanged' end;
    end if;
    update intake set (subbands, min_subbands, time_tolerance, declination_tolerance, timeout, queue, params, options)
        = (v_after.subbands, v_after.min_subbands, v_after.time_tolerance, v_after.declination_tolerance, v_after.timeout,
           v_after.queue, v_after.params, v_after.options)
        where id = v_before.id;
    return case when v_made then 'created' else 'changed' end;
end $$;
comment on function set_intake(text, jsonb) is
    'Make an intake of sub-bands, or change how it groups: {subbands, min_subbands, time_tolerance, declination_tolerance, timeout, queue, params, options}. Returns created, changed or unchanged.';

-- Remove an intake with what it knows of files and groups, not the files, their conversions or what these made.
create or replace function remove_intake(p_name text) returns boolean
    language plpgsql security definer set search_path from current
    as $$
declare
    v_intake integer;
begin
    perform _require_read_committed();
    delete from intake where name = p_name returning id into v_intake;
    if v_intake is null then
        return false;
    end if;
    delete from subband where intake_id = v_intake;
    delete from subband_group where intake_id = v_intake;
    return true;
end $$;
comment on function remove_intake(text) is
    'Forget an intake with all it knows of files and groups, not the files, nor the tasks; false if there is none of that name.';

-- Whether sub-bands still go into a group: its conversion has not begun.
create or replace function _takes_subbands(p_state text) returns boolean
    language sql immutable
    as $$ select p_state in ('collecting', 'complete', 'partial') $$;

-- The group that a whole file belongs to: its stamp is near those of all in it, and declination and content are theirs; of
-- several one of whose files begins when it does, else the nearest in time.  Null: none.  Where the file's sub-band is another recording (it begins at another time by
-- more than a tenth of an integration), the file belongs to a group of its own: an observation that was started anew.
create or replace function _group_of(p_intake intake, p_file subband, p_integration double precision) returns bigint
    language sql stable
    as $$
        select g.id
        from subband_group g
        where g.intake_id = p_intake.id
          and g.first_stamp between p_file.stamp - 2 * p_intake.time_tolerance and p_file.stamp + 2 * p_intake.time_tolerance
          and g.last_stamp between p_file.stamp - 2 * p_intake.time_tolerance and p_file.stamp + 2 * p_intake.time_tolerance
          and (abs(g.declination_deg - p_file.declination_deg) <= p_intake.declination_tolerance
               or (g.declination_deg is null and p_file.declination_deg is null))
          and g.content is not distinct from p_file.content
          and not exists (
              select from subband s
              where s.group_id = g.id and s.number = p_file.number and s.state in ('grouped', 'late') and s.path <> p_file.path
                and abs(extract(epoch from s.begins_at - p_file.begins_at)) > 0.1 * coalesce(p_integration, 0) + 0.001)
        order by exists (
                     select from subband s
                     where s.group_id = g.id and s.state in ('grouped', 'late') and s.path <> p_file.path
                       and abs(extract(epoch from s.begins_at - p_file.begins_at)) <= 0.1 * coalesce(p_integration, 0) + 0.001) desc,
                 abs(extract(epoch from g.first_stamp + (g.last_stamp - g.first_stamp) / 2 - p_file.stamp)), g.id
        limit 1
    $$;

-- Take a file out of its group, if it has one whose conversion has not begun; a duplicate takes its place.
create or replace function _leave_group(p_file subband) returns void
    language plpgsql
    as $$
declare
    v_group subband_group;
begin
    select * into v_group from subband_group where id = p_file.group_id;
    if v_group.id is null or not _takes_subbands(v_group.state) then
        return;
    end if;
    update subband set state = 'waiting', group_id = null, reason = null where id = p_file.id;
    update subband set state = 'grouped', reason = null
        where p_file.state <> 'duplicate'
          and id = (select id from subband where group_id = v_group.id and number = p_file.number and state = 'duplicate' order by path limit 1);
    perform _measure_group(v_group.id);
    perform _review_group(v_group.id);
end $$;

-- The first and last stamp of what a group holds; one that holds nothing keeps them.
create or replace function _measure_group(p_group bigint) returns void
    language sql
    as $$
        update subband_group g set (first_stamp, last_stamp) = (
                select coalesce(min(s.stamp), g.first_stamp), coalesce(max(s.stamp), g.last_stamp)
                from subband s where s.group_id = g.id and s.state = 'grouped')
            where g.id = p_group
    $$;

-- Bring the state of a group up to what it holds, as long as its conversion has not begun; one that is complete is to be
-- converted.  One that lost all its files while it was collecting is none.
create or replace function _review_group(p_group bigint) returns void
    language plpgsql
    as $$
declare
    v_group subband_group;
    v_count integer;
begin
    select * into v_group from subband_group where id = p_group;
    v_count := (select count(*) from subband where group_id = p_group and state = 'grouped');
    if v_group.state = 'collecting' and v_count = 0 then
        delete from subband_group where id = p_group;
    elsif v_group.state = 'collecting' and v_count >= v_group.expected then
        perform _ask_conversion(v_group, 'complete');
    elsif v_group.state in ('complete', 'partial') then
        update subband_group set state = case when v_count >= expected then 'complete' else 'partial' end where id = p_group;
    end if;
end $$;

-- Spawn the next conversion of a group; the key belongs to this group and round alone.
create or replace function _ask_conversion(p_group subband_group, p_state text) returns uuid
    language plpgsql
    as $$
declare
    v_intake intake;
    v_round  integer := p_group.round + 1;
    v_task   uuid;
begin
    select * into v_intake from intake where id = p_group.intake_id;
    select s.task_id into v_task
        from spawn_task(
            coalesce(v_intake.queue, (select x.queue from executor x where x.name = 'visibility.convert_group'), 'default'),
            'visibility.convert_group',
            v_intake.params || jsonb_build_object('group', p_group.id, 'round', v_round),
            v_intake.options || jsonb_build_object('key', format('convert_group:%s:%s', p_group.id, v_round))) s;
    update subband_group set state = p_state, round = v_round, task_id = v_task, due_at = null, begun_at = null, ended_at = null, reason = null
        where id = p_group.id;
    return v_task;
end $$;

-- Record files as they are found, once for each version: [{path, version, state: waiting, whole or unreadable, number, stamp,
-- declination_deg, content, begins_at, integration_s, reason}].  A whole file is put into the group it belongs to,
-- which is made if there is none; the file that completes a group spawns its conversion with the same transaction.
-- Returns what became of each.  Raises AB001, AB015.  Touches intake, subband, subband_group and what spawn_tasks() touches.
create or replace function record_subbands(p_intake text, p_files jsonb)
    returns table (path text, state text, group_id bigint, reason text)
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_intake intake;
    v_file   subband;
    v_found  record;
begin
    perform _require_read_committed();
    if jsonb_typeof(p_files) is distinct from 'array' or exists (
            select from jsonb_array_elements(p_files) f
            where f ->> 'path' is null or f ->> 'version' is null or coalesce(f ->> 'state', '') not in ('waiting', 'whole', 'unreadable')
               or (f ->> 'state' = 'whole' and (f ->> 'number' is null or f ->> 'stamp' is null))) then
        raise exception 'files must be a list of {path, version, state, number, stamp, …}; state is waiting, whole or unreadable'
            using errcode = 'AB001';
    end if;
    if (select count(distinct f ->> 'path') < count(*) from jsonb_array_elements(p_files) f) then
        raise exception 'a file is named twice' using errcode = 'AB001';
    end if;
    v_intake := _held_intake(p_intake);
    for v_found in
        select * from jsonb_to_recordset(p_files) as f (
            path text, version text, state text, number integer, stamp timestamptz, declination_deg double precision, content text,
            begins_at timestamptz, integration_s double precision, reason text)
        order by f.stamp, f.number, f.path collate "C"
    loop
        v_file := null;
        v_file.intake_id := v_intake.id;
        v_file.path := v_found.path;
        v_file.version := v_found.version;
        v_file.state := v_found.state;
        v_file.number := v_found.number;
        v_file.stamp := v_found.stamp;
        v_file.declination_deg := v_found.declination_deg;
        v_file.content := v_found.content;
        v_file.begins_at := v_found.begins_at;
        v_file.reason := left(v_found.reason, 1000);
        v_file.changed_at := clock_time();
        perform _record_subband(v_intake, v_file, v_found.integration_s);
    end loop;
    return query
        select s.path, s.state, s.group_id, s.reason from subband s
        where s.intake_id = v_intake.id and s.path in (select f ->> 'path' from jsonb_array_elements(p_files) f) order by s.path;
exception when data_exception or integrity_constraint_violation then
    raise exception 'files cannot be recorded: %', sqlerrm using errcode = 'AB001';
end $$;
comment on function record_subbands(text, jsonb) is
    'Record files of sub-bands as they are found: [{path, version, state (waiting, whole, unreadable), number, stamp, declination_deg, content, begins_at, integration_s, reason}]. Whole ones are grouped, and a group that is complete gets its conversion. Returns what became of each.';

create or replace function _record_subband(p_intake intake, p_file subband, p_integration double precision) returns void
    language plpgsql
    as $$
declare
    v_old   subband;
    v_group subband_group;
    v_taken text;
begin
    select * into v_old from subband where intake_id = p_intake.id and path = p_file.path;
    if v_old.version = p_file.version and (v_old.group_id is not null or (v_old.state, v_old.reason) is not distinct from (p_file.state, p_file.reason)
                                           or (v_old.state = 'unreadable' and p_file.state = 'waiting')) then
        return;
    end if;
    if v_old.version = p_file.version then
        p_file.changed_at := v_old.changed_at;
    end if;
    if v_old.group_id is not null then
        select * into v_group from subband_group where id = v_old.group_id;
        if not _takes_subbands(v_group.state) and v_old.state <> 'duplicate' then
            if p_file.state = 'whole' then
                -- It stays what it is: the files of a conversion are the same at each of its attempts.
                update subband set (version, reason, changed_at, begins_at)
                    = (p_file.version, 'it changed after the conversion of its group had begun', p_file.changed_at, p_file.begins_at)
                    where id = v_old.id;
            end if;
            return;  -- what is not whole yet is looked at again
        end if;
        perform _leave_group(v_old);
    end if;
    if p_file.state = 'whole' and p_file.number not between 0 and p_intake.subbands - 1 then
        p_file.state := 'unreadable';
        p_file.reason := format('it is sub-band %s, and there are %s, counted from 0', p_file.number, p_intake.subbands);
    end if;
    if p_file.state = 'whole' then
        p_file.group_id := _group_of(p_intake, p_file, p_integration);
        if p_file.group_id is null then
            insert into subband_group (intake_id, state, expected, first_stamp, last_stamp, declination_deg, content, created_at, due_at)
                values (p_intake.id, 'collecting', p_intake.subbands, p_file.stamp, p_file.stamp, p_file.declination_deg, p_file.content,
                        clock_time(), clock_time() + p_intake.timeout)
                returning id into p_file.group_id;
        end if;
        select * into v_group from subband_group where id = p_file.group_id;
        select s.path into v_taken from subband s
            where s.group_id = v_group.id and s.number = p_file.number and s.state in ('grouped', 'late') and s.path <> p_file.path;
        p_file.state := case when v_taken is not null then 'duplicate' when _takes_subbands(v_group.state) then 'grouped' else 'late' end;
        p_file.reason := case p_file.state
            when 'duplicate' then format('sub-band %s of its group is %s', p_file.number, v_taken)
            when 'late' then case when v_group.round = 0 then 'the time of its group was out'
                                  else 'the conversion of its group had begun' end end;
    end if;
    insert into subband as s (intake_id, path, version, state, number, stamp, declination_deg, content, begins_at, group_id, reason, changed_at)
        values (p_file.intake_id, p_file.path, p_file.version, p_file.state, p_file.number, p_file.stamp, p_file.declination_deg,
                p_file.content, p_file.begins_at, p_file.group_id, p_file.reason, p_file.changed_at)
        on conflict (intake_id, path) do update
            set (version, state, number, stamp, declination_deg, content, begins_at, group_id, reason, changed_at)
                = (excluded.version, excluded.state, excluded.number, excluded.stamp, excluded.declination_deg, excluded.content,
                   excluded.begins_at, excluded.group_id, excluded.reason, excluded.changed_at);
    if p_file.state = 'grouped' then
        update subband_group
            set first_stamp = least(first_stamp, p_file.stamp), last_stamp = greatest(last_stamp, p_file.stamp),
                due_at = case when state = 'collecting' then clock_time() + p_intake.timeout end
            where id = p_file.group_id;
        perform _review_group(p_file.group_id);
    end if;
end $$;

-- Forget files that are gone.  What a conversion has begun with, or was late for, is kept: that tells what the product
-- was made of.  Returns how many were forgotten.  Raises AB015.
create or replace function forget_subbands(p_intake text, p_paths text[]) returns integer
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_intake intake;
    v_file   subband;
    v_files  bigint[];
begin
    perform _require_read_committed();
    v_intake := _held_intake(p_intake);
    v_files := array(
        select s.id from subband s left join subband_group g on g.id = s.group_id
        where s.intake_id = v_intake.id and s.path = any (p_paths)
          and (s.group_id is null or s.state = 'duplicate' or _takes_subbands(g.state))
        order by s.path);
    for n in 1..cardinality(v_files) loop
        select * into v_file from subband where id = v_files[n];  -- it may have taken the place of the one before
        perform _leave_group(v_file);
        delete from subband where id = v_file.id;
    end loop;
    return cardinality(v_files);
end $$;
comment on function forget_subbands(text, text[]) is
    'Forget files of sub-bands that are gone, but for those of a group whose conversion has begun; returns how many.';
