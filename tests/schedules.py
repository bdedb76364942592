"""Schedulers beside a test, and schedules as plain SQL makes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg

from absurd.scheduler.daemon import Scheduler

Connection = psycopg.Connection[tuple[Any, ...]]

START = datetime(2026, 3, 2, 11, 30, tzinfo=UTC)
"""Where the clock of a test stands at first."""


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
    try:
        async with asyncio.timeout(30):
            while connection.execute(query).fetchone() != (True,):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not so after 30 s: {query}") from None


def demo_schedule(connection: Connection, name: str, trigger: str, **given: Any) -> str:
    """Make or change a schedule of the executor bare.add; tells which."""
    document = {"trigger": trigger, "executor": "bare.add"} | given
    (change,) = connection.execute("select set_schedule(%s, %s)", [name, json.dumps(document)]).fetchone() or ("",)
    return str(change)


def fired(connection: Connection, name: str) -> list[datetime]:
    """The times due at which a task was spawned, in UTC."""
    rows = connection.execute(
        "select due_at from tick t join schedule s on s.id = t.schedule_id"
        " where s.name = %s and task_id is not null order by 1",
        [name],
    )
    return [due.astimezone(UTC) for (due,) in rows.fetchall()]
