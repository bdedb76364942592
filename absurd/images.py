"""Indexes of images: which files hold images of which places of the sky, as scans of the files have told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from absurd.call import Call, Row, one_value
from absurd.encoding import decode, encode
from absurd.errors import InvalidOptionError
from absurd.queue import moment_text

T = TypeVar("T")
Document = dict[str, Any]
Position = Sequence[float]
"""Right ascension and declination, degrees, ICRS."""


def put_images(index: str, files: Sequence[Document]) -> Call[int]:
    """Put files into an index, which is made if there is none, in place of what it had of them; all or none.

    A file is {uri, version, error, images}; an image {hdu, bounds, band, band_told, hdus, wcs, shape, footprint,
    observed_at, tract, patch}.  Gives how many images that are.  Raises InvalidNameError, InvalidOptionError.
    """
    return Call(
        "select {schema}.put_images($1::text, $2::text::jsonb) as images",
        (index, encode(files, "files", limit=None, error=InvalidOptionError)),
        one_value("images"),
    )


def forget_images(index: str, uris: Iterable[str]) -> Call[int]:
    """Take files out of an index; gives how many it had.  Raises ImageIndexNotFoundError."""
    return Call("select {schema}.forget_images($1::text, $2::text[]) as files", (index, list(uris)), one_value("files"))


def remove_image_index(index: str) -> Call[bool]:
    """Remove an index, not the files; false if there is none of that name."""
    return Call("select {schema}.remove_image_index($1::text) as removed", (index,), one_value("removed"))


def list_image_indexes() -> Call[list[Document]]:
    """All indexes: name, files, images, unusable, bands, created_at, scanned_at."""
    return Call("select to_jsonb(r)::text as document from {schema}.list_image_indexes() r", (), _documents)


def get_image_files(index: str, uris: Iterable[str]) -> Call[list[Document]]:
    """What an index has of these files: uri, version, error.  Raises ImageIndexNotFoundError."""
    sql = "select to_jsonb(r)::text as document from {schema}.get_image_files($1::text, $2::text[]) r"
    return Call(sql, (index, list(uris)), _documents)


def list_image_files(index: str, folder: str, *, after: str | None = None, limit: int = 1000) -> Call[list[Document]]:
    """Files of an index below a folder, by uri from `after` on: uri, version, error.

    Raises ImageIndexNotFoundError.
    """
    return Call(
        "select to_jsonb(r)::text as document"
        " from {schema}.list_image_files($1::text, $2::text, $3::text, $4::integer) r",
        (index, folder, after, limit),
        _documents,
    )


def find_images(
    index: str,
    positions: Iterable[Position],
    bands: Iterable[str] = (),
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Call[list[Document]]:
    """The images whose bounds hold any of the positions (ra, dec in degrees, ICRS), with all that the index knows.

    `positions` of each are the numbers, from 0, of those that its bounds hold; whether they are on its pixels, its WCS
    tells.  Only those of `bands`, in capitals or not, and with an exposure that began from `since` on and before
    `until`.  Raises ImageIndexNotFoundError, InvalidOptionError.
    """
    at = [(float(ra), float(dec)) for ra, dec in positions]

    def found(rows: Sequence[Row]) -> list[Document]:
        documents = _documents(rows)
        for each in documents:
            each["positions"] = [number - 1 for number in each["positions"]]
        return documents

    return Call(
        "select to_jsonb(r)::text as document from {schema}.find_images($1::text, $2::float8[], $3::float8[],"
        " $4::text[], $5::text::timestamptz, $6::text::timestamptz) r",
        (
            *(index, [ra for ra, _ in at], [dec for _, dec in at], list(bands) or None),
            *(moment_text(since, "since"), moment_text(until, "until")),
        ),
        found,
    )


class ImageMethods(ABC):
    """The part of `AbsurdClient` for indexes of images."""

    @abstractmethod
    async def run(self, call: Call[T]) -> T:
        """Make a call."""

    async def find_images(
        self,
        index: str,
        positions: Iterable[Position],
        bands: Iterable[str] = (),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Document]:
        """The images whose bounds hold any of the positions, see `images.find_images`; `IndexSource` cuts them."""
        return await self.run(find_images(index, positions, bands, since=since, until=until))

    async def list_image_indexes(self) -> list[Document]:
        """All indexes of images: name, files, images, unusable, bands, created_at, scanned_at."""
        return await self.run(list_image_indexes())

    async def remove_image_index(self, index: str) -> bool:
        """Remove an index of images, not the files; false if there is none of that name."""
        return await self.run(remove_image_index(index))

    async def put_images(self, index: str, files: Sequence[Document]) -> int:
        """Put files into an index of images in place of what it had of them, see `images.put_images`."""
        return await self.run(put_images(index, files))

    async def forget_images(self, index: str, uris: Iterable[str]) -> int:
        """Take files out of an index of images; gives how many it had.  Raises ImageIndexNotFoundError."""
        return await self.run(forget_images(index, uris))

    async def get_image_files(self, index: str, uris: Iterable[str]) -> list[Document]:
        """What an index of images has of these files: uri, version, error.  Raises ImageIndexNotFoundError."""
        return await self.run(get_image_files(index, uris))

    async def list_image_files(
        self, index: str, folder: str, *, after: str | None = None, limit: int = 1000
    ) -> list[Document]:
        """Files of an index of images below a folder, by uri from `after` on.  Raises ImageIndexNotFoundError."""
        return await self.run(list_image_files(index, folder, after=after, limit=limit))


class SyncImageMethods(ABC):
    """The part of `SyncAbsurdClient` for indexes of images: each method does what the one of `ImageMethods` does."""

    @abstractmethod
    def run(self, call: Call[T]) -> T:
        """Make a call."""

    def find_images(
        self,
        index: str,
        positions: Iterable[Position],
        bands: Iterable[str] = (),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Document]:
        """The images whose bounds hold any of the positions, see `images.find_images`; `IndexSource` cuts them."""
        return self.run(find_images(index, positions, bands, since=since, until=until))

    def list_image_indexes(self) -> list[Document]:
        """All indexes of images: name, files, images, unusable, bands, created_at, scanned_at."""
        return self.run(list_image_indexes())

    def remove_image_index(self, index: str) -> bool:
        """Remove an index of images, not the files; false if there is none of that name."""
        return self.run(remove_image_index(index))

    def put_images(self, index: str, files: Sequence[Document]) -> int:
        """Put files into an index of images in place of what it had of them, see `images.put_images`."""
        return self.run(put_images(index, files))

    def forget_images(self, index: str, uris: Iterable[str]) -> int:
        """Take files out of an index of images; gives how many it had.  Raises ImageIndexNotFoundError."""
        return self.run(forget_images(index, uris))

    def get_image_files(self, index: str, uris: Iterable[str]) -> list[Document]:
        """What an index of images has of these files: uri, version, error.  Raises ImageIndexNotFoundError."""
        return self.run(get_image_files(index, uris))

    def list_image_files(
        self, index: str, folder: str, *, after: str | None = None, limit: int = 1000
    ) -> list[Document]:
        """Files of an index of images below a folder, by uri from `after` on.  Raises ImageIndexNotFoundError."""
        return self.run(list_image_files(index, folder, after=after, limit=limit))


def _documents(rows: Sequence[Row]) -> list[Document]:
    return [decode(row["document"]) for row in rows]
