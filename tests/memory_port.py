"""A port that keeps in memory what a database would, for tests of runs without one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from absurd.errors import StaleClaimError
from absurd.middleware import SpawnMiddleware
from absurd.model import Claim
from absurd.offspring import Ending
from absurd.scratch import ScratchSpace


class MemoryPort:
    """Implements `absurd.context.Port`; `now` is its clock, `stale` makes every claim a lost one."""

    def __init__(self) -> None:
        self.spawn_middleware: Sequence[SpawnMiddleware] = ()
        self.scratch = ScratchSpace()
        self.checkpoints: dict[UUID, dict[str, Any]] = {}
        self.told: list[tuple[float, float | None, str | None]] = []
        self.endings: dict[UUID, Ending] = {}
        self.checked = 0
        self.now = datetime.now(UTC)
        self.stale = False

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    async def get_checkpoints(self, task_id: UUID) -> dict[str, Any]:
        """Saved steps by name."""
        return json.loads(json.dumps(self.checkpoints.get(task_id, {})))  # type: ignore[no-any-return]

    async def set_checkpoint(self, lease: int, task_id: UUID, name: str, value: str) -> None:
        """Save a step."""
        await self.check_claim(lease, task_id)
        self.checkpoints.setdefault(task_id, {})[name] = json.loads(value)

    async def set_progress(
        self, lease: int, task_id: UUID, done: float, total: float | None, message: str | None
    ) -> None:
        """Tell how far the run is."""
        await self.check_claim(lease, task_id)
        self.told.append((done, total, message))

    async def check_claim(self, lease: int, task_id: UUID) -> None:
        """Raise StaleClaimError once the claims are stale."""
        self.checked += 1
        if self.stale:
            raise StaleClaimError(f"the claim on {task_id} is lost")

    async def get_results(self, task_ids: Sequence[UUID]) -> list[Ending]:
        """How tasks stand, as the test has set in `endings`."""
        return [self.endings.get(each, Ending(each, None, None, None, None)) for each in task_ids]

    async def await_files(self, task_ids: Sequence[UUID]) -> None:
        """They are there at once."""
        for each in task_ids:
            self.endings[each] = self.endings[each]._replace(publishing=False)

    async def clock_time(self) -> datetime:
        """What time it is."""
        return self.now


def claim_of(name: str, params: Any = None, **fields: Any) -> Claim:
    """A claim on a fresh task."""
    values: dict[str, Any] = {"lease": 7, "task_id": uuid4(), "attempt": 1, "queue": "default"} | fields
    return Claim(name=name, params=params, **values)
