"""What a run needs of the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from absurd.middleware import SpawnMiddleware
from absurd.offspring import Ending
from absurd.scratch import ScratchSpace


class Port(Protocol):
    """The way from a run to the database; a call that names the claim may raise StaleClaimError."""

    @property
    def spawn_middleware(self) -> Sequence[SpawnMiddleware]:
        """What each task passes through that a run spawns."""

    @property
    def scratch(self) -> ScratchSpace:
        """Where runs may make folders for files that go with them."""

    async def get_checkpoints(self, task_id: UUID) -> dict[str, Any]:
        """Saved steps by name."""

    async def set_checkpoint(self, lease: int, task_id: UUID, name: str, value: str) -> None:
        """Save a step (JSON text)."""

    async def set_progress(
        self, lease: int, task_id: UUID, done: float, total: float | None, message: str | None
    ) -> None:
        """Tell how far the run is."""

    async def check_claim(self, lease: int, task_id: UUID) -> None:
        """Raise StaleClaimError unless the claim is still held."""

    async def clock_time(self) -> datetime:
        """What time it is in the database."""

    async def get_results(self, task_ids: Sequence[UUID]) -> list[Ending]:
        """How tasks stand, in the order of the ids."""

    async def await_files(self, task_ids: Sequence[UUID]) -> None:
        """Wait until the files of completed tasks are in their places.  Raises FilesMissing."""
