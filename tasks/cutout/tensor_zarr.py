"""Tensors as a Zarr store, format 3: what a training loop reads in any order, chunk by chunk.

Arrays of the group: ``pixels`` float32 (n, bands, y, x), ``mask`` bool of the same shape (true where a pixel has no
value), ``row`` int64 (n,) numbers of the requests from 0, ``id`` uint8 (n, bytes) their ids in UTF-8, with zeros
behind them: Zarr has no form for texts that is settled.  Attributes: ``bands``, ``normalisation``, ``axes``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.artifact import remove
from absurd.tasks.cutout.errors import ButlerConfigError
from absurd.tasks.cutout.tensor_layout import AXES, Append, Layout
from absurd.tasks.folder import fill_aside

CHUNK_BYTES = 4 << 20
"""Of pixels: a chunk is what is read at once, and what is in memory until it is whole."""
ROWS_OF_A_CHUNK = 1024
BYTES_OF_A_CHUNK = 32
"""Of ids; longer ones are in several."""
_MEMBERS = frozenset(["zarr.json", "pixels", "mask", "row", "id"])


@contextmanager
def zarr_store(path: Path, layout: Layout, *, private: bool) -> Iterator[Append]:
    """A store that appears under its name when it is whole; a `private` path, which is new, is filled as it is.

    An older store goes.  Raises ButlerConfigError where the folder holds anything else, and without zarr; OSError.
    """
    with _filled(path) if private else fill_aside(path, check_older=_check_older) as folder:
        store = _Store(folder, layout)
        yield store.append
        store.flush()


def _check_older(folder: Path) -> None:
    if strange := sorted({*os.listdir(folder)} - _MEMBERS):
        raise ButlerConfigError(f"{folder} holds {strange[0]}, which is of no tensors", advice="choose another name")


def read_zarr(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Row numbers, pixels and where they are valid."""
    group = _zarr().open_group(path, mode="r")
    return group["row"][:], group["pixels"][:], ~group["mask"][:]


class _Store:
    """Arrays that grow by whole chunks: each is written once."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._group = _zarr().open_group(folder, mode="w", zarr_format=3)
        self._group.attrs.update(
            {"bands": list(layout.bands), "normalisation": layout.normalisation, "axes": ["row", *AXES]}
        )
        self._several = max(1, min(ROWS_OF_A_CHUNK, CHUNK_BYTES // (4 * math.prod(layout.shape))))
        self._make("pixels", "float32", layout.shape, AXES)
        self._make("mask", "bool", layout.shape, AXES)
        self._make("row", "int64", (), [])
        self._make("id", "uint8", (BYTES_OF_A_CHUNK,), ["byte"])
        self._waiting: list[tuple[Any, ...]] = []

    def append(
        self, rows: NDArray[np.int64], ids: Sequence[str | None], pixels: NDArray[np.float32], masked: NDArray[np.bool_]
    ) -> None:
        self._waiting += zip(rows.tolist(), ids, pixels, masked, strict=True)
        while len(self._waiting) >= self._several:
            self.flush()

    def flush(self) -> None:
        """Write a chunk of what waits, or less at the end."""
        some, self._waiting = self._waiting[: self._several], self._waiting[self._several :]
        if not some:
            return
        rows, ids, pixels, masked = zip(*some, strict=True)
        self._grow("row", np.array(rows, np.int64))
        self._grow("id", np.array([(each or "").encode() for each in ids], dtype=bytes))
        self._grow("pixels", np.stack(pixels))
        self._grow("mask", np.stack(masked))

    def _grow(self, name: str, values: NDArray[Any]) -> None:
        array: Any = self._group[name]
        first, *rest = array.shape
        if name == "id":
            values = values.view(np.uint8).reshape(len(values), -1)
            rest = [max(rest[0], values.shape[1])]
        array.resize((first + len(values), *rest))
        array[(slice(first, None), *(slice(0, each) for each in values.shape[1:]))] = values

    def _make(self, name: str, kind: str, shape: tuple[int, ...], axes: list[str]) -> None:
        self._group.create_array(
            name,
            shape=(0, *shape),
            chunks=(self._several, *shape),
            dtype=kind,
            dimension_names=["row", *axes],
            fill_value=0,
        )


@contextmanager
def _filled(path: Path) -> Iterator[Path]:
    path.mkdir(parents=True)
    try:
        yield path
    except BaseException:
        remove(path)
        raise


def _zarr() -> Any:
    try:
        import zarr
    except ModuleNotFoundError as error:
        if error.name != "zarr":
            raise
        raise ButlerConfigError("zarr is not installed", advice="pip install 'absurd[zarr]'") from None
    return zarr
