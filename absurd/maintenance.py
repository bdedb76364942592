"""The regular round that keeps a queue going: made by every worker and by the scheduler alike.

Nothing needs a special process to be alive: whoever comes first does the work, the others pass by.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from absurd import claims
from absurd.call import Call, Row
from absurd.database import AsyncDatabase
from absurd.errors import AbsurdError, DatabaseUnavailableError
from absurd.loop import JITTER

LONGEST_REST = 30.0
"""How long somebody rests who has nothing to do, is told of what is due before, and knows that he hears of it."""
LONGEST_BACKOFF = 5.0
"""Longest pause after failures in a row: all are back within seconds of a database that was away."""
PRUNE_BATCH = 1000
"""How many ended tasks one call of `prune_ended` removes, if there are so many."""
PRUNE_CALLS = 5
"""Calls of one round, while each finds all it may: the recovery of lost runs, with the next round, is not to wait."""
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
    next_loss: float | None = None
    """Seconds until a worker will have been silent for its lease, if it says nothing before."""
    silence: float | None = None
    """For how many seconds nobody may give a sign of life before the database is taken for having been away."""
    ready: frozenset[int] = frozenset()
    """The queues with something to claim."""
    oldest: int = 0
    """The oldest transaction that has changed something and is open."""
    newest: int = 0
    """The newest one that there was."""
    ahead: float = 0.0
    """By how many seconds the database's clock is ahead of this process' monotonic one."""
    folded: int = 0
    """Changes of counts that were added up."""
    failed: bool = False
    """Whether a part of it failed."""
    unpublished: bool = False
    """Whether files wait for their final names."""

    @property
    def moved(self) -> bool:
        """Whether something may have become claimable."""
        return bool(self.recovered or self.promoted or self.counted)


class Rest:
    """When a round is needed again: each `poll` seconds while there is something to do, when something is due else.

    `pulse` is how often whoever makes the rounds gives another sign of life.
    """

    def __init__(self, *, poll: float, pulse: float) -> None:
        self._poll = poll
        self._pulse = pulse
        self._ahead: float | None = None  # of the database's clock before this process' own

    def after(self, done: Round, *, idle: bool) -> float:
        """In how many seconds; `idle` tells whether it will be heard what becomes due before."""
        self._ahead = done.ahead
        wanted = self._poll if done.next_wake is None else done.next_wake
        if not idle or done.moved or done.failed or done.folded:
            return min(wanted, self._poll * random.uniform(1 - JITTER, 1 + JITTER))
        waits = [LONGEST_REST * random.uniform(1 - JITTER, 1), done.next_wake, done.next_loss]
        if done.silence is not None and done.silence < 1.1 * self._pulse:
            waits.append(0.7 * done.silence)
        return max(min(each for each in waits if each is not None), min(wanted, self._poll))

    def until(self, due: str) -> float:
        """Seconds until what a notification told of; 0 where that is not known."""
        return max(0.0, float(due) - time.monotonic() - self._ahead) if due and self._ahead is not None else 0.0


async def make_round(database: AsyncDatabase) -> Round:
    """Recover lost runs, wake sleepers, count late children and fold counts, prune, look after partitions and marks.

    A part that fails is logged as `maintenance_failed` and tried again with the next round; the others are done all
    the same.  Raises DatabaseUnavailableError, and what keeps all parts from being done.
    """
    done: dict[str, Any] = await database.run(claims.maintain())
    answered = time.monotonic()
    for each in done["failed"]:
        _tell(each["part"], each["code"], each["error"])
    # Each in a transaction of its own: the sweep takes locks in the order of the house, partitions wait for
    # tables, and the marks need an xid that is not older than what they judge.
    counted = await _alone(database, "sweep_late") if done["late"] else 0
    if done["prune"]:
        for _ in range(PRUNE_CALLS):
            if await _alone(database, "prune_ended") < PRUNE_BATCH:
                break
    if done["partitions"]:
        await _alone(database, "ensure_partitions")
    if done["spent"]:
        await _alone(database, "drop_partition")
    if done["marks"]:
        await _alone(database, "advance_marks")
    return Round(
        recovered=done["recovered"],
        promoted=done["promoted"],
        counted=counted,
        next_wake=done["next_wake_seconds"],
        next_loss=done["next_loss_seconds"],
        silence=done["silence"],
        ready=frozenset(done["ready"]),
        oldest=done["oldest"],
        newest=done["newest"],
        ahead=done["now"] - answered,
        folded=done["folded"] + done["overdue"],
        failed=bool(done["failed"] or done["late"]),
        unpublished=done["unpublished"],
    )


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
