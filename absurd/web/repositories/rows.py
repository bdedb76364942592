"""The repositories of product tables: each is a table, what of it counts, and by which filters it is listed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from absurd.product_rows import TABLES, Document, Operator, Query
from absurd.web.adapters import DatabaseAdapter
from absurd.web.repositories.places import read_place, tell_place

Where = tuple[tuple[str, Operator, Any], ...]
Filters = Mapping[str, tuple[str, Operator]]
_EQUAL: Operator = "="
_FROM: Operator = ">="
_BEFORE: Operator = "<"


class Rows:
    """Rows of one table, latest first."""

    table = ""
    only: Where = ()
    """What holds of all of them."""
    identity = "id"
    filters: ClassVar[Filters] = {}
    """By the names that callers use."""

    def __init__(self, adapter: DatabaseAdapter) -> None:
        self.adapter = adapter

    async def get_by_id(self, id: Any) -> Document | None:
        """The record of that number or name; None if there is none."""
        where: Where = (*self.only, (self.identity, _EQUAL, id))
        found = await self.adapter.fetch_all(Query(self.table, where, descending=True, limit=1))
        return found[0] if found else None

    async def list_all(self, limit: int, after: str | None = None, **filters: Any) -> tuple[list[Document], str | None]:
        """A page, and where the next one begins, see `RepositoryProtocol`."""
        chosen: Where = tuple((*self.filters[name], value) for name, value in filters.items() if value is not None)
        return await self.page(self.table, (*self.only, *chosen), limit, after, descending=True)

    async def page(
        self, table: str, where: Where, limit: int, after: str | None, *, descending: bool = False
    ) -> tuple[list[Document], str | None]:
        """A page of any table, and where the next one begins."""
        query = Query(table, where, read_place(table, after), descending, limit + 1)
        found = await self.adapter.fetch_all(query)
        return found[:limit], tell_place(table, found[limit - 1]) if len(found) > limit else None

    async def related(self, table: str, column: str, value: Any, limit: int) -> list[Document]:
        """Rows of another table that tell of one of this, or with a list of some, by their key."""
        operator: Operator = "in" if isinstance(value, list) else "="
        return await self.adapter.fetch_all(Query(table, ((column, operator, value),), limit=limit))


class ImageRepository(Rows):
    """Images and mosaics."""

    table = "product"
    only: Where = (("kind", "in", ["image", "mosaic"]),)
    filters: ClassVar[Filters] = {
        "kind": ("kind", _EQUAL),
        "state": ("state", _EQUAL),
        "telescope": ("telescope", _EQUAL),
        "since": ("observed_from", _FROM),
        "until": ("observed_from", _BEFORE),
        "task_id": ("task_id", _EQUAL),
    }

    async def list_products(self, ids: list[int]) -> list[Document]:
        """Products of any kind, by their numbers."""
        return await self.related("product", "id", ids, len(ids) or 1)

    async def list_inputs(self, ids: list[int], limit: int) -> list[Document]:
        """What products were made of."""
        return await self.related("product_input", "product_id", ids, limit)

    async def list_uses(self, ids: list[int], limit: int) -> list[Document]:
        """As `list_inputs`, of those that were made of products."""
        return await self.related("product_input", "input_id", ids, limit)

    async def list_measures(self, id: int) -> list[Document]:
        """What gates have measured of a product."""
        return await self.related("qa_result", "product_id", id, MOST_RELATED)


class ProductRepository(ImageRepository):
    """Products of any kind: tables too."""

    only: Where = ()

    async def list_latest(self, kind: str | None, state: str | None, limit: int) -> list[Document]:
        """Those of the latest observations, with their ``image``."""
        return await self.adapter.fetch_latest(kind, state, limit)

    async def list_of_tasks(self, task_ids: list[str]) -> list[Document]:
        """What tasks have made."""
        return await self.related("product", "task_id", task_ids, MOST_RELATED)


class SourceRepository(Rows):
    """Sources of the sky."""

    table = "source"
    filters: ClassVar[Filters] = {"name": ("name", _EQUAL)}

    async def list_around(self, ra: float, declination: float, radius_arcsec: float, limit: int) -> list[Document]:
        """Those around a position (degrees, ICRS), the nearest first."""
        return await self.adapter.fetch_around(ra, declination, radius_arcsec, limit)

    async def list_light_curve(
        self, id: int, limit: int, after: str | None = None, **filters: Any
    ) -> tuple[list[Document], str | None]:
        """What a source was in each image, by time, and where the next page begins."""
        ways: Filters = {"since": ("observed_at", _FROM), "until": ("observed_at", _BEFORE)}
        chosen: Where = tuple((*ways[name], value) for name, value in filters.items() if value is not None)
        return await self.page("photometry", (("source_id", "=", id), *chosen), limit, after)

    async def list_variability(self, id: int, limit: int) -> list[Document]:
        """How much a source changes, by each table that tells it, the latest first."""
        query = Query("variability", (("source_id", "=", id),), descending=True, limit=limit)
        return await self.adapter.fetch_all(query)

    async def list_changing(self, product: int, limit: int) -> list[Document]:
        """How sources change by the table that is a product, the most first, each with its name and place."""
        return await self.adapter.fetch_changing(product, limit)


class MeasurementSetRepository(Rows):
    """Measurement Sets that were converted from sub-bands."""

    table = "recording"
    only: Where = (("state", "=", "converted"),)
    filters: ClassVar[Filters] = {
        "intake": ("intake", _EQUAL),
        "since": ("first_stamp", _FROM),
        "until": ("first_stamp", _BEFORE),
    }

    async def list_subbands(self, id: int, limit: int) -> list[Document]:
        """The files that one was converted from."""
        return await self.related("subband", "group_id", id, limit)


class GainSetRepository(Rows):
    """Gain sets."""

    table = "gain_set"
    filters: ClassVar[Filters] = {
        "telescope": ("telescope", _EQUAL),
        "source": ("source", _EQUAL),
        "state": ("state", _EQUAL),
        "since": ("observed_at", _FROM),
        "until": ("observed_at", _BEFORE),
    }


class QaRepository(Rows):
    """What gates have measured."""

    table = "qa_result"
    identity = "product_id"
    filters: ClassVar[Filters] = {
        "verdict": ("verdict", _EQUAL),
        "gate": ("gate", _EQUAL),
        "kind": ("kind", _EQUAL),
        "product_id": ("product_id", _EQUAL),
        "since": ("measured_at", _FROM),
        "until": ("measured_at", _BEFORE),
    }


class SessionRepository(Rows):
    """Sessions whose files are known and whole."""

    table = "session"
    only: Where = (("state", "=", "sealed"),)
    identity = "session_id"
    filters: ClassVar[Filters] = {
        "session_type": ("session_type", _EQUAL),
        "target": ("target", "like"),
        "since": ("start_time", _FROM),
        "until": ("start_time", _BEFORE),
        "errors": ("error_count", _FROM),
    }


class ArtifactRepository(Rows):
    """Files that the tasks of a family of executors have published."""

    table = "artifact"
    identity = "task_id"
    filters: ClassVar[Filters] = {
        "kind": ("kind", _EQUAL),
        "executor": ("executor", _EQUAL),
        "since": ("published_at", _FROM),
        "until": ("published_at", _BEFORE),
    }

    def __init__(self, adapter: DatabaseAdapter, family: str) -> None:
        super().__init__(adapter)
        self.only: Where = (("executor", "like", f"{family}.%"),)

    async def list_of_task(self, task_id: str, limit: int) -> list[Document]:
        """Those of one task, by path."""
        where: Where = (*self.only, ("task_id", "=", task_id))
        return await self.adapter.fetch_all(Query(self.table, where, limit=limit))


class CountRepository:
    """How many records there are."""

    def __init__(self, adapter: DatabaseAdapter) -> None:
        self._adapter = adapter

    async def count(self, table: str, *by: str) -> list[Document]:
        """``count`` of a table for each value of columns."""
        assert table in TABLES
        return await self._adapter.count(table, by)


MOST_RELATED = 10_000
"""How many rows are told at once of what belongs to something."""
