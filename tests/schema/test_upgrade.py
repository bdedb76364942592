"""A database of version 1, with tasks in every state, is upgraded: same schema as a fresh one, and nothing is lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sql_queue import Queue

from absurd import schema
from absurd.database_sync import install
from absurd.errors import SchemaBusyError
from absurd.schema import VERSION, migrate
from absurd.schema.functions import exchange
from absurd.schema.migrate import Installed, Migration, installed

Connection = psycopg.Connection[Any]

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


@pytest.fixture
def old(empty_database_url: str) -> Iterator[Connection]:
    """A connection to a database whose queue has version 1."""
    with psycopg.connect(empty_database_url, autocommit=True, options="-c search_path=absurd,public") as connection:
        script = Path(__file__).with_name("version1.sql").read_text(encoding="utf-8")
        connection.execute(script.replace("\\set ON_ERROR_STOP on", ""))
        yield connection


def test_upgraded_equals_fresh(old: Connection, empty_database_url: str, connection: Connection) -> None:
    """After an upgrade the schema is the one that a fresh install makes, down to bodies, comments and rights."""
    assert Migration(1, VERSION) == install(empty_database_url)

    upgraded, fresh = catalog(old), catalog(connection)
    assert {} == {key: text for key, text in fresh.items() if upgraded.get(key) != text}
    assert set(fresh) == set(upgraded)


def test_code_can_be_run_again(connection: Connection) -> None:
    """Structure holds no function, and running the code on what it made changes nothing."""
    before = catalog(connection)
    code = schema.code()

    for name, text in schema.scripts():
        assert (name, text in [each for _, each in code]) == (name, "create or replace function" in text or name > "20")
        assert "create function" not in text
    with connection.transaction():
        connection.execute("set local search_path = absurd, pg_temp")
        exchange(connection, [text for _, text in code], keep=False)
    assert before == catalog(connection)


def test_private_types_are_in_no_table(connection: Connection) -> None:
    """An upgrade drops the types of 20_types.sql with all that uses them: no table may, and no public function."""
    used = connection.execute(
        """
        with made (oid) as (
            select oid from pg_type where typnamespace = 'absurd'::regnamespace and typname in ('_spawn', '_held'))
        select attrelid::regclass::text from pg_attribute join pg_class c on c.oid = attrelid and relkind <> 'c'
        where atttypid in (select oid from made union select typarray from pg_type join made using (oid))
        union all
        select p.oid::regprocedure::text from pg_proc p
        where proname !~ '^_' and prorettype || proargtypes::oid[] || proallargtypes
              && array(select oid from made union select typarray from pg_type join made using (oid))
        """
    ).fetchall()
    assert [] == used


# Tasks of version 1 ------------------------------------------------------------------------------

BOOM = '{"code": "boom", "type": "Boom", "message": "plate 17 broke"}'


class Night:
    """Tasks in every state, made by the SQL calls of version 1, and kept apart from what those calls are today."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.worker = self.call(
            "register_worker('old', 'dome', 1, array['default'], 9, '{\"absurd\": \"0.1\"}', '{}', 30)"
        )
        self.lease = self.worker << 32
        self.tasks: dict[str, UUID] = {}

        for name in ("done", "broken", "unwanted"):
            self.spawn(name, max_attempts=1)
        self.spawn("upstream", depends_on=["broken"])
        self.claim(3)
        self.report("complete_runs", "done", [0], ['{"flux": 1.5}'])
        self.report(
            "fail_runs", "broken", [0], ['{"code": "boom", "type": "Boom", "message": "plate 17 broke"}'], [None]
        )
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

    def claim(self, wanted: int) -> None:
        self.lease += 1
        self.call(
            "cardinality(task_ids) from claim_runs(%s, (select id from queue where name = 'default'), %s, '{}', '{}')",
            self.lease,
            wanted,
        )

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


@pytest.fixture
def night(old: Connection) -> Night:
    """A database of version 1 with tasks in every state."""
    night = Night(old)
    assert night.states() == BEFORE
    return night


def finish(queue: Queue) -> None:
    """Do all that there is to do, and complete it; the clock is moved over what sleeps."""
    queue.connection.execute(
        "create or replace function clock_time() returns timestamptz language sql stable"
        " as $$ select clock_timestamp() + interval '2 hours' $$"
    )
    queue.worker = queue.new_worker()
    for _ in range(20):
        queue.call("promote_timers()")
        queue.call("sweep_late()")
        lease, tasks, _ = queue.claim()
        if tasks:
            queue.complete(lease, *tasks)


def test_tasks_go_on_to_their_ends(night: Night, empty_database_url: str) -> None:
    """An upgrade keeps every task in its state and every count; what was running is reported under its old lease."""
    install(empty_database_url)
    queue = Queue(night.connection)

    assert night.states() == BEFORE
    assert queue.counts() == dict(Counter(BEFORE.values()))
    assert night.tasks["keyed"] == queue.spawn(key="k")
    assert [("flat", [1, 2])] == night.connection.execute(
        "select * from get_checkpoints(%s)", [night.tasks["held"]]
    ).fetchall()
    assert {"flux": 1.5} == queue.document(night.tasks["done"])["result"]

    night.report("complete_runs", "held", [0], [None])
    night.report("complete_runs", "held_too", [0], [None])
    assert queue.call("emit_event('dawn')")
    finish(queue)

    assert BEFORE | {name: "completed" for name, state in BEFORE.items() if state not in ("failed", "cancelled")} == (
        night.states()
    )
    assert {"completed": 12, "failed": 1, "cancelled": 2} == queue.counts()


