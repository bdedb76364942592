-- Counters that never fall, taken from the tallies when these are folded.

alter table tally
    add column retried integer not null default 0,
    add column lost integer not null default 0;
comment on column tally.retried is 'Runs that failed and are followed by another attempt; no change of a count, as `lost` is none.';
comment on column tally.lost is 'Runs that were lost with their worker.';

alter table total
    add column ever_spawned bigint not null default 0,
    add column ever_completed bigint not null default 0,
    add column ever_failed bigint not null default 0,
    add column ever_cancelled bigint not null default 0,
    add column ever_pruned bigint not null default 0,
    add column ever_retried bigint not null default 0,
    add column ever_lost bigint not null default 0;
comment on column total.ever_spawned is 'Counters, of which none ever falls: what tallies said of spawns, ends and the like, see _counted_ever().';
