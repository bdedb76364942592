-- How far history was pruned.

create table pruning (
    queue_id integer primary key,
    up_to    timestamptz not null,
    last_id  uuid not null default '00000000-0000-0000-0000-000000000000',
    slice    interval not null default interval '1 minute',
    again_id uuid not null default '00000000-0000-0000-0000-000000000000'
) with (fillfactor = 50);
comment on table pruning is 'Queues with a retention: what ended before (up_to, last_id) was looked at; the next look takes so long a slice of time.';
comment on column pruning.again_id is 'How far the second look has come, which goes over the bodies in order of id, again and again.';
