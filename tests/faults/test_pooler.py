"""A transaction-mode pooler between: nothing that stays in a session is relied on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import demo_executors  # noqa: F401  registers them
import psycopg
import pytest
import recount
from faults.pooler import pooler_before

from absurd import AbsurdClient, SyncAbsurdClient
from absurd.config import Settings
from absurd.workers import AbsurdWorker


@pytest.fixture
def pooled(settings: Settings, database_url: str) -> Iterator[Settings]:
    """Settings for the way through the pooler."""
    with pooler_before(database_url) as url:
        yield replace(settings, database_url=url, prepared_statements=False)


async def test_all_works_through_a_pooler(
    pooled: Settings, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """Spawns of both clients, keys, graphs, retries, steps, processes, waiting: all is done."""
    worker = AbsurdWorker(settings=pooled)
    running = asyncio.create_task(worker.run())
    try:
        async with AbsurdClient(settings=pooled) as client:
            first = await client.spawn("demo.add", {"a": 1, "b": 2}, key="k")
            assert await client.spawn("demo.add", {"a": 5, "b": 5}, key="k") == first
            child = await client.spawn("demo.crunch", {"n": 3}, depends_on=[first])
            many = [await client.spawn("demo.fail", {"until": 2}) for _ in range(20)]
            steps = await client.spawn("demo.steps", {"path": str(tmp_path / "once"), "event": "dawn"})
            await client.emit_event("dawn")
            ended = [await client.wait(each, timeout=30) for each in (first, child, steps, *many)]
        plain = await asyncio.to_thread(_spawn_and_wait, pooled)
    finally:
        await worker.stop(grace=5)
        await running

    assert ended[0].result == {"sum": 3}
    assert ended[1].result["value"] == 9
    assert [each.state for each in (*ended, plain)] == ["completed"] * 24
    assert recount.faults(connection) == []


def _spawn_and_wait(settings: Settings) -> Any:
    with SyncAbsurdClient(settings=settings) as client:
        return client.wait(client.spawn("demo.add", {"a": 2, "b": 2}), timeout=30)
