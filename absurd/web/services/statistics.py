"""How much there is: counted in the database, and kept for a while."""

from __future__ import annotations

from absurd.product_rows import Document
from absurd.web.repositories.interfaces import CountRepositoryProtocol
from absurd.web.services.cache import Cache

SECONDS = 30.0
"""For how long counts are kept: they are made row by row."""
COUNTED = {
    "products": ("product", ("kind", "state")),
    "sources": ("source", ()),
    "gain_sets": ("gain_set", ("state",)),
    "recordings": ("recording", ("state",)),
    "measures": ("qa_result", ("verdict",)),
    "sessions": ("session", ("session_type",)),
}
"""What is counted, and by which columns.  Photometry is not: there is no end of it."""


class StatisticsService:
    """Counts of what products there are."""

    def __init__(self, repository: CountRepositoryProtocol, cache: Cache) -> None:
        self._repository = repository
        self._cache = cache

    async def count(self) -> Document:
        """Counts, each with the columns they are of; at most half a minute old."""
        key = "stats"
        if (kept := self._cache.get(key)) is not None:
            return dict(kept)
        found: Document = {name: await self._repository.count(table, *by) for name, (table, by) in COUNTED.items()}
        self._cache.put(key, found, size=4096, seconds=SECONDS)
        return found
