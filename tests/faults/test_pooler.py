"""A transaction-mode pooler between: nothing that stays in a session is relied on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import psycopg
import pytest
import recount
from faults import journal_executors  # noqa: F401  registers them
from faults.pooler import pooler_before
from schedules import demo_schedule, fired, reached, running

from absurd import AbsurdClient, SyncAbsurdClient
from absurd.config import Settings
from absurd.scheduler.daemon import Scheduler
from absurd.workers import AbsurdWorker


@pytest.fixture
def pooled(settings: Settings, database_url: str) -> Iterator[Settings]:
    """Settings for the way through the pooler."""
    with pooler_before(database_url) as url:
        yield replace(settings, database_url=url, prepared_statements=False)


async def test_all_works_through_a_pooler(pooled: Settings, connection: psycopg.Connection[Any]) -> None:
    """Spawns of both clients, keys, graphs, retries, steps, processes, waiting: all is done."""
    worker = AbsurdWorker(settings=pooled)
    running = asyncio.create_task(worker.run())
    try:
        async with AbsurdClient(settings=pooled) as client:
            first = await client.spawn("journal.add", {"a": 1, "b": 2}, key="k")
            assert await client.spawn("journal.add", {"a": 5, "b": 5}, key="k") == first
            child = await client.spawn("journal.square", {"a": 3}, depends_on=[first])
            many = [await client.spawn("journal.fail") for _ in range(20)]
            steps = await client.spawn("journal.steps")
            await client.emit_event("dawn")
            ended = [await client.wait(each, timeout=120) for each in (first, child, steps, *many)]
        plain = await asyncio.to_thread(_spawn_and_wait, pooled)
    finally:
        await worker.stop(grace=5)
        await running

    assert ended[0].result == 3
    assert ended[1].result == 9
    assert [each.state for each in (*ended, plain)] == ["completed"] * 24
    assert recount.faults(connection) == []


def _spawn_and_wait(settings: Settings) -> Any:
    with SyncAbsurdClient(settings=settings) as client:
        return client.wait(client.spawn("journal.add", {"a": 2, "b": 2}), timeout=120)


async def test_schedules_come_true_through_a_pooler(pooled: Settings, connection: psycopg.Connection[Any]) -> None:
    """Two schedulers whose sessions are nobody's: each time due comes once, also after the one that leads has gone."""
    connection.execute("delete from schedule")
    demo_schedule(connection, "s", "every 1s")
    async with running(Scheduler(pooled)):
        async with running(Scheduler(pooled)):
            await reached(connection, "select count(*) >= 2 from tick")
        await reached(connection, "select count(*) >= 4 from tick")

    due = fired(connection, "s")
    assert [(later - earlier).total_seconds() for earlier, later in pairwise(due)] == [1.0] * (len(due) - 1)
    assert connection.execute("select count(*) from task").fetchone() == (len(due),)
