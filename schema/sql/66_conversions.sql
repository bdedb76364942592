-- Groups of sub-bands on their way: time-outs, conversions, and how they stand.

-- A group under the lock of its intake.  Raises AB015.
create or replace function _held_group(p_group bigint) returns subband_group
    language plpgsql
    as $$
declare
    v_group subband_group;
begin
    perform from intake where id = (select intake_id from subband_group where id = p_group) for no key update;
    select * into v_group from subband_group where id = p_group;
    if v_group.id is null then
        raise exception 'there is no sub-band group %', coalesce(p_group::text, 'null') using errcode = 'AB015';
    end if;
    return v_group;
end $$;

-- Why a group that has asked for a conversion gets none: its task failed, was cancelled or is gone.  Null: it may come.
create or replace function _conversion_lost(p_group subband_group) returns text
    language sql stable
    as $$
        select case
            when p_group.state not in ('complete', 'partial', 'converting') then null
            when not exists (select from task t where t.id = p_group.task_id) then format('its task %s is gone', p_group.task_id)
            else (select format('its task %s %s: %s', p_group.task_id, case r.state when 'failed' then 'failed' else 'was cancelled' end,
                                coalesce(r.error ->> 'message', r.error ->> 'reason', 'no reason is known'))
                  from get_results(array[p_group.task_id]) r where r.state in ('failed', 'cancelled'))
            end
    $$;

-- What time has brought: groups that have waited long enough are converted as they are, or fail; files that have not become
-- whole are unreadable; a conversion that failed fails its group.  A group waits on for files of it that are being
-- written.  Returns the groups that stand otherwise than before.  Raises AB015.  Touches intake, subband, subband_group and what
-- spawn_tasks() touches.
create or replace function settle_subband_groups(p_intake text)
    returns table (id bigint, state text, reason text)
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_intake  intake;
    v_now     timestamptz := clock_time();
    v_group   subband_group;
    v_count   integer;
    v_reason  text;
    v_ended   uuid[];
    v_settled bigint[] := '{}';
begin
    perform _require_read_committed();
    v_intake := _held_intake(p_intake);
    update subband s set state = 'unreadable', reason = format('not whole for %s s: %s', extract(epoch from v_intake.timeout)::integer, s.reason)
        where s.intake_id = v_intake.id and s.state = 'waiting' and s.changed_at <= v_now - v_intake.timeout;
    v_ended := array(
        select t.task_id
        from get_states(array(select g.task_id from subband_group g
                              where g.intake_id = v_intake.id and g.state in ('complete', 'partial', 'converting'))) t
        where t.state is null or t.state in ('failed', 'cancelled'));
    for v_group in
        select g.* from subband_group g
        where g.intake_id = v_intake.id and g.state in ('collecting', 'complete', 'partial', 'converting')
          and (g.due_at <= v_now or g.task_id = any (v_ended))
        order by g.first_stamp, g.id
    loop
        v_count := null;
        v_reason := _conversion_lost(v_group);
        if v_group.state = 'collecting' and not exists (
                select from subband s
                where s.intake_id = v_intake.id and s.state = 'waiting' and s.stamp >= v_group.last_stamp - 2 * v_intake.time_tolerance
                  and s.stamp <= v_group.first_stamp + 2 * v_intake.time_tolerance) then
            v_count := (select count(*) from subband s where s.group_id = v_group.id and s.state = 'grouped');
            if v_count < v_intake.min_subbands then
                v_reason := format('%s of %s sub-bands came, and no more for %s s; at least %s are converted', v_count, v_group.expected,
                                   extract(epoch from v_intake.timeout)::integer, v_intake.min_subbands);
            end if;
        end if;
        if v_reason is not null then
            update subband_group g set state = 'failed', due_at = null, ended_at = v_now, reason = left(v_reason, 1000) where g.id = v_group.id;
        elsif v_count is not null then
            perform _ask_conversion(v_group, 'partial');
        end if;
        if v_reason is not null or v_count is not null then
            v_settled := v_settled || v_group.id;
        end if;
    end loop;
    return query select g.id, g.state, g.reason from subband_group g where g.id = any (v_settled) order by g.id;
end $$;
comment on function settle_subband_groups(text) is
    'Settle what time has brought to the groups of an intake: those that have waited long enough, and those whose conversion failed. Returns the groups that stand otherwise.';

-- Ask for a conversion of a group as it is now, with the sub-bands that were late: the first one, or another.  One
-- that was asked for and has not begun is it.  Returns its task.  Raises AB004, AB015.
create or replace function convert_subband_group(p_group bigint) returns uuid
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_group subband_group;
    v_count integer;
