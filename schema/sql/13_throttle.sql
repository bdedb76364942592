-- What claims on queues with limits hold on to; see 30_limits.sql.

create table throttle (
    queue_id  integer primary key,
    next_at   timestamptz not null default '-infinity',
    last_lane text not null default ''
) with (fillfactor = 50);
comment on table throttle is 'Queues that ever had limits: claims on a limited queue lock its row and so come one after the other.';
comment on column throttle.next_at is 'When the next start is due if all come evenly (the theoretical arrival time of GCRA).';
comment on column throttle.last_lane is 'The lane that had the last turn; empty: tasks without a lane.';
