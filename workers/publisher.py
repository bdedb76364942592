"""A worker gives files of completed runs their final names, its own at once and others' when they are overdue."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import structlog

from absurd import claims
from absurd.database import AsyncDatabase
from absurd.errors import AbsurdError
from absurd.outcome import PendingArtifact
from absurd.workers.pump.calls import get_overdue_publications
from absurd.workers.pump.reports import Report
from absurd.workers.runs.artifacts import publish

OVERDUE_SECONDS = 15.0
"""How often a worker looks for files that another left unpublished; it may be the one that sees their folder."""

log = structlog.get_logger("absurd.worker")


class Publisher:
    """Renames files beside the pump; if the worker dies now, anyone may do it."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database
        self._jobs: set[asyncio.Task[None]] = set()
        self._due = 0.0
        self._elsewhere: set[tuple[UUID, str]] = set()  # files that are not to be found here

    def publish_files(self, report: Report) -> None:
        """Publish a completed run's files, soon."""
        job = asyncio.get_running_loop().create_task(self._publish_all(report))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def publish_overdue(self, *, some: bool = True) -> None:
        """Publish what workers left that died between completion and renaming, if it is time to look again.

        `some` is whether there are any.
        """
        if some and time.monotonic() >= self._due:
            self._due = time.monotonic() + OVERDUE_SECONDS
            overdue = await self._database.run(get_overdue_publications())
            self._elsewhere &= {(task_id, path) for task_id, path, _ in overdue}  # no more than are asked for
            for task_id, path, attempt_path in overdue:
                await self._publish(task_id, PendingArtifact(attempt_path, path, "", "", 0), overdue=True)

    async def finish(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._jobs, return_exceptions=True)

    async def _publish_all(self, report: Report) -> None:
        for artifact in getattr(report.outcome, "artifacts", ()):
            await self._publish(report.claim.task_id, artifact)

    async def _publish(self, task_id: UUID, artifact: PendingArtifact, *, overdue: bool = False) -> None:
        try:
            await asyncio.to_thread(publish, artifact)
            await self._database.run(claims.mark_published(task_id, artifact.path, artifact.attempt_path))
        except (OSError, AbsurdError) as error:
            key = (task_id, artifact.path)
            if overdue and isinstance(error, FileNotFoundError):
                if key in self._elsewhere:
                    return  # said once: another worker may see their folder
                self._elsewhere.add(key)
            log.error("publication_failed", task_id=str(task_id), path=artifact.path, error=str(error))
