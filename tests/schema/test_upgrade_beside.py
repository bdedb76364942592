"""Upgrades beside workers that go on, sessions that hold tables, and views that people built."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic, sleep
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import DeadlockDetected, QueryCanceled, SerializationFailure
from sql_queue import Queue
from version1 import BEFORE, NEXT, Connection, Night, catalog, finish

from absurd import AbsurdClient, SyncAbsurdClient
from absurd.database_sync import install
from absurd.errors import SchemaBusyError, SchemaError
from absurd.schema import VERSION, migrate
from absurd.schema.migrate import Installed, Migration, installed

T = TypeVar("T")


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


def again(call: Callable[[], T]) -> T:
    """What `call` returns, made again as workers make it when it was sacrificed to another transaction."""
    while True:
        try:
            return call()
        except (DeadlockDetected, QueryCanceled, SerializationFailure):
            sleep(0.05)


def again_if_sent_away(call: Callable[[], T]) -> T:
    """What `call` returns, made again when an upgrade sent it away, and for no other reason."""
    while True:
        try:
            return call()
        except SerializationFailure as error:
            if "upgrade" not in str(error):
                raise


def test_version_1_beside_its_upgrade(old: Connection, empty_database_url: str) -> None:
    """Programs of version 1 spawn and work through both halves: nothing they were told is lost, nothing runs twice."""

    def upgrade(finish: bool) -> None:
        assert VERSION == install(empty_database_url, finish=finish).after

    check_work_beside(upgrade, again, empty_database_url, old)


def test_this_version_beside_the_next(connection: Connection, database_url: str, releases: Path) -> None:
    """So do programs of this version, and no call of theirs fails but those that are sent away to come again."""

    def upgrade(finish: bool) -> None:
        with psycopg.connect(database_url, autocommit=True) as installer:
            assert NEXT == migrate.migrate(installer, source=releases, version=NEXT, finish=finish).after

    check_work_beside(upgrade, again_if_sent_away, database_url, connection)


def check_work_beside(
    upgrade: Callable[[bool], None], again: Callable[[Callable[[], Any]], Any], url: str, connection: Connection
) -> None:
    """Spawn and work in three sessions through both halves of an upgrade, and count."""
    stop = Event()
    spawned: list[UUID] = []
    rounds: list[int] = []

    def work(number: int) -> None:
        with psycopg.connect(url, autocommit=True, options="-c search_path=absurd") as session:
            night = Night(session, full=False)
            night.lease += number << 20

            def spawn() -> list[UUID]:
                night.tasks.clear()
                with session.transaction():
                    night.spawn("parent")
                    night.spawn("child", depends_on=["parent"])
                    night.spawn("grandchild", depends_on=["parent", "child"])
                return list(night.tasks.values())

            while not stop.is_set():
                spawned.extend(again(spawn))
                again(lambda: night.call("sweep_late()"))
                if tasks := again(lambda: night.claim(2)):
                    again(partial(night.complete, tasks))
                rounds.append(number)

    def have_worked(more: int) -> None:
        goal = len(rounds) + more
        deadline = monotonic() + 30
        while len(rounds) < goal:
            assert monotonic() < deadline
            assert not any(each.done() for each in workers), [each.exception() for each in workers if each.done()]
            sleep(0.01)

    with ThreadPoolExecutor(3) as threads:
        workers = [threads.submit(work, number) for number in range(3)]
        try:
            have_worked(30)
            upgrade(False)
            have_worked(30)
            upgrade(True)
            have_worked(30)
        finally:
            stop.set()
    for each in workers:
        each.result()

    queue = Queue(connection)
    queue.counts()
    finish(queue)
    assert {"completed": len(spawned)} == queue.counts()
    assert [(len(spawned), len(spawned))] == connection.execute(
        "select count(*), count(distinct task_id) from run"
    ).fetchall()


UNSTOPPED = {
    "await_tasks", "check_token", "create_queue", "drain_worker", "ensure_partitions", "get_due_schedules",
    "get_status", "list_queues", "mark_published", "new_task_id", "prune_ticks", "purge_dead_letters",
    "register_executors", "register_worker", "remove_resource", "remove_schedule", "resign_leader", "respawn_task",
    "set_checkpoint", "set_listening", "set_next_due", "set_progress", "set_queue_limits", "set_queue_paused",
    "set_queue_retention", "set_resource", "set_schedule", "set_schedule_paused", "set_worker_concurrency",
    "spawn_workflow", "step",
}  # fmt: skip
"""Functions that move no task, or leave that to one that stops."""


def test_functions_that_move_tasks_stop_for_an_upgrade(connection: Connection) -> None:
    """Each function that moves tasks looks out for an upgrade, lest it go on half old, half new."""
    rows = connection.execute(
        "select distinct proname from pg_proc where pronamespace = 'absurd'::regnamespace and provolatile = 'v'"
        " and proname !~ '^_' and prosrc !~ 'perform _require_(read_committed|no_upgrade)\\(\\);'"
    ).fetchall()

    assert {name for (name,) in rows} == UNSTOPPED


@contextmanager
def upgrading(url: str) -> Iterator[Connection]:
    """A session that stands where an upgrade does while it exchanges the functions; ends by its rollback."""
    with psycopg.connect(url) as session:
        session.execute("select pg_advisory_xact_lock(hashtextextended('absurd.upgrade.absurd', 0))")
        yield session
        session.rollback()


def test_calls_during_an_upgrade_are_sent_away(connection: Connection, database_url: str) -> None:
    """They would go on with half of the old functions; they change nothing and may come again."""
    queue = Queue(connection)
    task = queue.spawn()
    lease, _, _ = queue.claim()
    with upgrading(database_url):
        for call in (
            queue.spawn,
            queue.claim,
            partial(queue.complete, lease, task),
            partial(queue.fail, lease, task, 1),
        ):
            with pytest.raises(SerializationFailure, match="upgrade"):
                call()
        for sql in ("promote_timers()", "fold_tallies()", "maintain()"):
            with pytest.raises(SerializationFailure, match="upgrade"):
                queue.call(sql)
        assert "running" == queue.state(task)

    queue.complete(lease, task)
    assert {"completed": 1} == queue.counts()


def test_clients_come_again_after_an_upgrade(database_url: str, until: Callable[[Callable[[], object]], None]) -> None:
    """Both clients make a call again that an upgrade sent away; whoever called them notices nothing."""

    async def spawn() -> None:
        async with AbsurdClient(database_url) as client:
            await client.spawn("bare.add")

    def spawn_plainly() -> None:
        with SyncAbsurdClient(database_url) as client:
            client.spawn("bare.add")

    with ThreadPoolExecutor(2) as threads, psycopg.connect(database_url, autocommit=True) as looking:

        def waiting() -> bool:
            row = looking.execute(
                "select count(*) from pg_locks where locktype = 'advisory' and not granted"
            ).fetchone()
            return row == (2,)

        with upgrading(database_url):
            spawns = [threads.submit(asyncio.run, spawn()), threads.submit(spawn_plainly)]
            until(waiting)
        for each in spawns:
            each.result()
        assert (2,) == looking.execute("select pending from absurd.get_queue_stats('default')").fetchone()


def test_view_on_a_function_that_goes(old: Connection, empty_database_url: str) -> None:
    """What people have built on a function that goes is named, not dropped, and nothing is changed."""
    old.execute(
        "create function absurd.get_task_count() returns bigint language sql as 'select count(*) from absurd.task'"
    )
    old.execute("create view public.dashboard as select absurd.get_task_count() as n")
    before = catalog(old)

    with pytest.raises(SchemaError, match=r"public.dashboard|view dashboard"):
        install(empty_database_url)
    assert before == catalog(old)

    old.execute("drop view public.dashboard")
    assert Migration(1, VERSION) == install(empty_database_url)
