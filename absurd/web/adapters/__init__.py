"""Where the product tables are: in PostgreSQL, or in a file of products.  Both answer the same queries alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.product_rows import Document, Query


class DatabaseAdapter(Protocol):
    """Reads product tables."""

    async def connect(self) -> None:
        """Make ready to read.  Raises what opening it raises."""

    async def close(self) -> None:
        """Let go of what `connect` has opened."""

    async def fetch_all(self, query: Query) -> list[Document]:
        """The rows of a query as documents: times as text in UTC, JSON as what it holds."""

    async def fetch_around(self, ra: float, declination: float, radius_arcsec: float, limit: int) -> list[Document]:
        """Sources around a position (degrees, ICRS), the nearest first, each with its distance in ``arcsec``."""

    async def fetch_latest(self, kind: str | None, state: str | None, limit: int) -> list[Document]:
        """Products, the latest observation first, with what is known of each as ``image``, null for a table."""

    async def fetch_changing(self, product: int, limit: int) -> list[Document]:
        """How sources change by a table, the most first, each with its ``name``, ``ra`` and ``declination``."""

    async def count(self, table: str, by: Sequence[str] = ()) -> list[Document]:
        """How many rows of a table there are, as ``count``, for each value of the columns `by`."""


def create_adapter(settings: Settings, database: AsyncDatabase | None) -> DatabaseAdapter:
    """The adapter of the file that the setting `web_products` names, else that of the queue's database."""
    from absurd.web.adapters.postgresql import PostgresqlAdapter
    from absurd.web.adapters.sqlite import SqliteAdapter

    if settings.web_products is not None:
        return SqliteAdapter(settings.web_products)
    assert database is not None, "without a file of products there is a database"
    return PostgresqlAdapter(database)
