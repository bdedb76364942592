"""The sky as pages show it: products, sources and how they change."""

from __future__ import annotations

from absurd.errors import NotFoundError
from absurd.product_rows import Document, with_image
from absurd.web.repositories.interfaces import ProductRepositoryProtocol, SourceRepositoryProtocol
from absurd.web.services.images import ImageService

TABLES = 10
"""Of how many of the latest tables one is looked for that tells of variability."""
MEASUREMENTS = 10_000
"""How many of a source a page shows, the first ones."""


class SkyService:
    """What pages show of products."""

    def __init__(self, products: ProductRepositoryProtocol, sources: SourceRepositoryProtocol) -> None:
        self._products = products
        self._sources = sources
        self._images = ImageService(products, "product")

    async def list_products(self, kind: str | None, state: str | None, limit: int) -> list[Document]:
        """Products of the latest observations, each with its ``image``."""
        return await self._products.list_latest(kind, state, limit)

    async def get_product(self, number: int) -> Document:
        """A product with ``image``, ``qa``, ``inputs`` and ``used_in``.  Raises NotFoundError."""
        found = with_image(await self._images.show(number))
        inputs = await self._products.list_inputs([number], MEASUREMENTS)
        used_in = await self._products.list_uses([number], MEASUREMENTS)
        return found | {"inputs": inputs, "used_in": [each["product_id"] for each in used_in]}

    async def list_sources(self, ra: float, declination: float, radius_arcsec: float, limit: int) -> list[Document]:
        """Sources around a position (degrees, ICRS), the nearest first."""
        return await self._sources.list_around(ra, declination, radius_arcsec, limit)

    async def list_changing(self, limit: int) -> tuple[Document | None, list[Document]]:
        """The latest table that tells how sources change, and these, the most first."""
        for table in await self._products.list_latest("table", "accepted", TABLES):
            if found := await self._sources.list_changing(table["id"], limit):
                return table, found
        return None, []

    async def get_light_curve(self, number: int) -> tuple[Document, list[Document]]:
        """A source, and what it was in each image, by time.  Raises NotFoundError where nothing was measured."""
        source = await self._sources.get_by_id(number)
        rows, _ = await self._sources.list_light_curve(number, MEASUREMENTS)
        if source is None or not rows:
            raise NotFoundError(f"there is no source {number} of which anything was measured", id=number)
        return source, rows
