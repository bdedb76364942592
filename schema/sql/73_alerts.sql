-- Alerts: rules, and how each stands.  What is measured stands in 72_measures.sql, who is told when in 74_notices.sql.
-- Lock order: leader, alert by id, alert_notice by id, after all that moves tasks.

create or replace function _known_alert(p_name text) returns alert
    language plpgsql
    as $$
declare
    v_alert alert;
begin
    select * into v_alert from alert where name = p_name for no key update;
    if v_alert.id is null then
        raise exception 'there is no alert %', coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB022';
    end if;
    return v_alert;
end $$;

-- A rule, checked.  Options stand beside the other keys; each measure has its own.
create or replace function _read_alert(p_name text, p_alert jsonb) returns alert
    language plpgsql stable
    as $$
declare
    v_new     alert;
    v_measure record;
    v_bad     text;
begin
    if p_name is null or p_name !~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$' then
        raise exception 'alert name % is not valid: 1 to 128 letters, digits or _ . : - and no leading punctuation',
            coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB007';
    end if;
    if jsonb_typeof(p_alert) is distinct from 'object' then
        raise exception 'an alert is %; it must be a JSON object', left(p_alert::text, 100) using errcode = 'AB001';
    end if;
    v_new.name := p_name;
    v_new.measure := _option_text(p_alert, 'measure', 100);
    select m.* into v_measure from _measures() m where m.name = v_new.measure;
    if v_measure.name is null then
        raise exception 'option measure is %; it must be one of %', coalesce(quote_literal(v_new.measure), 'not given'),
            (select string_agg(m.name, ', ' order by m.name) from _measures() m) using errcode = 'AB001';
    end if;
    perform _check_keys('alert', jsonb_strip_nulls(p_alert), array['measure', 'threshold', 'for', 'severity', 'targets'] || v_measure.options);
    v_new.threshold := _option_number(p_alert, 'threshold', -1e300, 1e300);
    if v_new.threshold is null then
        raise exception 'option threshold is not given; % is in %', v_new.measure, v_measure.unit using errcode = 'AB001';
    end if;
    v_new.hold := coalesce(_option_seconds(p_alert, 'for', 0, 31536000), interval '0');
    v_new.severity := coalesce(_option_word(p_alert, 'severity', '^(warning|critical)$', 'warning or critical'), 'warning');
    v_new.targets := coalesce(_option_texts(p_alert, 'targets'), '{}');
    select t into v_bad from unnest(v_new.targets) t where t !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$' limit 1;
    if found then
        -- Not repeated: it may be the address itself, with a password.
        raise exception 'option targets holds what is no name: 1 to 64 letters, digits or _ . -, of the setting alert_targets' using errcode = 'AB001';
    end if;
    perform _option_text(p_alert, k, 1000) from unnest('{queue,executor,schedule,telescope,folder,code}'::text[]) k;
    perform _option_seconds(p_alert, 'window', 1, 31536000), _option_number(p_alert, 'least', 1, 1000000, true);
    v_new.options := (select coalesce(jsonb_object_agg(k, v), '{}') from jsonb_each(p_alert) o (k, v)
                      where k = any (v_measure.options) and v <> 'null');
    select k into v_bad from unnest(v_measure.needed) k where not v_new.options ? k limit 1;
    if found then
        raise exception 'option % is not given; % needs it', v_bad, v_new.measure using errcode = 'AB001';
    end if;
    return v_new;
end $$;

-- A rule that is changed stands as it stood until it is measured again.
create or replace function set_alert(p_name text, p_alert jsonb) returns text
    language plpgsql security definer set search_path from current
    as $$
declare
    v_new alert := _read_alert(p_name, p_alert);
    v_old alert;
begin
    perform _require_no_upgrade();
    insert into alert (name, measure, threshold, options, hold, severity, targets, created_at)
        values (p_name, v_new.measure, v_new.threshold, v_new.options, v_new.hold, v_new.severity, v_new.targets, clock_time())
        on conflict (name) do nothing;
    if found then
        return 'created';
    end if;
    v_old := _known_alert(p_name);
    if (v_new.measure, v_new.threshold, v_new.options, v_new.hold, v_new.severity, v_new.targets)
       is not distinct from (v_old.measure, v_old.threshold, v_old.options, v_old.hold, v_old.severity, v_old.targets) then
        return 'unchanged';
    end if;
    update alert
        set measure = v_new.measure, threshold = v_new.threshold, options = v_new.options, hold = v_new.hold,
            severity = v_new.severity, targets = v_new.targets
        where id = v_old.id;
    return 'changed';
end $$;
comment on function set_alert(text, jsonb) is
    'Make or change an alert: measure, threshold, and for, severity, targets, and what the measure takes. Returns created, changed or unchanged.';

create or replace function remove_alert(p_name text) returns boolean
    language plpgsql security definer set search_path from current
    as $$
declare
    v_id integer;
begin
    perform _require_no_upgrade();
    delete from alert where name = p_name returning id into v_id;
    delete from alert_notice where alert_id = v_id;
    delete from alert_event where alert_id = v_id;
    return v_id is not null;
end $$;
comment on function remove_alert(text) is 'Remove an alert, its history, and what of it was not sent yet.';

-- It goes on being measured; what begins to fire meanwhile is told when the silence ends, if it fires then still.
create or replace function silence_alert(p_name text, p_seconds double precision, p_reason text default null) returns jsonb
    language plpgsql security definer set search_path from current
    as $$
