"""A database of version 1, with tasks in every state, is upgraded: same schema as a fresh one, and nothing is lost."""

from __future__ import annotations

from collections import Counter

import psycopg
from sql_queue import Queue
from version1 import BEFORE, Connection, Night, catalog, finish

from absurd import schema
from absurd.database_sync import install
from absurd.schema import VERSION
from absurd.schema.functions import exchange
from absurd.schema.migrate import Installed, Migration, installed
from absurd.testing import ThrowawayServer


def test_upgraded_equals_fresh(old: Connection, empty_database_url: str, databases: ThrowawayServer) -> None:
    """After an upgrade the schema is the one that a fresh install makes, down to bodies, comments and rights."""
    # Both made now: a database cloned from the template has last week's partitions when the week has turned since.
    with databases.database("template1") as url:
        assert Migration(1, VERSION) == install(empty_database_url)
        assert Migration(None, VERSION) == install(url)
        with psycopg.connect(url, autocommit=True, options="-c search_path=absurd") as connection:
            upgraded, fresh = catalog(old), catalog(connection)
            assert {} == {key: text for key, text in fresh.items() if upgraded.get(key) != text}
            assert set(fresh) == set(upgraded)
            assert filled(connection) == filled(old)


def filled(connection: Connection) -> set[str]:
    """Names of the tables that are not empty."""
    tables = [name for kind, name, _ in catalog(connection) if kind == "relation"]
    rows = [
        (table, connection.execute(f"select exists (select from {table})").fetchone())
        for table in tables
        if connection.execute(
            "select from pg_tables where schemaname = 'absurd' and tablename = %s", [table]
        ).fetchall()
    ]
    return {table for table, row in rows if row == (True,)}


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
            select oid from pg_type
            where typnamespace = 'absurd'::regnamespace and typname in ('_spawn', '_held', '_survey', '_packed'))
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


def test_count_that_version_1_lost(night: Night, empty_database_url: str) -> None:
    """A child whose parent ended during a sweep, so that version 1 would never release it, is counted anew."""
    night.connection.execute("delete from late where child_id = %s", [night.tasks["late"]])
    install(empty_database_url)
    queue = Queue(night.connection)

    night.report("complete_runs", "held_too", [0], [None])
    assert "blocked" == night.states()["late"]
    queue.call("sweep_late()")
    assert "pending" == night.states()["late"]


def test_lease_of_version_1_is_recovered(night: Night, empty_database_url: str) -> None:
    """A worker that was killed beside the upgrade loses its runs to another, and its reports are stale."""
    install(empty_database_url)
    queue = Queue(night.connection)
    queue.call("emit_event('dawn')")
    night.connection.execute("update worker set last_seen = '-infinity' where id = %s", [night.worker])
    # After a silence of the rounds nothing is taken from workers for a while: the clock goes past it.
    for minutes in (0, 1, 2):
        queue.move_clock(f"{minutes} minutes")
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
