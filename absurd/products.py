"""Products of the pipeline: files, and what was measured in them, stored by the completions of their tasks."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar, get_args

from absurd.artifact_path import artifact_path
from absurd.call import Call, Row, one_value
from absurd.encoding import check_size, decode, encode
from absurd.errors import InvalidOptionError, ResultError
from absurd.queue import moment_text

T = TypeVar("T")
Document = dict[str, Any]
FileKind = Literal["image", "mosaic", "table"]
RowKind = Literal["source", "photometry", "variability", "qa", "session"]
ProductState = Literal["candidate", "accepted", "superseded", "quarantined"]
_FILES = get_args(FileKind)
_KINDS = _FILES + get_args(RowKind)
_MOST_BYTES = 48 << 20
"""Of all rows of a run as JSON: they cross from its process to the worker in one line."""


class ProductRows:
    """What a run tells of its products, until its completion writes it."""

    def __init__(self) -> None:
        self.entries: list[Document] = []
        self._bytes = 0

    def add(self, kind: str, row: Mapping[str, Any]) -> None:
        """Keep a row; numbers that are not finite are null.

        Raises InvalidOptionError for another kind, ResultError for a row without a JSON form, PayloadTooLargeError
        for more than 48 MiB in all, and as `artifact_path`.
        """
        if kind not in _KINDS:
            raise InvalidOptionError(f"there are no products of kind {kind!r}: take {', '.join(_KINDS)}", option="kind")
        plain = {name: _finite(value) for name, value in row.items()}
        if kind in _FILES:
            plain["path"] = artifact_path(plain["path"])
        text = encode(plain, f"product {kind}", error=ResultError)
        self._bytes += len(text)
        if self._bytes > _MOST_BYTES:
            check_size(text.ljust(self._bytes), "products of the run", _MOST_BYTES)
        self.entries.append({"kind": kind, "row": json.loads(text)})


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def get_product(number: int) -> Call[Document | None]:
    """A product in whatever state, with image, inputs, qa and used_in; None if there is none of that number."""
    return Call(
        "select r::text as document from {schema}.get_product($1::bigint) r where r is not null", (number,), _document
    )


def find_product(path: str) -> Call[Document | None]:
    """The product that has a path now, or else the one that had it last; None if no product ever had."""
    return Call(
        "select r::text as document from {schema}.find_product($1::text) r where r is not null", (path,), _document
    )


def list_products(
    kind: FileKind | None = None,
    *,
    state: ProductState | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 100,
) -> Call[list[Document]]:
    """Products of a kind, or of any, with their images, the latest observation first: from `since`, before `until`."""
    return Call(
        "select r::text as document from {schema}.list_products("
        "$1::text, $2::text, $3::text::timestamptz, $4::text::timestamptz, $5::integer) r",
        (kind, state, moment_text(since, "since"), moment_text(until, "until"), limit),
        _documents,
    )


def accept_product(number: int, *, again: bool = False) -> Call[str]:
    """Accept a product whatever its gates say; a quarantined one only `again`.  Gives its state.

    Raises ProductNotFoundError, ProductStateError.
    """
    return Call("select {schema}.accept_product($1::bigint, $2::boolean) as state", (number, again), one_value("state"))


def quarantine_product(number: int, reason: str, measures: Sequence[Mapping[str, Any]] = ()) -> Call[bool]:
    """Have a product not be used, for a reason; False if it is quarantined already.  Raises ProductNotFoundError.

    `measures` are what gates have measured: {gate, of, value, unit, verdict, limits, note}.
    """
    return Call(
        "select {schema}.quarantine_product($1::bigint, $2::text, $3::text::jsonb) as done",
        (number, reason, encode([dict(each) for each in measures], "measures", limit=None, error=InvalidOptionError)),
        one_value("done"),
    )


def find_sources(ra: float, declination: float, radius_arcsec: float, *, limit: int = 100) -> Call[list[Document]]:
    """Sources around a position (degrees, ICRS), the nearest first, each with its distance in arcsec."""
    return Call(
        "select r::text as document from {schema}.find_sources($1::float8, $2::float8, $3::float8, $4::integer) r",
        (float(ra), float(declination), float(radius_arcsec), limit),
        _documents,
    )


def get_light_curve(source: int) -> Call[list[Document]]:
    """What a source was in each image it was measured in, by time, whether it was seen or not; and where it is."""
    return Call("select r::text as document from {schema}.get_light_curve($1::bigint) r", (source,), _documents)


def list_variability(product: int, *, kind: str | None = None, limit: int = 1000) -> Call[list[Document]]:
    """How much sources change by the table that tells it, the most first."""
    return Call(
        "select r::text as document from {schema}.list_variability($1::bigint, $2::text, $3::integer) r",
        (product, kind, limit),
        _documents,
    )


class ProductMethods(ABC):
    """The part of `AbsurdClient` for products."""

    @abstractmethod
    async def run(self, call: Call[T]) -> T:
        """Make a call."""

    async def get_product(self, number: int) -> Document | None:
        """A product in whatever state, with all that is known of it; None if there is none of that number."""
        return await self.run(get_product(number))

    async def find_product(self, path: str) -> Document | None:
        """The product that has a path now, or else the one that had it last; None if no product ever had."""
        return await self.run(find_product(path))

    async def list_products(
        self,
        kind: FileKind | None = None,
        *,
        state: ProductState | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[Document]:
        """Products of a kind, or of any, in any state, or in one, the latest observation first."""
        return await self.run(list_products(kind, state=state, since=since, until=until, limit=limit))

    async def accept_product(self, number: int, *, again: bool = False) -> str:
        """Accept a product whatever its gates say, see `products.accept_product`; gives its state."""
        return await self.run(accept_product(number, again=again))

    async def quarantine_product(self, number: int, reason: str, measures: Sequence[Mapping[str, Any]] = ()) -> bool:
        """Have a product not be used; False if it is quarantined already.  Raises ProductNotFoundError."""
        return await self.run(quarantine_product(number, reason, measures))

    async def find_sources(
        self, ra: float, declination: float, radius_arcsec: float, *, limit: int = 100
    ) -> list[Document]:
        """Sources around a position (degrees, ICRS), the nearest first."""
        return await self.run(find_sources(ra, declination, radius_arcsec, limit=limit))

    async def get_light_curve(self, source: int) -> list[Document]:
        """What a source was in each image it was measured in, by time, whether it was seen or not; and where it is."""
        return await self.run(get_light_curve(source))

    async def list_variability(self, product: int, *, kind: str | None = None, limit: int = 1000) -> list[Document]:
        """How much sources change by the table that tells it, the most first."""
        return await self.run(list_variability(product, kind=kind, limit=limit))


class SyncProductMethods(ABC):
    """The part of `SyncAbsurdClient` for products: each method does what the one of `ProductMethods` does."""

    @abstractmethod
    def run(self, call: Call[T]) -> T:
        """Make a call."""

    def get_product(self, number: int) -> Document | None:
        """A product in whatever state, with all that is known of it; None if there is none of that number."""
        return self.run(get_product(number))

    def find_product(self, path: str) -> Document | None:
        """The product that has a path now, or else the one that had it last; None if no product ever had."""
        return self.run(find_product(path))

    def list_products(
        self,
        kind: FileKind | None = None,
        *,
        state: ProductState | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[Document]:
        """Products of a kind, or of any, in any state, or in one, the latest observation first."""
        return self.run(list_products(kind, state=state, since=since, until=until, limit=limit))

    def accept_product(self, number: int, *, again: bool = False) -> str:
        """Accept a product whatever its gates say, see `products.accept_product`; gives its state."""
        return self.run(accept_product(number, again=again))

    def quarantine_product(self, number: int, reason: str, measures: Sequence[Mapping[str, Any]] = ()) -> bool:
        """Have a product not be used; False if it is quarantined already.  Raises ProductNotFoundError."""
        return self.run(quarantine_product(number, reason, measures))

    def find_sources(self, ra: float, declination: float, radius_arcsec: float, *, limit: int = 100) -> list[Document]:
        """Sources around a position (degrees, ICRS), the nearest first."""
        return self.run(find_sources(ra, declination, radius_arcsec, limit=limit))

    def get_light_curve(self, source: int) -> list[Document]:
        """What a source was in each image it was measured in, by time, whether it was seen or not; and where it is."""
        return self.run(get_light_curve(source))

    def list_variability(self, product: int, *, kind: str | None = None, limit: int = 1000) -> list[Document]:
        """How much sources change by the table that tells it, the most first."""
        return self.run(list_variability(product, kind=kind, limit=limit))


def _document(rows: Sequence[Row]) -> Document | None:
    return _documents(rows)[0] if rows else None


def _documents(rows: Sequence[Row]) -> list[Document]:
    return [decode(row["document"]) for row in rows]