begin
    perform _require_read_committed();
    v_group := _held_group(p_group);
    if _conversion_lost(v_group) is null then
        if v_group.state in ('complete', 'partial') then
            return v_group.task_id;
        elsif v_group.state = 'converting' then
            raise exception 'sub-band group % is being converted by task %', p_group, v_group.task_id using errcode = 'AB004';
        end if;
    end if;
    update subband set state = 'grouped', reason = null where group_id = p_group and (state = 'late' or state = 'grouped' and reason is not null);
    v_count := (select count(*) from subband where group_id = p_group and state = 'grouped');
    if v_count = 0 then
        raise exception 'sub-band group % has no files', p_group using errcode = 'AB004';
    end if;
    perform _measure_group(p_group);
    return _ask_conversion(v_group, case when v_count >= v_group.expected then 'complete' else 'partial' end);
end $$;
comment on function convert_subband_group(bigint) is
    'Have a group converted as it is now, or once more, with the sub-bands that came late; returns the task.';

-- The conversion of a group begins: from now on its files are settled, and what else arrives is late; what changes is noted beside it.  Made again it tells
-- the same.  Null: another conversion was asked for since, and this one is not wanted.  Raises AB015.
create or replace function begin_conversion(p_group bigint, p_round integer, p_task uuid) returns jsonb
    language plpgsql security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_group subband_group;
    v_name  text;
