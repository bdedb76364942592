"""All rows of a queue as they stand: what is wrong with them, and whether two calls have left the same."""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


def freeze(connection: Connection) -> None:
    """Stop the clock of the database, so that two runs of one call write the same."""
    connection.execute("create table _frozen as select clock_time() as now")
    connection.execute(
        "create or replace function clock_time() returns timestamptz language sql stable set search_path from current"
        " as 'select now from _frozen'"
    )


_DRAWN = {
    "alert": ("id",), "alert_event": ("id", "alert_id"), "alert_notice": ("id", "alert_id", "event_id"),
    "change": ("id",), "feed": ("id", "subject", "xid"), "executor": ("id",), "gain_set": ("id", "superseded_by"),
    "horizon": ("noted_seq", "noted_tally", "seq", "tally", "xid"),
    "image": ("file_id", "index_id"), "image_file": ("id", "index_id"), "image_index": ("id",),
    "intake": ("id",), "subband": ("id", "group_id", "intake_id"), "subband_group": ("id", "intake_id"),
    "photometry": ("image_id", "product_id", "source_id"), "product": ("id",),
    "product_input": ("input_id", "product_id"), "qa_result": ("product_id",), "sky_image": ("product_id",),
    "source": ("id", "product_id"), "variability": ("product_id", "source_id"),
    "watch": ("since", "next", "next_id"),
    "queue": ("id", "created_at"), "ready": ("seq",), "schedule": ("id",), "tick": ("schedule_id",), "token": ("id",),
    "worker": ("id",),
}  # fmt: skip
"""Columns whose values differ between two runs of one call: numbers drawn from sequences, and one default."""


_NUMBERED = {
    "alert", "alert_event", "alert_notice", "change", "executor", "gain_set", "image_file", "image_index", "intake",
    "product", "queue", "schedule", "source",
    "feed", "subband", "subband_group", "tally", "token", "worker",
}  # fmt: skip
"""Tables whose ids are drawn by identity columns."""


def _tables(connection: Connection) -> list[str]:
    return [
        name
        for (name,) in connection.execute(
            "select relname from pg_class where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p')"
            " and not relispartition and relname !~ '^_' order by 1"
        )
    ]


def dump(connection: Connection) -> dict[str, list[str]]:
    """All rows of the queue, without what was drawn from sequences; counts are summed."""
    parts = ["select 'counts' as place, to_jsonb(c.stats)::text as row from _counts() c"]
    for table in _tables(connection):
        if table == "feed":  # one call tells at once what two calls tell in two rows
            drawn = ",".join((*_DRAWN["feed"], "task_ids", "count"))
            parts.append(
                f"select 'feed', concat(to_jsonb(f) - '{{{drawn}}}'::text[], coalesce(t::text, f.count::text))"
                " from feed f left join lateral unnest(f.task_ids) t on true"
            )
        elif table not in {"tally", "total"}:
            drawn = ",".join(_DRAWN.get(table, ()))
            parts.append(f"select '{table}', (to_jsonb(t) - '{{{drawn}}}'::text[])::text from {table} t")
    rows: dict[str, list[str]] = {}
    for place, row in connection.execute(" union all ".join(parts) + " order by 1, 2").fetchall():
        rows.setdefault(place, []).append(row)
    return rows


class Saved:
    """A copy of all rows, to go back to while no transaction is under way."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        connection.execute("create schema saved")
        steps = ""
        for table in _tables(connection):
            connection.execute(f"create table saved.{table} as table {table}")
            override = "overriding system value" if table in _NUMBERED else ""
            # A row that was written since then bears the number of a later transaction; one that was deleted is missed.
            steps += (
                f"if exists (select from {table} where xmin::text::bigint > since)"
                f" or (select count(*) from {table}) <> (select count(*) from saved.{table}) then"
                f" delete from {table}; insert into {table} {override} table saved.{table}; end if;\n"
            )
        # A function, whose statements are planned once; most calls leave most tables alone.
        connection.execute(
            "create function saved.restore(since bigint) returns bigint language plpgsql set search_path from current"
            " set session_replication_role = replica"  # what is put back is nothing that happens: no trigger tells it
            f" as $$\n#variable_conflict use_variable\nbegin {steps} return pg_current_xact_id()::text::bigint; end $$"
        )
        self._since = 0
        self.restore()

    def restore(self) -> None:
        row = self.connection.execute("select saved.restore(%s)", [self._since]).fetchone()
        assert row is not None
        self._since = row[0]


_FAULTS = """
-- Everything that a count, an edge or a place says is said by the rows as well.
with place (task_id, place, queue_id, attempt) as (
    select task_id, 'ready', queue_id, attempt from ready
    union all select task_id, 'timer', queue_id, attempt from timer
    union all select task_id, 'blocked', queue_id, attempt from blocked
    union all select u.t, 'lease', l.queue_id, u.a
        from lease l cross join lateral unnest(l.task_ids, l.attempts) u (t, a)),
placed as (select task_id, count(*) as n, string_agg(place, '+') as places from place group by 1),
state as materialized (select id, queue_id, get_state(id) as state from task)
select format('%s stands in %s', task_id, places) from placed where n > 1
union all
select format('%s stands in %s and is no task', task_id, places) from placed
where not exists (select from task where id = task_id)
union all
select format('%s is nowhere', s.id) from state s
where not exists (select from placed p where p.task_id = s.id)
  and coalesce(s.state, '') not in ('completed', 'failed', 'cancelled')
