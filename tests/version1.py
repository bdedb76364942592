"""A database of version 1, with tasks in every state, and what its programs call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from sql_queue import Queue

from absurd.schema import VERSION

Connection = psycopg.Connection[Any]

NEXT = VERSION + 1
"""The version of a made-up future: see the fixture `releases`."""


def install_version_1(connection: Connection) -> None:
    """Install the schema as `absurd db sql` of version 1 printed it."""
    script = Path(__file__).with_name("version1.sql").read_text(encoding="utf-8")
    connection.execute(script.replace("\\set ON_ERROR_STOP on", "").encode())


BOOM = '{"code": "boom", "type": "Boom", "message": "plate 17 broke"}'


class Night:
    """Tasks in every state, made by the SQL calls of version 1, and kept apart from what those calls are today."""

    def __init__(self, connection: Connection, *, full: bool = True) -> None:
        self.connection = connection
        self.worker = self.call(
            "register_worker('old', 'dome', 1, array['default'], 9, %s, %s, 30)",
            json.dumps({"absurd": "0.1"}),
            json.dumps({"cpu": 8}),
        )
        self.lease = self.worker << 32
        self.queue = self.call("id from queue where name = 'default'")
        self.tasks: dict[str, UUID] = {}
        if full:
            self.fill()

    def fill(self) -> None:
        """Bring tasks into every state."""
        for name in ("done", "broken", "unwanted"):
            self.spawn(name, max_attempts=1)
        self.spawn("upstream", depends_on=["broken"])
        self.claim(3)
        self.report("complete_runs", "done", [0], ['{"flux": 1.5}'])
        self.report("fail_runs", "broken", [0], [BOOM], [None])
        self.call("cancel_task(%s, 'clouds')", self.tasks["unwanted"])

        for name in ("again", "until_dawn", "held", "held_too"):
            self.spawn(name)
        self.claim(4)
        self.report("fail_runs", "again", [0], [BOOM], [60.0])
        self.report("suspend_runs", "until_dawn", [0], [None], ["event"], ["dawn"])
        self.call("set_checkpoint(%s, %s, 'flat', '[1, 2]')", self.lease, self.tasks["held"])
        self.call("set_progress(%s, %s, 1, 2, 'half')", self.lease, self.tasks["held"])

        self.spawn("ahead", priority=5, needs={"cpu": 1}, tags=["night-12"])
        self.spawn("keyed", key="k")
        self.spawn("delayed", delay=3600, needs={"cpu": 2})
        self.spawn("after_two", depends_on=["ahead", "held"], needs={"cpu": 3})
        self.spawn("after_done", depends_on=["done", "keyed"])
        self.call("sweep_late()")
        self.spawn("below", depends_on=["after_two"])
        self.call("sweep_late()")
        self.spawn("late", depends_on=["done", "held_too"])  # no sweep has counted it

    def call(self, sql: str, *args: Any) -> Any:
        row = self.connection.execute(f"select {sql}", args).fetchone()
        return row[0] if row else None

    def spawn(self, name: str, *, depends_on: Sequence[str] = (), **options: Any) -> None:
        parents = {"depends_on": [str(self.tasks[each]) for each in depends_on]} if depends_on else {}
        row = self.connection.execute(
            "select task_id from spawn_task('default', 'demo.add', %s, %s)",
            (json.dumps({"name": name}), json.dumps(options | parents)),
        ).fetchone()
        assert row is not None
        self.tasks[name] = row[0]

    def claim(self, wanted: int) -> list[UUID]:
        self.lease += 1
        claimed = self.call(
            "task_ids from claim_runs(%s, %s, %s, '{}', '{}')",
            self.lease,
            self.queue,
            wanted,
        )
        return claimed or []

    def complete(self, tasks: list[UUID]) -> None:
        stale = self.call(
            "complete_runs(%s::bigint[], %s, %s::integer[], %s::text[])",
            [self.lease] * len(tasks),
            tasks,
            [0] * len(tasks),
            [None] * len(tasks),
        )
        assert stale is None

    def report(self, function: str, name: str, *arrays: list[Any]) -> None:
        types = {
            "complete_runs": ["integer[]", "text[]"],
            "fail_runs": ["integer[]", "text[]", "double precision[]"],
            "suspend_runs": ["integer[]", "double precision[]", "text[]", "text[]"],
        }[function]
        values = ", ".join(f"%s::{each}" for each in types)
        stale = self.call(f"{function}(%s::bigint[], %s, {values})", [self.lease], [self.tasks[name]], *arrays)
        assert stale is None

    def states(self) -> dict[str, str]:
        return {name: self.call("get_state(%s)", task) for name, task in self.tasks.items()}


BEFORE = {
    "done": "completed", "broken": "failed", "unwanted": "cancelled", "upstream": "cancelled",
    "again": "sleeping", "until_dawn": "sleeping", "delayed": "sleeping",
    "held": "running", "held_too": "running", "ahead": "pending", "keyed": "pending",
    "after_two": "blocked", "after_done": "blocked", "below": "blocked", "late": "blocked",
}  # fmt: skip


def finish(queue: Queue) -> None:
    """Do all that there is to do, and complete it; the clock is moved over what sleeps."""
    queue.connection.execute(
        "create or replace function clock_time() returns timestamptz language sql stable"
        " as $$ select clock_timestamp() + interval '2 hours' $$"
    )
    queue.worker = queue.call("register_worker('new', 'dome', 2, array['default'], 9, '{}', '{\"cpu\": 8}', 30)")
    moved = True
    while moved:
        moved = queue.call("promote_timers()") + queue.call("sweep_late()") > 0
        lease, tasks, _ = queue.claim(100)
        if tasks:
            queue.complete(lease, *tasks)
            moved = True


# What a schema is --------------------------------------------------------------------------------

CATALOG = """
select 'relation', c.relname, null, concat_ws(' ', c.relkind, c.relpersistence, c.reloptions, c.relacl::text,
       pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid), obj_description(c.oid, 'pg_class'))
