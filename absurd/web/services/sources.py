"""Sources: where they are, how bright they were, and how much they change."""

from __future__ import annotations

from typing import Any

from absurd.errors import InvalidInputError
from absurd.product_rows import Document
from absurd.web.repositories.interfaces import ImageRepositoryProtocol, SourceRepositoryProtocol
from absurd.web.services.records import RecordService

MOST = 1000
"""Of how many tables the variability of a source is told."""


class SourceService(RecordService):
    """Sources of the sky."""

    def __init__(self, repository: SourceRepositoryProtocol, images: ImageRepositoryProtocol) -> None:
        super().__init__(repository, "source")
        self._sources = repository
        self._images = images

    async def list_around(
        self, ra: float | None, declination: float | None, radius_arcsec: float, limit: int
    ) -> Document:
        """Sources around a position, the nearest first, as the only page.  Raises InvalidInputError for half of one."""
        if ra is None or declination is None:
            raise InvalidInputError("a position is ra and declination: give both, or none")
        return {"items": await self._sources.list_around(ra, declination, radius_arcsec, limit), "next": None}

    async def list_light_curve(self, id: int, limit: int, after: str | None, **filters: Any) -> Document:
        """What a source was in each image it was measured in.  Raises NotFoundError."""
        source = await self.get(id)
        items, following = await self._sources.list_light_curve(id, limit, after, **filters)
        return {"source": source, "items": items, "next": following}

    async def list_images(self, id: int, limit: int, after: str | None) -> Document:
        """The images that a source was measured in, as far as they are products, by time.  Raises NotFoundError."""
        await self.get(id)
        rows, following = await self._sources.list_light_curve(id, limit, after)
        numbers = list(dict.fromkeys(each["image_id"] for each in rows if each["image_id"] is not None))
        found = {each["id"]: each for each in await self._images.list_products(numbers)} if numbers else {}
        return {"items": [found[number] for number in numbers if number in found], "next": following}

    async def list_variability(self, id: int) -> Document:
        """How much a source changes, by each table that tells it, the latest first.  Raises NotFoundError."""
        await self.get(id)
        return {"items": await self._sources.list_variability(id, MOST), "next": None}