def test_end_of_a_parent_of_version_1(night: Night, empty_database_url: str) -> None:
    """A parent that fails after the upgrade ends those that version 1 blocked on it, and a retry brings them back."""
    install(empty_database_url)
    queue = Queue(night.connection)
    queue.fail(night.lease, night.tasks["held"], None)
    queue.fail(night.lease, night.tasks["held_too"], None)
    queue.call("sweep_late()")

    assert ["cancelled"] * 3 == [night.states()[name] for name in ("after_two", "below", "late")]
    for name in ("held", "held_too", "broken"):
        queue.call("retry_task(%s)", night.tasks[name])
    queue.call("emit_event('dawn')")
    finish(queue)
    assert BEFORE | dict.fromkeys(BEFORE, "completed") | {"unwanted": "cancelled"} == night.states()
    queue.counts()


def test_lease_of_version_1_is_recovered(night: Night, empty_database_url: str) -> None:
    """A worker that was killed beside the upgrade loses its runs to another, and its reports are stale."""
    install(empty_database_url)
    queue = Queue(night.connection)
    queue.call("emit_event('dawn')")
    night.connection.execute("update worker set last_seen = '-infinity' where id = %s", [night.worker])
    # After a silence of the rounds nothing is taken from workers for a while: the clock goes past it.
    for minutes in (0, 1, 2):
        night.connection.execute(
            "create or replace function clock_time() returns timestamptz language sql stable"
            f" as $$ select clock_timestamp() + interval '{minutes} minutes' $$"
        )
        queue.call("recover_runs()")

    assert "running" != queue.state(night.tasks["held"])
    assert [night.tasks["held"]] == queue.complete(night.lease, night.tasks["held"])
    finish(queue)
    assert {"completed": 12, "failed": 1, "cancelled": 2} == queue.counts()


def test_dead_letter_of_version_1(night: Night, empty_database_url: str) -> None:
    """A dead letter of version 1 tells what one that is written today tells."""
    install(empty_database_url)

    row = night.connection.execute(
        "select fingerprint = _fingerprint(executor_id, error), host, versions, runs = _runs_of(task_id),"
        "       runs -> 0 ->> 'worker' from dead_letter where task_id = %s",
        [night.tasks["broken"]],
    ).fetchone()
    assert (True, "dome", {"absurd": "0.1"}, True, "old") == row


def test_places_of_version_1_get_their_needs(night: Night, empty_database_url: str) -> None:
    """What moves with a task is copied from its body into its place."""
    install(empty_database_url)

    rows = night.connection.execute(
        "select t.params ->> 'name', p.needs from task t join"
        " (select task_id, needs from ready union all select task_id, needs from timer"
        "  union all select task_id, needs from blocked) p on p.task_id = t.id where p.needs is not null order by 1"
    ).fetchall()
    assert [("after_two", {"cpu": 3}), ("ahead", {"cpu": 1}), ("delayed", {"cpu": 2})] == rows


def test_old_programs_go_on_after_the_first_half(night: Night, empty_database_url: str) -> None:
    """Between the halves the calls of version 1 serve; the second half changes no task."""
    assert Migration(1, VERSION) == install(empty_database_url, finish=False)
    assert Installed(VERSION, VERSION - 1) == installed(night.connection)
    night.report("complete_runs", "held", [0], [None])
    night.spawn("new", depends_on=["keyed"])
    night.claim(1)
    night.report("complete_runs", "ahead", [0], [None])
    night.worker = night.call("register_worker('older', 'dome', 2, array['default'], 9, '{}', '{}', 30)")
    night.call("count(*) from beat(%s, %s)", night.worker, [])

    assert Migration(VERSION, VERSION) == install(empty_database_url)
    assert "completed" == night.states()["ahead"]
    Queue(night.connection).counts()


# Beside others -----------------------------------------------------------------------------------


def test_beside_an_open_transaction(night: Night, empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade that cannot have the tables says who holds them and leaves all as it was; later it succeeds."""
    monkeypatch.setattr(migrate, "PATIENCE", 0.2)
    before = catalog(night.connection)
    with psycopg.connect(empty_database_url, application_name="notebook") as holder:
        holder.execute("select count(*) from absurd.run")

        with pytest.raises(SchemaBusyError, match=r"nothing was changed.*notebook.*absurd db migrate") as caught:
            install(empty_database_url)
        assert [holder.info.backend_pid] == caught.value.details["sessions"]
        assert before == catalog(night.connection)
        assert Installed(1, 1) == installed(night.connection)

    assert Migration(1, VERSION) == install(empty_database_url)
    assert night.states() == BEFORE
