"""The sign of life: kept up whatever the loop does, and its absence noticed by the worker itself."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import psycopg
import pytest

from absurd.claims import Standing
from absurd.config import Settings
from absurd.retry import RetryPolicy
from absurd.workers.life.heart import Longest
from absurd.workers.life.heartbeat import Heartbeat
from absurd.workers.runs.execution import Defaults

Until = Callable[[Callable[[], object]], None]
Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, worker_heartbeat_interval=0.1, worker_lease=600.0)  # no busy machine ends it


@pytest.fixture
def worker(connection: Connection) -> int:
    """A registered worker whose lease does not run out by itself."""
    row = connection.execute("select register_worker('test', 'here', 1, '{default}', 1, '{}', '{}', 3600)").fetchone()
    assert row is not None
    return int(row[0])


class Ear:
    """Hears what a heartbeat tells its worker, on a loop of its own."""

    def __init__(self, url: str, settings: Settings, worker: int, leases: list[int] | None = None) -> None:
        self.answers: list[Standing] = []
        self.lost = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.heartbeat = Heartbeat(
            url,
            settings,
            worker_id=worker,
            loop=self.loop,
            leases=lambda: leases or [],
            claiming=lambda: None,
            longest=Longest(Defaults(RetryPolicy(), None)),
            started=list,
            state=lambda: "running",
            load=lambda: {"running": 3, "concurrency": 7},
            quiet=lambda: False,
            on_answer=self.answers.append,
            on_lost=self._hear_of_loss,
        )

    def _hear_of_loss(self) -> None:
        self.lost += 1

    def __enter__(self) -> Self:
        self.thread.start()
        self.heartbeat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.heartbeat.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def last_seen(connection: Connection, worker: int) -> Any:
    row = connection.execute("select last_seen from worker where id = %s", (worker,)).fetchone()
    assert row is not None
    return row[0]


def test_a_blocked_loop_loses_no_lease(settings: Settings, connection: Connection, worker: int, until: Until) -> None:
    """Beats go on from a thread while the worker's loop does nothing else, and reach it when it is free."""
    released = threading.Event()
    with Ear(settings.database_url or "", settings, worker) as ear:
        ear.loop.call_soon_threadsafe(released.wait)
        for _ in range(3):
            before = last_seen(connection, worker)
            until(lambda before=before: last_seen(connection, worker) > before)  # type: ignore[misc]
        assert len(ear.answers) <= 1
        released.set()
        until(lambda: len(ear.answers) >= 3)

    assert ear.lost == 0


def test_a_worker_learns_what_it_still_holds(
    settings: Settings, connection: Connection, worker: int, until: Until
) -> None:
    """Each lease asked about is answered, with nothing for one that is gone; beat_now does not wait."""
    lease = (worker << 32) + 1
    connection.execute("select spawn_task('default', 'any', '{}', '{}')")
    row = connection.execute("select id from queue where name = 'default'").fetchone()
    assert row is not None
    claimed = connection.execute(
        "select task_ids from step('{}', '{}', '{}', '{}', %s, %s, 1, '{}', '{}')", (lease, row[0])
    ).fetchone()
    assert claimed is not None
    slow = replace(settings, worker_heartbeat_interval=1000.0, worker_lease=3000.0)
    with Ear(settings.database_url or "", slow, worker, [lease, lease + 1]) as ear:
        until(lambda: ear.answers)
        connection.execute("select cancel_task(%s)", (claimed[0][0],))
        ear.heartbeat.beat_now()
        until(lambda: len(ear.answers) == 2)

    assert [{lease: set(claimed[0]), lease + 1: set()}, {lease: set(), lease + 1: set()}] == [
        each.held for each in ear.answers
    ]


def test_a_beat_tells_of_the_worker_and_brings_its_orders(
    settings: Settings, connection: Connection, worker: int, until: Until
) -> None:
    """What it says stands in its row with how many runs it takes at a time; orders are heard with the next answer."""
    with Ear(settings.database_url or "", settings, worker) as ear:
        until(lambda: ear.answers)
        connection.execute("update worker set draining = true, wanted_concurrency = 5 where id = %s", (worker,))
        until(lambda: ear.answers[-1].draining)
        row = connection.execute("select load, concurrency from worker where id = %s", (worker,)).fetchone()

    assert ({"running": 3, "concurrency": 7}, 7) == row
    assert (False, None) == (ear.answers[0].draining, ear.answers[0].concurrency)
    assert (True, 5) == (ear.answers[-1].draining, ear.answers[-1].concurrency)


def test_a_worker_that_was_given_up_hears_of_it_once(
    settings: Settings, connection: Connection, worker: int, until: Until
) -> None:
    """The heartbeat ends with that."""
    connection.execute("update worker set state = 'lost' where id = %s", (worker,))
    with Ear(settings.database_url or "", settings, worker) as ear:
        until(lambda: ear.lost)
        until(lambda: not ear.heartbeat._thread.is_alive())

    assert (1, []) == (ear.lost, ear.answers)


def test_a_cut_connection_is_made_anew(settings: Settings, connection: Connection, worker: int, until: Until) -> None:
    """The lease is kept."""
    with Ear(settings.database_url or "", settings, worker) as ear:
        for _ in range(2):
            until(lambda: ear.answers)
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where pid <> pg_backend_pid() and datname = current_database()"
            )
            ear.answers.clear()
        until(lambda: ear.answers)

    assert ear.lost == 0


def test_a_database_that_does_not_answer_ends_the_lease(settings: Settings, until: Until) -> None:
    """A server that takes connections and says nothing, as behind a cut network: the worker stops by itself."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://nobody@127.0.0.1:{mute.getsockname()[1]}/none"
        with Ear(url, replace(settings, worker_lease=1.0), 1) as ear:
            until(lambda: ear.lost)

    assert (1, []) == (ear.lost, ear.answers)
