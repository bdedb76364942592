"""Images as sources tell of them: where their planes lie, before any pixel is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray


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
    """Where images come from: a file, a folder, an index, a repository."""

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
