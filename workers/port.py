"""The way from runs to the database, through the worker's pool."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from absurd import claims
from absurd.database import AsyncDatabase
from absurd.middleware import SpawnMiddleware
from absurd.offspring import Ending
from absurd.queue import look
from absurd.scratch import ScratchSpace
from absurd.waiting import Waiting


class DatabasePort:
    """Implements `absurd.context.Port` on a database."""

    def __init__(
        self,
        database: AsyncDatabase,
        spawn_middleware: Sequence[SpawnMiddleware] = (),
        scratch: ScratchSpace | None = None,
    ) -> None:
        self._database = database
        self.spawn_middleware = spawn_middleware
        self.scratch = scratch or ScratchSpace()

    async def get_checkpoints(self, task_id: UUID) -> dict[str, Any]:
        """Saved steps by name."""
        return await self._database.run(claims.get_checkpoints(task_id))

    async def set_checkpoint(self, lease: int, task_id: UUID, name: str, value: str) -> None:
        """Save a step.  Raises StaleClaimError."""
        await self._database.run(claims.set_checkpoint(lease, task_id, name, value))

    async def set_progress(
        self, lease: int, task_id: UUID, done: float, total: float | None, message: str | None
    ) -> None:
        """Tell how far the run is.  Raises StaleClaimError."""
        await self._database.run(claims.set_progress(lease, task_id, done, total, message))

    async def check_claim(self, lease: int, task_id: UUID) -> None:
        """Raises StaleClaimError unless the claim is held."""
        await self._database.run(claims.check_claim(lease, task_id))

    async def clock_time(self) -> datetime:
        """What time it is in the database."""
        return await self._database.run(claims.current_time())

    async def get_results(self, task_ids: Sequence[UUID]) -> list[Ending]:
        """How tasks stand, in the order of the ids."""
        found = {row[0]: Ending(*row) for row in await self._database.run(claims.get_results(task_ids))}
        return [found[each] for each in task_ids]

    async def await_files(self, task_ids: Sequence[UUID]) -> None:
        """Wait until the files of completed tasks are in their places.  Raises FilesMissing."""
        for each in task_ids:
            waiting = Waiting(each, None)
            while (seen := await self._database.run(look(each, announce=False))).publishing:
                if waiting.is_over(seen):
                    break
                await asyncio.sleep(waiting.pause())
