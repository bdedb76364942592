"""Fire what is due of schedules, inline: as a scheduler would, and without one."""

from __future__ import annotations

import asyncio
from typing import Any

from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.errors import AbsurdError
from absurd.scheduler.ticker import Ticker
from absurd.testing.place import HasSettings, settings_of

ROUNDS = 1000
"""Of a thousand times due each, unless told otherwise."""


async def fire_due(source: Settings | HasSettings | None = None) -> int:
    """Fire all schedules that are due by the database's clock; gives how many tasks were spawned.

    Move a `FakeClock`, fire, and `drain`.  Beside a scheduler that runs it only fires what that has left.
    """
    settings = settings_of(source)
    async with AsyncDatabase(str(settings.database_url), schema=settings.schema) as database:
        ticker = Ticker(database, "absurd.testing")
        before = await _spawned(database)
        for _ in range(ROUNDS):
            if await ticker.round() > 0:
                await ticker.resign()
                return await _spawned(database) - before
    raise AbsurdError("schedules are still due after a thousand rounds")


def fire_due_sync(source: Settings | HasSettings | None = None) -> int:
    """`fire_due` for plain tests."""
    return asyncio.run(fire_due(source))


async def _spawned(database: AsyncDatabase) -> int:
    rows: Any = await database.fetch("select count(task_id) as n from {schema}.tick")
    return int(rows[0]["n"])
