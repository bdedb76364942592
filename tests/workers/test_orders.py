"""Orders to a running worker: to drain, and how many runs at a time.  The worker hears them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from live import soon, working

from absurd import AbsurdClient, TaskSpec, TaskState
from absurd.config import Settings
from absurd.workers import AbsurdWorker

HOUR = 3600.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Beats come by the hour: only a notification brings an order in the time of a test."""
    return replace(
        settings, imports=("demo_executors",), worker_heartbeat_interval=HOUR, worker_lease=4 * HOUR, worker_prefetch=0
    )


async def becomes(look: Callable[[], Awaitable[Any]], wanted: Any) -> None:
    """Wait until what is looked at is so."""
    async with asyncio.timeout(30):
        while (found := await look()) != wanted:
            await asyncio.sleep(0.01)
    assert found == wanted


class Held:
    """Runs that each last until they are let go."""

    def __init__(self, client: AbsurdClient, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.ids: list[UUID] = []

    async def spawn(self, n: int) -> None:
        first = len(self.ids)
        self.ids += await self.client.spawn_many(
            TaskSpec("demo.hold", {"started": str(self.folder / f"s{i}"), "release": str(self.folder / f"r{i}")})
            for i in range(first, first + n)
        )

    def started(self) -> int:
        """How many have begun."""
        return len(list(self.folder.glob("s*")))

    def release(self, *numbers: int) -> None:
        """Let these end; all where none is named."""
        for i in numbers or range(len(self.ids)):
            (self.folder / f"r{i}").touch()

    async def states(self) -> list[TaskState | None]:
        found = await self.client.get_states(self.ids)
        return [found[each] for each in self.ids]

    async def attempts(self) -> set[int]:
        """How often the tasks were tried."""
        return {(await self.client.get_task(each)).attempts for each in self.ids}


@pytest.fixture
def held(client: AbsurdClient, tmp_path: Path) -> Held:
    return Held(client, tmp_path)


async def test_concurrency_changes_at_once_and_touches_no_run(
    settings: Settings, client: AbsurdClient, held: Held
) -> None:
    """One slot becomes three with the order, and one again: the three go on, and the fourth waits for the last."""

    async def concurrency() -> int:
        return int((await client.list_workers())[0]["concurrency"])

    await held.spawn(4)
    async with working(settings, concurrency=1) as worker:
        await soon(lambda: held.started() == 1)
        assert worker.id is not None
        await client.set_worker_concurrency(worker.id, 3)
        await soon(lambda: held.started() == 3)
        await becomes(concurrency, 3)

        await client.set_worker_concurrency(worker.id, None)
        await becomes(concurrency, 1)
        held.release(0, 1)
        await becomes(held.states, [TaskState.COMPLETED, TaskState.COMPLETED, TaskState.RUNNING, TaskState.PENDING])
        assert held.started() == 3

        held.release()
        await becomes(held.states, [TaskState.COMPLETED] * 4)
    assert await held.attempts() == {1}


async def test_a_drained_worker_ends_its_runs_and_leaves(settings: Settings, client: AbsurdClient, held: Held) -> None:
    """It claims nothing more, gives back what it claimed ahead, and `run` returns once its runs have ended."""
    await held.spawn(3)
    worker = AbsurdWorker(settings=settings, concurrency=1, prefetch=1)
    runner = asyncio.create_task(worker.run())
    await soon(lambda: held.started() == 1)
    assert worker.id is not None
    await client.drain_worker(worker.id)
    await becomes(held.states, [TaskState.RUNNING, TaskState.PENDING, TaskState.PENDING])
    (shown,) = await client.list_workers()
    assert shown["draining"]
    problems = {each["code"] for each in (await client.get_status())["problems"]}
    assert "queue_unserved" in problems
    assert "No worker serves its queue" in await client.task_why(held.ids[1])

    held.release()
    async with asyncio.timeout(30):
        await runner

    assert await held.states() == [TaskState.COMPLETED, TaskState.PENDING, TaskState.PENDING]
    assert [each["state"] for each in await client.list_workers(all=True)] == ["stopped"]
    await AbsurdWorker(settings=settings).run("drain")
    assert await held.attempts() == {1}


async def test_orders_outlive_a_worker_that_was_given_up(
    settings: Settings, client: AbsurdClient, connection: psycopg.Connection[Any], held: Held
) -> None:
    """Taken for dead with an order it has not heard, the process comes back under a new number and obeys it."""
    async with working(settings, concurrency=1) as worker:
        await held.spawn(2)
        await soon(lambda: held.started() == 1)
        former = worker.id
        connection.execute("update worker set wanted_concurrency = 2")
        connection.execute("select give_up_worker(%s), pg_notify('absurd_lease', '')", (former,))
        await soon(lambda: worker.id != former and held.started() == 2)
        held.release()
        await becomes(held.states, [TaskState.COMPLETED] * 2)
        connection.execute("update worker set draining = true")
        connection.execute("select give_up_worker(%s), pg_notify('absurd_lease', '')", (worker.id,))
        await soon(lambda: worker.drained)
    rows = connection.execute("select draining, wanted_concurrency, state from worker order by id").fetchall()
    assert rows[0][1:] == (2, "lost")
    assert rows[-1] == (True, 2, "stopped")


async def test_the_cores_are_shared_anew(
    settings: Settings, client: AbsurdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more slots each new run in a process has fewer threads: all of them together still fit the machine."""
    monkeypatch.setattr("absurd.workers.host.pinning.cores", lambda: 8)

    async def threads() -> int:
        done = await client.wait(await client.spawn("hostile.facts", {}), timeout=120)
        return int(done.result["environment"]["OMP_NUM_THREADS"])

    async with working(replace(settings, imports=("hostile_executors",)), concurrency=2) as worker:
        assert await threads() == 4
        assert worker.id is not None
        await client.set_worker_concurrency(worker.id, 8)
        await soon(lambda: worker.busy[1] == 8)
        assert await threads() == 1
