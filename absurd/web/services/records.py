"""Records of one kind: pages of them, and one by its number or name."""

from __future__ import annotations

from typing import Any

from absurd.errors import NotFoundError
from absurd.product_rows import Document
from absurd.web.repositories.interfaces import RepositoryProtocol


class RecordService:
    """Lists and shows what a repository has; `what` is the word for one, in messages."""

    def __init__(self, repository: RepositoryProtocol, what: str) -> None:
        self._repository = repository
        self._what = what

    async def list_page(self, limit: int, after: str | None, **filters: Any) -> Document:
        """A page: `items` and `next`."""
        items, following = await self._repository.list_all(limit, after, **filters)
        return {"items": items, "next": following}

    async def get(self, id: Any) -> Document:
        """One record.  Raises NotFoundError."""
        found = await self._repository.get_by_id(id)
        if found is None:
            raise NotFoundError(f"there is no {self._what} {id}", id=id)
        return found
