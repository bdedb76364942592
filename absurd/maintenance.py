"""The regular round that keeps a queue going: made by every worker and by the scheduler alike.

Nothing needs a special process to be alive: whoever comes first does the work, the others pass by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from absurd import claims
from absurd.call import Call, nothing
from absurd.database import AsyncDatabase


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
    """Recover lost runs, wake due sleepers, count late children, fold counts, advance marks."""
    done: dict[str, Any] = await database.run(claims.maintain())
    # Each in a transaction of its own: the sweep takes locks in the order of the house, and the
    # marks need an xid that is not older than what they judge.
    counted: int = await database.run(_sweep_late()) if done["late"] else 0
    await database.run(_advance_marks())
    return Round(done["recovered"], done["promoted"], counted, done["next_wake_seconds"])


def _sweep_late() -> Call[int]:
    return Call("select {schema}.sweep_late() as counted", (), lambda rows: int(rows[0]["counted"]))


def _advance_marks() -> Call[None]:
    return Call("select {schema}.advance_marks()", (), nothing)
