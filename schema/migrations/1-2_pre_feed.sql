-- Version 2 has a feed of what changes state, for those who watch.

create table feed (
    id       bigint generated always as identity,
    xid      xid8 not null default pg_current_xact_id(),
    at       timestamptz not null,
    topic    text not null,
    subject  text,
    state    text not null,
    queue_id integer,
    count    integer not null default 1,
    task_ids uuid[],
    told     jsonb
);
create index feed_xid on feed (xid);
comment on table feed is
    'What changed state while somebody watched: a row for each statement that started or ended tasks, one for each other change. The last of it is kept.';
comment on column feed.xid is
    'What wrote it: whoever had a snapshot knows by it what has been committed since, in whatever order that was.';
comment on column feed.subject is 'What changed: id of a workflow, worker or product, name of a queue, path of a session''s file, or the session itself where something was told to it; null for tasks.';
comment on column feed.task_ids is 'Which tasks; null where there are more than a hundred.';
comment on column feed.told is 'What was told to a session: its entries, and how many before them were left out.';

create table watch (
    singleton boolean primary key default true check (singleton),
    until     timestamptz not null default '-infinity',
    since     pg_snapshot,
    next      pg_snapshot,
    next_at   timestamptz,
    next_id   bigint
) with (fillfactor = 50);
insert into watch default values;
comment on table watch is 'Until when the feed is written, and since when all of it is there.';
comment on column watch.since is 'Whoever has this snapshot or a later one finds all that was committed after it.';
comment on column watch.next is 'What `since` will be when the feed is cut the next time, as it was at next_at, after the row next_id.';
