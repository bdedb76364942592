"""How work reaches workers: which queues, how soon, and what is left when they come and go."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from live import soon, working

from absurd import AbsurdClient, TaskSpec, TaskState
from absurd.call import Call, nothing
from absurd.config import Settings
from absurd.notify import Listener
from absurd.workers import AbsurdWorker

Connection = psycopg.Connection[Any]

UNHEARD = """
    create or replace function absurd._wake(p_queue_ids integer[]) returns void language sql as 'select null::void'
"""
"""Cuts off notifications: who spawns tells nobody."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The executors of the tests are found by import, by child processes too."""
    return replace(settings, imports=("demo_executors",))


def listening(connection: Connection) -> bool:
    """Whether an idle worker has asked to be notified."""
    return bool(connection.execute("select from listener").fetchall())


def ended(connection: Connection) -> int:
    """How many runs have ended."""
    return len(connection.execute("select from run").fetchall())


async def test_a_worker_serves_its_queues_only(settings: Settings, client: AbsurdClient) -> None:
    """Queues that were not named are left alone; those that were take turns (B13)."""
    mine = [await client.spawn("demo.add", {"a": 1, "b": n}, queue=f"q{n % 2}") for n in range(6)]
    other = await client.spawn("demo.add", {"a": 1, "b": 2}, queue="elsewhere")

    await AbsurdWorker(settings=settings, queues=["q0", "q1"]).run(until="drain")

    states = await client.get_states([*mine, other])
    assert TaskState.PENDING is states.pop(other)
    assert {TaskState.COMPLETED} == set(states.values())


async def test_a_burst_takes_what_it_released_itself(settings: Settings, client: AbsurdClient) -> None:
    """--burst leaves when nothing can be claimed now, which children of what has just ended can."""
    ids = [await client.spawn("demo.add", {"a": 1, "b": 2})]
    for _ in range(3):
        ids.append(await client.spawn("demo.add", {"a": 1, "b": 2}, depends_on=[ids[-1]]))
    await client.run(Call("select {schema}.sweep_late()", (), nothing))

    await AbsurdWorker(settings=settings).run(until="burst")

    assert {TaskState.COMPLETED} == set((await client.get_states(ids)).values())


async def test_a_slow_run_holds_up_nobody(settings: Settings, client: AbsurdClient, tmp_path: Path) -> None:
    """While one run takes its time the other slot goes on claiming (B16)."""
    held = {"started": str(tmp_path / "started"), "release": str(tmp_path / "release")}
    slow = await client.spawn("demo.hold", held)
    async with working(settings, concurrency=2):
        await soon((tmp_path / "started").exists)
        quick = await client.spawn_many(TaskSpec("demo.add", {"a": 1, "b": n}) for n in range(50))
        for task_id in quick:
            await client.wait(task_id, timeout=120)

        assert TaskState.RUNNING is (await client.get_task(slow)).state
        (tmp_path / "release").touch()
        await client.wait(slow, timeout=120)


async def test_a_notification_wakes_an_idle_worker(
    settings: Settings, client: AbsurdClient, connection: Connection
) -> None:
    """With a poll interval longer than the wait, a spawn is heard all the same (B63)."""
    async with working(replace(settings, worker_poll_interval=600.0)):
        await soon(lambda: listening(connection))

        task_id = await client.spawn("demo.add", {"a": 1, "b": 2})

        await client.wait(task_id, timeout=60)


async def test_polling_alone_drains_the_queue(
    settings: Settings, client: AbsurdClient, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no notification arrives the poll interval is enough (B62)."""
    connection.execute(UNHEARD)
    monkeypatch.setattr(Listener, "_notified", lambda *_: None)
    async with working(settings):
        await soon(lambda: listening(connection))

        for n in range(3):
            task_id = await client.spawn("demo.add", {"a": 1, "b": n})
            await client.wait(task_id, timeout=120)


async def test_cut_connections_are_made_anew(settings: Settings, client: AbsurdClient, connection: Connection) -> None:
    """After all of a worker's connections were cut it claims, hears and completes as before (B61)."""
    async with working(replace(settings, worker_poll_interval=600.0)):
        await soon(lambda: listening(connection))
        before = {pid for (pid,) in connection.execute("select pid from pg_stat_activity where query ilike 'listen%'")}
        assert before
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        await soon(
            lambda: (
                {pid for (pid,) in connection.execute("select pid from pg_stat_activity where query ilike 'listen%'")}
                - before
            )
        )

        for n in range(3):
            task_id = await client.spawn("demo.add", {"a": 1, "b": n})
            assert (await client.wait(task_id, timeout=60)).result == {"sum": 1 + n}


async def test_stopping_amid_spawns_leaves_nothing_running(
    settings: Settings, client: AbsurdClient, connection: Connection
) -> None:
    """A worker that is stopped while tasks pour in leaves each of them pending or ended (B64)."""
    pouring = True

    async def pour() -> None:
        while pouring:
            await client.spawn_many(TaskSpec("demo.add", {"a": 1, "b": n}) for n in range(20))

    spawning = asyncio.create_task(pour())
    for round_ in range(1, 4):
        async with working(settings, concurrency=50):
            await soon(lambda least=100 * round_: ended(connection) > least)  # type: ignore[misc]
    pouring = False
    await spawning

    assert [] == connection.execute("select from lease").fetchall()
    stats = await client.get_queue_stats("default")
    assert (0, 0, 0) == (stats.running, stats.failed, stats.cancelled)


async def test_a_storm_of_starts_and_stops_leaks_no_connection(settings: Settings, connection: Connection) -> None:
    """Workers stopped at whatever point of their start leave no connection and no live worker behind (B65)."""
    connections = "select count(*) from pg_stat_activity where datname = current_database()"
    before = connection.execute(connections).fetchone()

    for n in range(12):
        worker = AbsurdWorker(settings=settings)
        runner = asyncio.create_task(worker.run())
        await asyncio.sleep(0.01 * n)
        if n % 2:
            await worker.stop(grace=0)
            runner.cancel()
        else:
            runner.cancel()
        await asyncio.gather(runner, return_exceptions=True)

    await soon(lambda: connection.execute(connections).fetchone() == before)
    assert [] == connection.execute("select from worker where state = 'running'").fetchall()