declare
    v_alert alert;
begin
    perform _require_no_upgrade();
    if p_seconds is null or not p_seconds between 0 and 31536000 then
        raise exception 'an alert cannot be silent for % seconds; it must be from 0, which ends the silence, to a year',
            coalesce(p_seconds::text, 'null') using errcode = 'AB001';
    end if;
    v_alert := _known_alert(p_name);
    update alert
        set silenced_until = case when p_seconds > 0 then clock_time() + make_interval(secs => p_seconds) end,
            silenced_by = case when p_seconds > 0 then session_user end,
            silence_reason = case when p_seconds > 0 then left(p_reason, 1000) end
        where id = v_alert.id returning * into v_alert;
    return _alert_document(v_alert);
end $$;
comment on function silence_alert(text, double precision, text) is
    'Have nobody told that an alert fires, for so many seconds; 0 ends that. AB022 if there is none of that name.';

create or replace function _is_silent(p_alert alert) returns boolean
    language sql stable
    as $$ select coalesce(p_alert.silenced_until > clock_time(), false) $$;

create or replace function _alert_document(p_alert alert) returns jsonb
    language sql stable
    as $$
        select p_alert.options || jsonb_build_object(
            'name', p_alert.name, 'measure', p_alert.measure, 'threshold', p_alert.threshold, 'unit', m.unit, 'below', m.below,
            'for', extract(epoch from p_alert.hold), 'severity', p_alert.severity, 'targets', p_alert.targets,
            'created_at', p_alert.created_at, 'state', p_alert.state, 'changed_at', p_alert.changed_at,
            'breached_since', p_alert.breached_since, 'measured_at', p_alert.measured_at, 'value', p_alert.value,
            'subject', p_alert.subject, 'error', p_alert.error)
            || case when _is_silent(p_alert)
                then jsonb_build_object('silenced_until', p_alert.silenced_until, 'silenced_by', p_alert.silenced_by,
                                        'silence_reason', p_alert.silence_reason)
                else '{"silenced_until": null}' end
        from _measures() m where m.name = p_alert.measure
    $$;

create or replace function list_alerts() returns setof jsonb
    language sql stable security definer set search_path from current
    as $$ select _alert_document(a) from alert a order by a.name $$;
comment on function list_alerts() is 'All alerts by name, with how each stands and what was measured last.';

create or replace function measure_alert(p_name text, p_alert jsonb default null, p_disks jsonb default '{}') returns jsonb
    language plpgsql stable security definer set search_path from current
    as $$
declare
    v_alert alert;
    v_found record;
begin
    if p_alert is null then
        select * into v_alert from alert where name = p_name;
        if v_alert.id is null then
            raise exception 'there is no alert %', coalesce(quote_literal(left(p_name, 200)), 'null') using errcode = 'AB022';
        end if;
    else
        v_alert := _read_alert(p_name, p_alert);
    end if;
    select * into v_found from _measured(v_alert.measure, v_alert.options, p_disks) m;
    return jsonb_build_object(
        'value', v_found.value, 'subject', v_found.subject, 'breached', _is_breached(v_alert, v_found.value),
        'message', _alert_message(v_alert, v_found.value, v_found.subject));
end $$;
comment on function measure_alert(text, jsonb, jsonb) is
    'What an alert sees now, or would as p_alert describes it, and whether its threshold is passed; changes nothing. p_disks: shares of disks that are free, by folder.';

create or replace function _is_breached(p_alert alert, p_value double precision) returns boolean
    language sql stable
    as $$
        select case when m.below then p_value < p_alert.threshold else p_value > p_alert.threshold end
        from _measures() m where m.name = p_alert.measure
    $$;

-- Such as 1 h 5 s: to the second, for what has passed a threshold has often passed it by little.
create or replace function _tell_seconds(p_value double precision) returns text
    language sql immutable
    as $$
        select case when p_value < 60 then trim_scale(round(p_value::numeric, 3)) || ' s'
                    else concat_ws(' ', nullif(div(s, 86400), 0) || ' d', nullif(div(mod(s, 86400), 3600), 0) || ' h',
                                   nullif(div(mod(s, 3600), 60), 0) || ' min', nullif(mod(s, 60), 0) || ' s') end
        from (select round(p_value::numeric) as s) n
    $$;

create or replace function _with_unit(p_value double precision, p_unit text) returns text
    language sql immutable
    as $$ select case p_unit when '1' then to_char(100 * p_value, 'FM999999990.0') || ' %'
                 when 's' then _tell_seconds(p_value)
                 when 'Jy/beam' then trim_scale(round(1000 * p_value::numeric, 3))::text || ' mJy/beam'
                 else trim_scale(round(p_value::numeric, 9))::text || ' ' || case p_value when 1 then rtrim(p_unit, 's') else p_unit end end $$;

create or replace function _alert_message(p_alert alert, p_value double precision, p_subject text) returns text
    language sql stable
    as $$
        select format('%s%s is %s; %s is %s', p_alert.measure, ' of ' || p_subject,
                      coalesce(_with_unit(p_value, m.unit), 'not known'), case when m.below then 'the least' else 'the most' end,
                      _with_unit(p_alert.threshold, m.unit))
        from _measures() m where m.name = p_alert.measure
    $$;
