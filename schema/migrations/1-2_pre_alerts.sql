-- Version 2 knows alerts.

create table alert (
    id             integer generated always as identity primary key,
    name           text not null unique,
    measure        text not null,
    threshold      double precision not null,
    options        jsonb not null default '{}',
    hold           interval not null default interval '0',
    severity       text not null default 'warning',
    targets        text[] not null default '{}',
    created_at     timestamptz not null,
    state          text not null default 'ok',
    told           boolean not null default false,
    breached_since timestamptz,
    changed_at     timestamptz,
    measured_at    timestamptz,
    value          double precision,
    subject        text,
    error          text,
    silenced_until timestamptz,
    silenced_by    text,
    silence_reason text,
    constraint alert_name_valid check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$'),
    constraint alert_severity_known check (severity in ('warning', 'critical')),
    constraint alert_state_known check (state in ('ok', 'firing')),
    constraint alert_told_of_fire check (not told or state = 'firing')
) with (fillfactor = 50);
comment on table alert is 'Rules by which people are told that something is wrong, each with how it stands.';
comment on column alert.options is 'Of what is measured: queue, executor, schedule, telescope, folder, code; and window, least.';
comment on column alert.hold is 'For how long the threshold must be passed before it fires.';
comment on column alert.targets is 'Names of settings that say where messages go; the addresses themselves, which are secret, are not here.';
comment on column alert.told is 'Whether anybody was told that it fires: who was is told that it is over.';
comment on column alert.breached_since is 'Since when the threshold is passed.';
comment on column alert.error is 'Why it could not be measured.';
comment on column alert.value is 'What was measured last; null: nothing could be, and the state is as it was.';

create table alert_event (
    id        bigint generated always as identity primary key,
    alert_id  integer not null,
    at        timestamptz not null,
    state     text not null,
    value     double precision,
    threshold double precision not null,
    severity  text not null,
    message   text not null,
    silenced  boolean not null,
    constraint alert_event_state_known check (state in ('firing', 'recovered'))
);
create index alert_event_of on alert_event (alert_id, id);
comment on table alert_event is 'When alerts began to fire and when they recovered: the latest 1,000 of each.';

create table alert_notice (
    id        bigint generated always as identity primary key,
    event_id  bigint not null,
    alert_id  integer not null,
    target    text not null,
    attempt   integer not null default 0,
    due_at    timestamptz,
    sent_at   timestamptz,
    error     text,
    constraint alert_notice_ended check (sent_at is null or due_at is null)
);
create index alert_notice_of on alert_notice (event_id);
create index alert_notice_due on alert_notice (due_at) where due_at is not null;
create index alert_notice_unsent on alert_notice (alert_id) where sent_at is null;
comment on table alert_notice is 'Messages about events, one for each target. It is sent by whom step_alerts() has handed it to.';
comment on column alert_notice.attempt is 'How often somebody set out to send it: fences what is reported of it.';
comment on column alert_notice.due_at is 'When it is handed out, or, while it is being sent, when it will be handed out anew; null: it was sent, or given up.';
