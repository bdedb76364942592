-- How far history was pruned.

create table pruning (
    queue_id integer primary key,
    up_to    timestamptz not null,
    last_id  uuid not null default '00000000-0000-0000-0000-000000000000',
    slice    interval not null default interval '1 minute'
) with (fillfactor = 50);
comment on table pruning is 'Queues with a retention: what ended before (up_to, last_id) was looked at; the next look takes so long a slice of time.';
