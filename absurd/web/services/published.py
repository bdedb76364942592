"""Files that the tasks of a family of executors have published: exports, cut-outs."""

from __future__ import annotations

from uuid import UUID

from absurd.errors import NotFoundError
from absurd.product_rows import Document
from absurd.web.repositories.interfaces import ArtifactRepositoryProtocol
from absurd.web.services.records import RecordService

MOST = 10_000
"""How many files of a task are told."""


class PublishedService(RecordService):
    """Files by task; each is found by its hash among those that are registered."""

    def __init__(self, repository: ArtifactRepositoryProtocol, what: str) -> None:
        super().__init__(repository, what)
        self._artifacts = repository

    async def list_of_task(self, task_id: UUID) -> Document:
        """What a task has published, as the only page.  Raises NotFoundError for a task that has published nothing."""
        found = await self._artifacts.list_of_task(str(task_id), MOST)
        if not found:
            raise NotFoundError(f"there is no {self._what} of task {task_id}", id=str(task_id))
        return {"items": found, "next": None}

    async def get_file(self, task_id: UUID, sha256: str) -> Document:
        """One of these files.  Raises NotFoundError."""
        for each in (await self.list_of_task(task_id))["items"]:
            if each["sha256"] == sha256:
                return dict(each)
        raise NotFoundError(f"task {task_id} has published no file with that SHA-256", id=str(task_id))
