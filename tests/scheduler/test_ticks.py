"""Schedules come true: once for each time due, promptly, whatever else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from absurd.config import Settings
from absurd.scheduler.daemon import Scheduler

Connection = psycopg.Connection[tuple[Any, ...]]


@asynccontextmanager
async def running(*schedulers: Scheduler) -> AsyncIterator[None]:
    """The schedulers at work."""
    async with asyncio.TaskGroup() as group:
        for each in schedulers:
            group.create_task(each.run())
        yield
        for each in schedulers:
            each.stop()


async def reached(connection: Connection, query: str) -> None:
    """Wait until `query` gives true."""
    async with asyncio.timeout(30):
        while connection.execute(query).fetchone() != (True,):
            await asyncio.sleep(0.01)


async def test_a_schedule_made_in_sql_fires(settings: Settings, connection: Connection) -> None:
    """A schedule made by plain SQL is read by the next scheduler, and fires each second."""
    connection.execute("""select set_schedule('clock', '{"trigger": "every 1s", "executor": "demo.add"}')""")

    async with running(Scheduler(settings), Scheduler(settings)):
        await reached(connection, "select count(*) >= 3 from tick where task_id is not null")
    rows = connection.execute("select due_at, fired_at - due_at, task_id, skipped, detail from tick").fetchall()
    for r in rows:
        print(r)
    assert 0