begin
    perform _require_read_committed();
    v_group := _held_group(p_group);
    if v_group.round is distinct from p_round or v_group.state = 'collecting' then
        return null;
    end if;
    if v_group.state <> 'converted' then
        v_name := coalesce(v_group.name, to_char(v_group.first_stamp at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS'));
        if v_group.name is null and exists (select from subband_group where intake_id = v_group.intake_id and name = v_name) then
            v_name := v_name || '_' || v_group.id;  -- as of another declination
        end if;
        update subband_group set state = 'converting', task_id = p_task, begun_at = coalesce(begun_at, clock_time()), ended_at = null,
                                 reason = null, name = v_name
            where id = p_group;
        update subband set reason = null where group_id = p_group and state = 'grouped' and reason is not null;  -- they are read as they are now
    end if;
    return get_subband_group(p_group);
end $$;
comment on function begin_conversion(bigint, integer, uuid) is
    'The conversion of a group begins: what arrives from now on is late. Returns the group with its files; null if another conversion was asked for since.';

-- The conversion has ended with a product; false: it is not the one that was asked for last.  Raises AB015.
create or replace function end_conversion(p_group bigint, p_round integer, p_product jsonb) returns boolean
    language plpgsql security definer set search_path from current
    as $$
declare
    v_group subband_group;
begin
    perform _require_read_committed();
    v_group := _held_group(p_group);
    if v_group.round is distinct from p_round or v_group.state = 'collecting' then
        return false;
    end if;
    update subband_group set state = 'converted', product = p_product, ended_at = clock_time(), reason = null where id = p_group;
    return true;
end $$;
comment on function end_conversion(bigint, integer, jsonb) is
    'The conversion of a group has made its product; false if another conversion was asked for since.';

-- Looks --------------------------------------------------------------------------------------------

create or replace function _group_document(p_group subband_group) returns jsonb
    language sql stable
    as $$
        select jsonb_build_object(
            'id', p_group.id, 'intake', i.name, 'state', case when l.reason is null then p_group.state else 'failed' end,
            'name', p_group.name, 'first_stamp', p_group.first_stamp, 'last_stamp', p_group.last_stamp,
            'declination_deg', p_group.declination_deg, 'declination_tolerance_deg', i.declination_tolerance, 'content', p_group.content, 'expected', p_group.expected,
            'present', coalesce(f.present, '[]'),
            'missing', (select coalesce(jsonb_agg(n order by n), '[]') from generate_series(0, p_group.expected - 1) n
                        where not coalesce(f.present, '[]') @> to_jsonb(n)),
            'late', coalesce(f.late, '[]'), 'changed', coalesce(f.changed, '[]'), 'duplicates', coalesce(f.duplicates, 0), 'round', p_group.round, 'task_id', p_group.task_id,
            'created_at', p_group.created_at, 'due_at', p_group.due_at, 'begun_at', p_group.begun_at, 'ended_at', p_group.ended_at,
            'product', p_group.product, 'reason', coalesce(l.reason, p_group.reason))
        from intake i
        cross join lateral (select _conversion_lost(p_group) as reason) l
        cross join lateral (
            select jsonb_agg(number order by number) filter (where state = 'grouped') as present,
                   jsonb_agg(number order by number) filter (where state = 'late') as late,
                   jsonb_agg(number order by number) filter (where state = 'grouped' and reason is not null) as changed,
                   count(*) filter (where state = 'duplicate') as duplicates
            from subband where group_id = p_group.id) f
        where i.id = p_group.intake_id
    $$;

create or replace function get_subband_group(p_group bigint) returns jsonb
    language plpgsql stable security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_found jsonb := (select _group_document(g) from subband_group g where g.id = p_group);
begin
    if v_found is null then
        raise exception 'there is no sub-band group %', coalesce(p_group::text, 'null') using errcode = 'AB015';
    end if;
    return v_found || jsonb_build_object('files', (
        select coalesce(jsonb_agg(jsonb_build_object(
            'path', s.path, 'version', s.version, 'state', s.state, 'number', s.number, 'stamp', s.stamp, 'begins_at', s.begins_at,
            'reason', s.reason) order by s.number, s.state, s.path), '[]')
        from subband s where s.group_id = p_group));
end $$;
comment on function get_subband_group(bigint) is 'One group of sub-bands with its files; AB015 if there is none of that number.';

create or replace function list_subband_groups(
    p_intake text, p_states text[] default null, p_before timestamptz default null, p_limit integer default 100)
    returns setof jsonb
    language plpgsql stable security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_intake integer := _known_intake(p_intake);
begin
    return query
        select d.document
        from subband_group g
        cross join lateral (select _group_document(g) as document) d
        where g.intake_id = v_intake and (p_before is null or g.first_stamp < p_before)
          and (p_states is null or d.document ->> 'state' = any (p_states))
        order by g.first_stamp desc, g.id desc
        limit least(greatest(p_limit, 1), 10000);
end $$;
comment on function list_subband_groups(text, text[], timestamptz, integer) is
    'Groups of an intake, the latest first, only of these states and with the first stamp before a time; how they stand is told as settling them would leave it.';

create or replace function changed_subbands(p_intake text, p_paths text[], p_versions text[]) returns setof integer
    language plpgsql stable security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
declare
    v_intake integer := _known_intake(p_intake);
begin
    return query
        select f.n::integer
        from unnest(p_paths, p_versions) with ordinality as f (path, version, n)
        left join subband s on s.intake_id = v_intake and s.path = f.path
        where s.id is null or s.version <> f.version or s.state in ('waiting', 'unreadable')
        order by f.n;
end $$;
comment on function changed_subbands(text, text[], text[]) is
    'Which of these files, by number from 1, an intake does not know in this version, or not as one that can be used.';

create or replace function list_subbands(
    p_intake text, p_states text[] default null, p_open boolean default false, p_after text default null, p_limit integer default 1000)
    returns table (path text, version text, state text, number integer, stamp timestamptz, declination_deg double precision, group_id bigint, reason text)
    language plpgsql stable security definer set search_path from current set enable_seqscan = off set jit = off
    as $$
#variable_conflict use_column
declare
    v_intake integer := _known_intake(p_intake);
begin
    return query
        select s.path, s.version, s.state, s.number, s.stamp, s.declination_deg, s.group_id, s.reason
        from subband s
        where s.intake_id = v_intake and (p_after is null or s.path > p_after) and (p_states is null or s.state = any (p_states))
          and (not p_open or s.id in (
              select o.id from subband o where o.intake_id = v_intake and o.state in ('waiting', 'unreadable')
              union all
              select o.id from subband_group g join subband o on o.group_id = g.id
              where g.intake_id = v_intake and g.state in ('collecting', 'complete', 'partial')))
        order by s.path limit least(greatest(p_limit, 1), 10000);
end $$;
comment on function list_subbands(text, text[], boolean, text, integer) is
    'Files of an intake by path, of these states; p_open: only those that no conversion has begun with; p_after is the last path of the page before.';

create or replace function list_intakes()
    returns table (
        name text, subbands integer, min_subbands integer, time_tolerance_seconds double precision, declination_tolerance_deg double precision,
        timeout_seconds double precision, queue text, params jsonb, options jsonb, created_at timestamptz)
    language sql stable security definer set search_path from current
    as $$
        select i.name, i.subbands, i.min_subbands, extract(epoch from i.time_tolerance)::double precision, i.declination_tolerance,
               extract(epoch from i.timeout)::double precision, i.queue, i.params, i.options, i.created_at
        from intake i order by i.name
    $$;
comment on function list_intakes() is 'Intakes of sub-bands, and how each groups.';
