"""Measurement Sets, and the sub-bands that they were converted from."""

from __future__ import annotations

from absurd.product_rows import Document
from absurd.web.repositories.interfaces import MeasurementSetRepositoryProtocol
from absurd.web.services.records import RecordService

MOST = 5000
"""How many sub-bands are told: a telescope has fewer."""


class MeasurementSetService(RecordService):
    """Measurement Sets."""

    def __init__(self, repository: MeasurementSetRepositoryProtocol) -> None:
        super().__init__(repository, "Measurement Set")
        self._sets = repository

    async def trace(self, id: int) -> Document:
        """A Measurement Set with its sub-bands.  Raises NotFoundError."""
        return {"ms": await self.get(id), "subbands": await self._sets.list_subbands(id, MOST)}