union all
select format('queue %s counts %s, recounted %s', q.name, to_jsonb(get_queue_stats(q.name)), to_jsonb(r))
from queue q cross join lateral (
    select count(*) filter (where state = 'blocked') as blocked, count(*) filter (where state = 'pending') as pending,
           count(*) filter (where state = 'sleeping') as sleeping, count(*) filter (where state = 'running') as running,
           count(*) filter (where state = 'completed') as completed, count(*) filter (where state = 'failed') as failed,
           count(*) filter (where state = 'cancelled') as cancelled from state s where s.queue_id = q.id) r
where to_jsonb(get_queue_stats(q.name)) <> to_jsonb(r)
union all
select format('workflow %s counts %s of %s nodes, recounted %s of %s', w.id, w.remaining, w.nodes, r.open, r.nodes)
from workflow w cross join lateral (
    select count(*) as nodes, count(*) filter (where s.state not in ('completed', 'failed', 'cancelled')) as open
    from node n join state s on s.id = n.task_id where n.workflow_id = w.id) r
where (w.remaining, w.nodes) is distinct from (r.open, r.nodes)
  or (r.nodes > 0 and (w.ended_at is null) <> (r.open > 0))
union all
select format('blocked %s counts %s/%s/%s, recounted %s/%s/%s',
              b.task_id, b.remaining, b.succeeded, b.failed, r.open, r.good, r.bad)
from blocked b cross join lateral (
    select count(*) filter (where s.state not in ('completed', 'failed', 'cancelled')) as open,
           count(*) filter (where s.state = 'completed') as good, count(*) filter (where s.state = 'failed') as bad
    from edge e join state s on s.id = e.parent_id where e.child_id = b.task_id and e.awaited = b.awaiting) r
where not exists (select from late l where l.child_id = b.task_id)
  and ((b.remaining, b.succeeded, b.failed) <> (r.open, r.good, r.bad)
       or _verdict(b.condition, b.quorum, b.remaining, b.succeeded, b.failed) is not null)
union all
select format('late %s is not blocked', child_id) from late
where not exists (select from blocked where task_id = child_id)
union all
select format('%s waits for an event and does not sleep', task_id) from wait
where not exists (select from timer t where t.task_id = wait.task_id)
union all
select format('%s sleeps for ever and waits for nothing', task_id) from timer
where wake_at = 'infinity' and not exists (select from wait w where w.task_id = timer.task_id)
union all
select format('%s has a dead letter and is %s', d.task_id, s.state) from dead_letter d join state s on s.id = d.task_id
where s.state <> 'failed'
union all
select distinct format('%s has a log and is no task', task_id) from log l
where not exists (select from task t where t.id = l.task_id)
union all
select format('%s has ended twice in attempt %s', task_id, attempt) from run where ends and started_at is not null
group by task_id, attempt having count(*) > 1
union all
select format('%s of lease %s holds %s, and needs %s', u.t, l.id, h.holds, t.needs)
from lease l cross join lateral unnest(l.task_ids) u (t) join task t on t.id = u.t
cross join lateral (select coalesce(jsonb_object_agg(resource, amount), '{}') as holds
                    from holding h where h.lease_id = l.id and h.task_id = u.t) h
where h.holds <> coalesce((select jsonb_object_agg(key, value) from jsonb_each(t.needs)
                           where key !~ '^file:/' and value::numeric > 0), '{}')
union all
select format('%s %s are held on worker %s, which offers %s', sum(h.amount), h.resource, w.id, w.offers -> h.resource)
from holding h join worker w on w.id = lease_worker(h.lease_id)
where _is_held(h) and not exists (select from resource s where s.name = h.resource)
group by h.resource, w.id having sum(h.amount) > coalesce((w.offers -> h.resource)::numeric, 0)
union all
select format('%s %s are held, and there are %s', sum(h.amount), h.resource, s.total)
from holding h join resource s on s.name = h.resource where _is_held(h)
group by h.resource, s.total having sum(h.amount) > s.total
union all
select format('worker %s has noted %s tasks', worker_id, count(*))
from reservation group by worker_id having count(*) > 1
union all
select format('%s has priority %s, %s attempts at most and %s to run', id, priority, max_attempts, timeout) from task
where priority not between -10000 and 10000 or max_attempts < 0 or timeout <= interval '0'
union all
select format('%s is to be attempt %s', task_id, attempt) from ready where attempt < 1
union all
select format('level %s of queue %s is unknown', level, queue_id) from ready r
where not exists (select from _levels() l where l.queue_id = r.queue_id and l.level = r.level and l.base <= r.seq)
union all
select format('sub-band group %s is %s and has %s of %s', g.id, g.state, c.n, g.expected)
from subband_group g
cross join lateral (select count(*) as n from subband s where s.group_id = g.id and s.state = 'grouped') c
where (g.state = 'complete' and c.n < g.expected) or (g.state in ('collecting', 'partial') and c.n >= g.expected)
   or (g.state = 'collecting' and c.n = 0)
union all
select format('sub-band file %s is of intake %s and group %s, which are not both there', s.id, s.intake_id, s.group_id)
from subband s
where not exists (select from intake i where i.id = s.intake_id)
   or (s.group_id is not null and not exists (
       select from subband_group g where g.id = s.group_id and g.intake_id = s.intake_id))
union all
select format('sub-band group %s spawned %s in round %s', g.id, g.task_id, g.round) from subband_group g
where (g.round > 0) <> (g.task_id is not null)
"""


def faults(connection: Connection) -> list[str]:
    """What is wrong with the rows of the queue; nothing, whatever calls have committed."""
    return [row[0] for row in connection.execute(_FAULTS)]