from pg_class c where c.relnamespace = 'absurd'::regnamespace
union all
select 'column', c.relname, a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
       a.attgenerated, pg_get_expr(d.adbin, d.adrelid), a.attacl::text, col_description(c.oid, a.attnum))
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relnamespace = 'absurd'::regnamespace and c.relkind in ('r', 'p', 'c', 'S')
union all
select 'constraint', conrelid::regclass::text, conname, concat_ws(' ', pg_get_constraintdef(oid), convalidated)
from pg_constraint where connamespace = 'absurd'::regnamespace
union all
select 'index', indrelid::regclass::text, indexrelid::regclass::text,
       concat_ws(' ', pg_get_indexdef(indexrelid), indisvalid)
from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace = 'absurd'::regnamespace
union all
select 'function', p.oid::regprocedure::text, null, concat_ws(' ', pg_get_functiondef(p.oid), p.proacl::text,
       obj_description(p.oid, 'pg_proc'))
from pg_proc p where p.pronamespace = 'absurd'::regnamespace
union all
select 'type', t.typname, null, concat_ws(' ', t.typtype, array(
           select enumlabel from pg_enum where enumtypid = t.oid order by enumsortorder),
       obj_description(t.oid, 'pg_type'))
from pg_type t where t.typnamespace = 'absurd'::regnamespace
union all
select 'schema', nspname, null, nspacl::text from pg_namespace where nspname = 'absurd'
order by 1, 2, 3, 4
"""


def catalog(connection: Connection) -> dict[tuple[str, str, str | None], str]:
    """What the schema is, by kind and name: columns by name, because those of an upgrade stand in another order."""
    with connection.transaction():
        connection.execute("set local search_path = absurd")
        rows = connection.execute(CATALOG).fetchall()
    return {(kind, name, part): text for kind, name, part, text in rows}
