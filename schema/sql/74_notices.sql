-- Who is told of alerts: the scheduler that leads measures, notes what has changed, and sends what is due.

-- Measure all alerts, if the caller has the lead or nobody has, and hand out the messages that are due: each to one caller, for
-- a minute, after which it is handed out anew.  Whoever measures holds the row of the lead, so that no two do it at a time; an event
-- and its messages are written in the transaction that changes the state, so there are neither two of one nor none.
-- Touches leader, alert, alert_event, alert_notice.
create or replace function step_alerts(p_holder text, p_lease double precision, p_disks jsonb default '{}') returns jsonb
    language plpgsql security definer set search_path from current
    as $$
declare
    v_now    timestamptz := clock_time();
    v_alert  alert;
    v_leader text;
    v_due    jsonb;
begin
    perform _require_read_committed();
    insert into leader as l (role, holder, until) values ('alerts', p_holder, v_now + make_interval(secs => p_lease))
        on conflict (role) do update set holder = excluded.holder, until = excluded.until
        -- Nobody's lease lasts longer than his own says: the clock may have been set back.
        where l.holder = p_holder or l.until <= v_now or l.until > v_now + make_interval(secs => p_lease);
    select holder into v_leader from leader where role = 'alerts';
    if v_leader <> p_holder then
        return jsonb_build_object('leader', v_leader, 'folders', '[]'::jsonb, 'notices', '[]'::jsonb);
    end if;
    for v_alert in select * from alert order by id for no key update loop
        begin
            perform _step_alert(v_alert, p_disks);
        exception when others then  -- one that fails must not keep the others from being measured
            if sqlstate like '40%' then
                raise;
            end if;
            update alert set measured_at = v_now, value = null, subject = null, error = left(sqlerrm, 1000) where id = v_alert.id;
        end;
    end loop;
    v_due := _due_notices();  -- first: what is handed out is due later then
    return jsonb_build_object(
        'leader', v_leader,
        'folders', (select coalesce(jsonb_agg(distinct a.options -> 'folder'), '[]') from alert a where a.options ? 'folder'),
        'notices', v_due,
        'next_seconds', (select extract(epoch from min(due_at) - v_now) from alert_notice where due_at is not null));
end $$;
comment on function step_alerts(text, double precision, jsonb) is
    'Measure all alerts, if nobody else leads, and hand out the messages that are due. p_disks: shares of disks that are free, by folder.';

-- What nobody can measure leaves the state as it is: that an image is missing does not say that noise is low.
create or replace function _step_alert(p_alert alert, p_disks jsonb) returns void
    language plpgsql
    as $$
declare
    v_now      timestamptz := clock_time();
    v_found    record;
    v_breached boolean;
begin
    select * into v_found from _measured(p_alert.measure, p_alert.options, p_disks) m;
    p_alert.value := v_found.value;
    p_alert.subject := v_found.subject;
    v_breached := _is_breached(p_alert, v_found.value);
    if v_breached then
        p_alert.breached_since := coalesce(p_alert.breached_since, v_now);
    elsif not v_breached then
        p_alert.breached_since := null;
    end if;
    if p_alert.state = 'ok' and v_breached and p_alert.breached_since + p_alert.hold <= v_now then
        p_alert.state := 'firing';
        p_alert.changed_at := v_now;
        perform _note_event(p_alert, 'firing', not _is_silent(p_alert));
        p_alert.told := not _is_silent(p_alert);
    elsif p_alert.state = 'firing' and not v_breached then
        p_alert.state := 'ok';
        p_alert.changed_at := v_now;
        -- Who was told that it fires waits for this, be it silent now or not.
        perform _note_event(p_alert, 'recovered', p_alert.told);
        p_alert.told := false;
    elsif p_alert.state = 'firing' and not p_alert.told and not _is_silent(p_alert) then
        perform _notify((select max(e.id) from alert_event e where e.alert_id = p_alert.id), p_alert.targets);
        p_alert.told := true;
    end if;
    update alert
        set state = p_alert.state, told = p_alert.told, breached_since = p_alert.breached_since, changed_at = p_alert.changed_at,
            measured_at = v_now, value = p_alert.value, subject = p_alert.subject, error = null
        where id = p_alert.id;
end $$;

create or replace function _note_event(p_alert alert, p_state text, p_tell boolean) returns void
    language plpgsql
    as $$
declare
    v_id    bigint;
    v_below bigint;
