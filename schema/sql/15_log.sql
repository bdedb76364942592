-- What runs have written: stdout, stderr, and lines of their loggers, for `task logs`.

create table log (
    task_id  uuid not null,
    attempt  smallint not null,
    upto     bigint not null,
    lines    bigint not null,
    bytes    integer not null,
    breaks   integer not null,
    lease_id bigint not null,
    part     integer not null,
    at       timestamptz not null,
    pieces   jsonb not null,
    primary key (task_id, attempt, upto),
    constraint log_part_holds_something check (bytes > 0 and breaks >= 0)
) partition by range (task_id);
create table log_default partition of log default;
comment on table log is
    'What runs have written, in parts of some lines. A part is written once; those in the middle of a long log go as it grows.';
comment on column log.upto is 'Bytes that the attempt had written up to the end of this part, with those that were dropped: it tells what is missing before.';
comment on column log.lines is 'As upto, for lines.';
comment on column log.breaks is 'Lines that end in this part.';
comment on column log.part is 'Number within the run, made by its worker: a part that comes twice is taken once.';
comment on column log.pieces is '[stream, how many ms before `at`, text], in the order in which they were read.';
