-- Marks that are raised by new rows, and what tells which queues have moved.

create table base_mark (
    queue_id integer not null,
    level    integer not null,
    seq      bigint not null,
    primary key (queue_id, level, seq)
);
comment on table base_mark is
    'No row of `ready` can ever appear below the highest mark of its level, so claims start there and skip what died below. Raised by another row, see _levels().';
insert into base_mark (queue_id, level, seq) select queue_id, level, base from level;
alter table level drop column base, reset (fillfactor);
comment on table level is 'Levels a queue has used.';
comment on table horizon is
    'How far the marks may rise: see advance_marks(). tally_base is the mark of `tally`; those of `ready` stand in `base_mark`.';

alter table total add column upto bigint not null default 0;
comment on column total.upto is 'The highest tally of the queue that was folded: a queue without new ones stands still.';
