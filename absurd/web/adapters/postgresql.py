"""The product tables in the queue's database, by its functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from absurd.database import AsyncDatabase
from absurd.product_rows import Document, Query, count_products, read_products
from absurd.products import FileKind, ProductState, find_sources, list_products, list_variability


class PostgresqlAdapter:
    """Reads through a database that others open and close."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database

    async def connect(self) -> None:
        """Open it, unless it is open."""
        await self._database.open()

    async def close(self) -> None:
        """Nothing: the database has others who read."""

    async def fetch_all(self, query: Query) -> list[Document]:
        return await self._database.run(read_products(query))

    async def fetch_around(self, ra: float, declination: float, radius_arcsec: float, limit: int) -> list[Document]:
        call = find_sources(ra, declination, radius_arcsec, limit=limit)
        near = {each["id"]: each for each in await self._database.run(call)}
        if not near:
            return []
        found = await self.fetch_all(Query("source", (("id", "in", list(near)),), limit=len(near)))
        told = {each["id"]: each | {"arcsec": near[each["id"]]["arcsec"]} for each in found}
        return [told[number] for number in near if number in told]

    async def fetch_latest(self, kind: str | None, state: str | None, limit: int) -> list[Document]:
        call = list_products(cast("FileKind | None", kind), state=cast("ProductState | None", state), limit=limit)
        return await self._database.run(call)

    async def fetch_changing(self, product: int, limit: int) -> list[Document]:
        return await self._database.run(list_variability(product, limit=limit))

    async def count(self, table: str, by: Sequence[str] = ()) -> list[Document]:
        return await self._database.run(count_products(table, by))
