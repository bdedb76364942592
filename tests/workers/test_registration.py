"""A worker begins: it waits for nobody's open transaction, and can be stopped before it has begun."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from live import soon, working

from absurd import AbsurdClient
from absurd.config import Settings
from absurd.workers import AbsurdWorker
from absurd.workers import worker as worker_module

Connection = psycopg.Connection[Any]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With executors of the tests."""
    return replace(settings, imports=("demo_executors",))


@pytest.mark.parametrize("commits", [True, False], ids=["committed", "rolled back"])
async def test_names_that_another_is_just_making_hold_up_no_worker(
    settings: Settings, client: AbsurdClient, connection: Connection, commits: bool
) -> None:
    """It serves its other queues meanwhile, and that one as soon as it is there, or can be made."""
    with psycopg.connect(settings.database_url or "", autocommit=False) as other:
        other.execute("select absurd.spawn_task('night', 'demo.add', '{\"a\": 1, \"b\": 2}')")
        async with working(settings, queues=["default", "night"]):
            await client.wait(await client.spawn("demo.think", {"n": 4}, queue="default"), timeout=120)
            if commits:
                other.commit()
            else:
                other.rollback()
                await soon(lambda: connection.execute("select from queue where name = 'night'").fetchall())
                await client.spawn("demo.add", {"a": 1, "b": 2}, queue="night")
            await soon(lambda: connection.execute("select from run where result = '{\"sum\": 3}'").fetchall())
            described = "select from executor where name = 'demo.add' and registered_at is not null"
            await soon(lambda: connection.execute(described).fetchall())
            listens = "select from listener l join queue q on q.id = l.queue_id where q.name = 'night'"
            await soon(lambda: connection.execute(listens).fetchall())


async def test_a_worker_is_stopped_while_it_registers(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its registration waits for: it ends, and leaves no announcement that would come true later."""
    monkeypatch.setattr(worker_module, "LAST_WORD_SECONDS", 1e6)
    worker = AbsurdWorker(settings=settings)
    waits = "select from pg_stat_activity where wait_event_type = 'Lock' and query ~ 'register_worker'"
    with psycopg.connect(settings.database_url or "", autocommit=False) as other:
        other.execute("lock table absurd.worker in access exclusive mode")
        runner = asyncio.create_task(worker.run())
        await soon(lambda: connection.execute(waits).fetchall())
        await asyncio.wait_for(worker.stop(), 30)
        await asyncio.wait_for(runner, 30)
        await soon(lambda: not connection.execute(waits).fetchall())
    assert connection.execute("select count(*) from worker").fetchone() == (0,)