begin
    insert into alert_event (alert_id, at, state, value, threshold, severity, message, silenced)
        values (p_alert.id, clock_time(), p_state, p_alert.value, p_alert.threshold, p_alert.severity,
                _alert_message(p_alert, p_alert.value, p_alert.subject), not p_tell)
        returning id into v_id;
    if p_tell then
        perform _notify(v_id, p_alert.targets);
    end if;
    select e.id into v_below from alert_event e where e.alert_id = p_alert.id order by e.id desc offset 1000 limit 1;
    delete from alert_notice where event_id in (select e.id from alert_event e where e.alert_id = p_alert.id and e.id <= v_below);
    delete from alert_event where alert_id = p_alert.id and id <= v_below;
end $$;

create or replace function _notify(p_event bigint, p_targets text[]) returns void
    language sql
    as $$
        insert into alert_notice (event_id, alert_id, target, due_at)
            select p_event, e.alert_id, t, clock_time()
            from alert_event e, (select distinct u as t from unnest(p_targets) u) d where e.id = p_event
    $$;

create or replace function _due_notices() returns jsonb
    language plpgsql
    as $$
declare
    v_notices jsonb;
begin
    with due as (
        select id from alert_notice where due_at <= clock_time() order by id limit 20 for no key update
    ), taken as (
        update alert_notice n set attempt = n.attempt + 1, due_at = clock_time() + interval '1 minute' from due where n.id = due.id
        returning n.*
    )
    select coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'attempt', t.attempt, 'target', t.target) || _notice_document(e, a) order by t.id), '[]')
        into v_notices
        from taken t join alert_event e on e.id = t.event_id join alert a on a.id = t.alert_id;
    return v_notices;
end $$;

-- What is told of an event.
create or replace function _notice_document(p_event alert_event, p_alert alert) returns jsonb
    language sql stable
    as $$
        select jsonb_build_object(
            'alert', p_alert.name, 'state', p_event.state, 'severity', p_event.severity, 'measure', p_alert.measure, 'at', p_event.at,
            'value', p_event.value, 'threshold', p_event.threshold, 'message', p_event.message)
    $$;

-- A message was sent, or p_error tells why not; it is then tried again after 10 seconds, 20, 40, and so on to 10 minutes, 20 times
-- in all, which takes two and a half hours.  Returns until when that waits in seconds; null: it was sent, given up, or handed to
-- somebody else since.
create or replace function end_notice(p_id bigint, p_attempt integer, p_error text default null) returns double precision
    language plpgsql security definer set search_path from current
    as $$
declare
    v_wait double precision := case when p_error is not null and p_attempt < 20 then least(600, 10 * 2.0 ^ (p_attempt - 1)) end;
begin
    perform _require_no_upgrade();
    update alert_notice
        set due_at = clock_time() + make_interval(secs => v_wait), error = left(p_error, 1000),
            sent_at = case when p_error is null then clock_time() end
        where id = p_id and attempt = p_attempt and due_at is not null;
    return case when found then v_wait end;
end $$;
comment on function end_notice(bigint, integer, text) is
    'Note that a message was sent, or why not; returns the seconds after which it is tried again, null for never.';

create or replace function list_alert_events(p_name text default null, p_before bigint default null, p_limit integer default 50)
    returns setof jsonb
    language plpgsql stable security definer set search_path from current
    as $$
begin
    if p_name is not null and not exists (select from alert where name = p_name) then
        raise exception 'there is no alert %', quote_literal(left(p_name, 200)) using errcode = 'AB022';
    end if;
    return query
        select _notice_document(e, a) || jsonb_build_object(
            'id', e.id, 'silenced', e.silenced and not exists (select from alert_notice n where n.event_id = e.id),
            'notices', (select coalesce(jsonb_agg(jsonb_build_object(
                            'target', n.target, 'attempts', n.attempt, 'sent_at', n.sent_at, 'due_at', n.due_at, 'error', n.error,
                            'state', case when n.sent_at is not null then 'sent' when n.due_at is not null then 'waiting' else 'given up' end)
                            order by n.id), '[]') from alert_notice n where n.event_id = e.id))
        from alert_event e join alert a on a.id = e.alert_id
        where (p_name is null or a.name = p_name) and (p_before is null or e.id < p_before)
        order by e.id desc limit least(greatest(p_limit, 1), 1000);
end $$;
comment on function list_alert_events(text, bigint, integer) is
    'When alerts began to fire and recovered, the latest first, and what became of each message; p_before is the last id of the page before.';
