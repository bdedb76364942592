"""What services need of the data, whatever gives it."""

from __future__ import annotations

from typing import Any, Protocol

from absurd.product_rows import Document


class RepositoryProtocol(Protocol):
    """Records of a kind."""

    async def get_by_id(self, id: Any) -> Document | None:
        """The record of that number or name; None if there is none."""

    async def list_all(self, limit: int, after: str | None = None, **filters: Any) -> tuple[list[Document], str | None]:
        """Records, latest first, and where the next page begins, None at the end; a filter that is None is none.

        Raises InvalidInputError for an `after` that no page has given.
        """


class ImageRepositoryProtocol(RepositoryProtocol, Protocol):
    """Files of products: images and mosaics."""

    async def list_products(self, ids: list[int]) -> list[Document]:
        """Products of any kind, by their numbers."""

    async def list_inputs(self, ids: list[int], limit: int) -> list[Document]:
        """What products were made of."""

    async def list_uses(self, ids: list[int], limit: int) -> list[Document]:
        """As `list_inputs`, of those that were made of products."""

    async def list_measures(self, id: int) -> list[Document]:
        """What gates have measured of a product."""


class ProductRepositoryProtocol(ImageRepositoryProtocol, Protocol):
    """Products of any kind."""

    async def list_latest(self, kind: str | None, state: str | None, limit: int) -> list[Document]:
        """Those of the latest observations, with their ``image``."""

    async def list_of_tasks(self, task_ids: list[str]) -> list[Document]:
        """What tasks have made."""


class SourceRepositoryProtocol(RepositoryProtocol, Protocol):
    """Sources of the sky."""

    async def list_around(self, ra: float, declination: float, radius_arcsec: float, limit: int) -> list[Document]:
        """Those around a position (degrees, ICRS), the nearest first."""

    async def list_light_curve(
        self, id: int, limit: int, after: str | None = None, **filters: Any
    ) -> tuple[list[Document], str | None]:
        """What a source was in each image, by time, and where the next page begins."""

    async def list_variability(self, id: int, limit: int) -> list[Document]:
        """How much a source changes, by each table that tells it, the latest first."""

    async def list_changing(self, product: int, limit: int) -> list[Document]:
        """How sources change by the table that is a product, the most first, each with its name and place."""


class MeasurementSetRepositoryProtocol(RepositoryProtocol, Protocol):
    """Measurement Sets that were converted from sub-bands."""

    async def list_subbands(self, id: int, limit: int) -> list[Document]:
        """The files that one was converted from."""


class ArtifactRepositoryProtocol(RepositoryProtocol, Protocol):
    """Files that the tasks of some executors have published."""

    async def list_of_task(self, task_id: str, limit: int) -> list[Document]:
        """Those of one task, by path."""


class CountRepositoryProtocol(Protocol):
    """How many records there are."""

    async def count(self, table: str, *by: str) -> list[Document]:
        """``count`` of a table for each value of columns."""
