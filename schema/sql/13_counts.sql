-- Counting and marks: what keeps the cost of a claim and of a count flat.

create table tally (
    id        bigint generated always as identity primary key,
    queue_id  integer not null,
    blocked   integer not null default 0,
    pending   integer not null default 0,
    sleeping  integer not null default 0,
    running   integer not null default 0,
    completed integer not null default 0,
    failed    integer not null default 0,
    cancelled integer not null default 0,
    retried   integer not null default 0,
    lost      integer not null default 0
);
comment on column tally.retried is 'Runs that failed and are followed by another attempt; no change of a count, as `lost` is none.';
comment on column tally.lost is 'Runs that were lost with their worker.';
comment on table tally is
    'Changes of the counts, appended by each statement that moves tasks: a counter row would be walked by every update beside a held snapshot.';

create table total (
    queue_id  integer primary key,
    blocked   bigint not null default 0,
    pending   bigint not null default 0,
    sleeping  bigint not null default 0,
    running   bigint not null default 0,
    completed bigint not null default 0,
    failed    bigint not null default 0,
    cancelled bigint not null default 0,
    upto      bigint not null default 0,
    ever_spawned   bigint not null default 0,
    ever_completed bigint not null default 0,
    ever_failed    bigint not null default 0,
    ever_cancelled bigint not null default 0,
    ever_pruned    bigint not null default 0,
    ever_retried   bigint not null default 0,
    ever_lost      bigint not null default 0
);
comment on column total.ever_spawned is 'Counters, of which none ever falls: what tallies said of spawns, ends and the like, see _counted_ever().';
comment on column total.upto is 'The highest tally of the queue that was folded: a queue without new ones stands still.';
comment on table total is 'Folded tallies: a queue counts total + tallies from horizon.tally_base up.';

create table level (
    queue_id integer not null,
    level    integer not null,
    primary key (queue_id, level)
);
comment on table level is 'Levels a queue has used.';

create table base_mark (
    queue_id integer not null,
    level    integer not null,
    seq      bigint not null,
    primary key (queue_id, level, seq)
);
comment on table base_mark is
    'No row of `ready` can ever appear below the highest mark of its level, so claims start there and skip what died below. Raised by another row, see _levels().';

create table horizon (
    singleton   boolean primary key default true check (singleton),
    noted_seq   bigint not null default 0,
    noted_tally bigint not null default 0,
    seq         bigint,
    tally       bigint,
    xid         xid8,
    tally_base  bigint not null default 0,
    at          timestamptz not null default '-infinity',
    swept_at    timestamptz not null default '-infinity'
) with (fillfactor = 50);
insert into horizon default values;
comment on table horizon is
    'How far the marks may rise: see advance_marks(). tally_base is the mark of `tally`; those of `ready` stand in `base_mark`.';
comment on column horizon.swept_at is 'When holdings that count no more were last looked for.';

create table timer_mark (
    singleton boolean primary key default true check (singleton),
    wake_at   timestamptz not null default '-infinity',
    looked_at timestamptz not null default '-infinity'
) with (fillfactor = 50);
insert into timer_mark default values;
comment on table timer_mark is
    'Sleepers that were due before wake_at are awake, but for those that were committed late; looked_at: when these were looked for.';
