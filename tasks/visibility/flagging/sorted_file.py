"""Rows of an array in a file, by places: written in any order, read in stretches."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Sorted:
    """A file of rows that are all of one shape and type."""

    def __init__(self, path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> None:
        self._path, self._kind, self._shape = path, np.dtype(kind), shape
        self._bytes = int(np.prod(shape)) * self._kind.itemsize
        path.touch()

    def write(self, places: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Put rows where they belong: stretches of places that follow one another at once.  Raises OSError."""
        order = np.argsort(places, kind="stable")
        places, rows = places[order], np.ascontiguousarray(rows[order], self._kind)
        starts = np.concatenate(([0], np.flatnonzero(np.diff(places) != 1) + 1, [len(places)]))
        with self._path.open("r+b") as file:
            for first, last in pairwise(starts):
                _write_all(file.fileno(), rows[first:last].data.cast("B"), int(places[first]) * self._bytes)

    def read(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Rows at places that follow one another, in any order."""
        first, last = int(places.min()), int(places.max()) + 1
        size = (last - first) * (self._bytes // self._kind.itemsize)
        rows = np.fromfile(self._path, self._kind, size, offset=first * self._bytes).reshape(-1, *self._shape)
        return rows[places - first]


def _write_all(descriptor: int, what: memoryview, offset: int) -> None:
    """All bytes: a call may write fewer than it was given."""
    while what:
        written = os.pwrite(descriptor, what, offset)
        what, offset = what[written:], offset + written
