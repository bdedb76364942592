-- What runs hold while they are at work, and who goes next at what is short; see 31_pack.sql.

create table resource (
    name  text primary key,
    total numeric not null,
    constraint resource_name_valid check (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}$' and name !~ '^file:'),
    constraint resource_total_range check (total between 0 and 1e300)
);
comment on table resource is 'What the workers of all hosts share, such as licences: how much of it there is. Packed claims lock its rows.';

create table holding (
    lease_id bigint not null,
    task_id  uuid not null,
    resource text not null,
    amount   numeric not null,
    primary key (lease_id, task_id, resource)
);
create index holding_resource on holding (resource);
comment on table holding is
    'What a run holds. It counts only while the lease holds the task: however a lease goes, nothing stays taken.';

create table reservation (
    task_id   uuid primary key,
    worker_id integer not null,
    noted_at  timestamptz not null
);
create unique index reservation_worker on reservation (worker_id);
comment on table reservation is
    'Tasks that fit a worker but not beside what ran there: from worker.reserve_after on it keeps room for the one it has noted.';

create table affinity (
    task_id  uuid primary key,
    noted_at timestamptz not null
);
comment on table affinity is 'Pending tasks that were passed over for the sake of a host that has a file of theirs, and since when.';
