"""Images as sources tell of them: where their planes lie, before any pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.errors import ButlerConnectionError, RippleError


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image of one band; equal references are the same pixels."""

    uri: str
    """Path of a local file, or an address that fsspec can read ranges of."""
    band: str | None
    hdus: Mapping[str, int] = field(hash=False)
    """The HDU of each plane, by plane, from 0."""
    tract: int | None = None
    patch: int | None = None
    """Where it lies on a sky map, if it does: images of one tract share its pixel grid."""
    version: str = ""
    """Changes when the file does, as size and time of its last change: what caches keep is of one version."""


def local_path(uri: str) -> Path:
    """The path of a local file, given as such or as ``file://``."""
    return Path(unquote(urlsplit(uri).path)) if uri.startswith("file://") else Path(uri)


class Source(Protocol):
    """Where images come from: a file, a folder, an index, a repository.

    One that goes on without files that it cannot read names these in `unread`; see `unread_of`.  One that has a
    `test_connection` tells by it, in one short look, whether it answers: False, or what it raises, if it does not.
    """

    name: str

    def find(self, positions: NDArray[np.float64], bands: Sequence[str] = ()) -> list[list[ImageRef]]:
        """For each of (n, 2) positions (ra, dec in degrees, ICRS) the images that contain it, best first in each band.

        Bands in the order of `bands`, else from blue to red; a position that no image contains has an empty list.
        Raises ButlerConnectionError, CollectionError, SourceNotFoundError: the source itself, not one position.
        """
        ...

    def close(self) -> None:
        """Give back what is open; a closed source opens again when it is asked."""
        ...


Unread = Mapping[str, RippleError]
"""Files that may hold images and could not be read, or did not answer, by name, and why."""


def unread_of(source: object) -> Unread:
    """What a source had to pass over when it looked last: nobody knows which positions, and which bands, that has."""
    found: Unread = getattr(source, "unread", {})
    return found


def may_pass(error: RippleError) -> bool:
    """Whether a file that could not be read may be readable later as it is: a disk, a right, a server was in the way.

    A file that is damaged, or not there, is another file then.
    """
    return isinstance(error, ButlerConnectionError) or is_of_the_disk(error)


def is_of_the_disk(error: BaseException | None) -> bool:
    """Whether the system did not let a file be read, as for want of a right or of a disk in order."""
    cause = error.__cause__ if error is not None else None
    return isinstance(cause, OSError) and cause.errno is not None  # astropy's own have none


def told_of(unread: Unread) -> str:
    """What is said where images may be missing because of files that could not be read."""
    first, *others = unread.values()
    more = f", nor can {len(others)} more file{'s' * (len(others) > 1)}" if others else ""
    return f"there may be more: {first.message}{more}"


def or_unread(error: RippleError, unread: Unread) -> RippleError:
    """The error of a position without an image, or without one in a band.

    Where files could not be read it is of their kind, and tells of them: nobody knows whether one has it.
    """
    if not unread:
        return error
    made = type(next(iter(unread.values())))(f"{error.message}; {told_of(unread)}", **error.details)
    made.__cause__ = error
    return made
