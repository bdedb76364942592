"""The regular round that keeps a queue going: made by every worker and by the scheduler alike.

Nothing needs a special process to be alive: whoever comes first does the work, the others pass by.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from absurd import claims
from absurd.call import Call, Row
from absurd.database import AsyncDatabase
from absurd.errors import AbsurdError, DatabaseUnavailableError

TELL_SECONDS = 60.0
"""How often a part of the round that fails the same way again and again is logged."""

log = structlog.get_logger("absurd.maintenance")


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did."""

    recovered: int
    """Runs taken back from workers that stopped answering."""
    promoted: int
    """Sleepers that became claimable."""
    counted: int
    """Children of ended parents that were counted."""
    next_wake: float | None
    """Seconds until the next sleeper is due; None when none is."""

    @property
    def moved(self) -> bool:
        """Whether something may have become claimable."""
        return bool(self.recovered or self.promoted or self.counted)


async def make_round(database: AsyncDatabase) -> Round:
    """Recover lost runs, wake sleepers, count late children and fold counts, prune, look after partitions and marks.

    A part that fails is logged as `maintenance_failed` and tried again with the next round; the others are done all
    the same.  Raises DatabaseUnavailableError, and what keeps all parts from being done.
    """
    done: dict[str, Any] = await database.run(claims.maintain())
    for each in done["failed"]:
        _tell(each["part"], each["code"], each["error"])
    # Each in a transaction of its own: the sweep takes locks in the order of the house, partitions wait for
    # tables, and the marks need an xid that is not older than what they judge.
    counted = await _alone(database, "sweep_late") if done["late"] else 0
    if done["prune"]:
        await _alone(database, "prune_ended")
    if done["partitions"]:
        await _alone(database, "ensure_partitions")
    if done["spent"]:
        await _alone(database, "drop_partition")
    if done["marks"]:
        await _alone(database, "advance_marks")
    return Round(done["recovered"], done["promoted"], counted, done["next_wake_seconds"])


async def _alone(database: AsyncDatabase, part: str) -> int:
    try:
        return await database.run(Call(f"select {{schema}}.{part}() as done", (), _count))
    except DatabaseUnavailableError:
        raise
    except AbsurdError as error:
        _tell(part, error.code, error.message)
        return 0


def _count(rows: Sequence[Row]) -> int:
    return int(rows[0]["done"])


_told: dict[tuple[str, str], float] = {}


def _tell(part: str, code: str, error: str) -> None:
    """Log a failure; one of its kind once in a while only, for rounds come each second, and messages differ."""
    now = time.monotonic()
    if now - _told.get((part, code), -TELL_SECONDS) >= TELL_SECONDS:
        _told[part, code] = now
        log.error("maintenance_failed", part=part, code=code, error=error)
