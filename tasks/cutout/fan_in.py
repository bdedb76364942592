"""From the parts of a batch to its products: manifest, tensors and contact sheet, in the order of the requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from absurd.tasks.cutout import manifest as manifests
from absurd.tasks.cutout.contact_sheet import write_contact_sheet
from absurd.tasks.cutout.fetched import State
from absurd.tasks.cutout.request import Normalisation
from absurd.tasks.cutout.tensor import TensorFile

MANIFEST, TENSORS, SHEET = "manifest.parquet", "tensors.parquet", "contact_sheet.html"
ROWS_AT_ONCE = 256
BYTES_AT_ONCE = 32 << 20
_LAYOUT = ("state", "bands", "ny", "nx")

At = Callable[[str], str | Path]
"""Where a product is to be written, by its name; asked of what is written only."""


def merge_products(
    parts: Sequence[Path],
    at: At,
    *,
    tensors: Normalisation | None = None,
    tensor_file: str = TENSORS,
    title: str = "Cut-outs",
    private: bool = False,
) -> dict[State, int]:
    """Write `MANIFEST`, with a row for each request in their order, `tensor_file` if there are any, and `SHEET`.

    Tensors have the bands and the shape of the first that is accepted; others are rejected.  `private` paths are
    written as they are, see `write_aside`.  Memory: 40 bytes a row, and a few hundred rows with their tensors.  Gives
    how many rows there are in each state.  Raises OSError.
    """
    rows = manifests.Parts(parts)
    settled = None
    if tensors is not None:
        settled = _Settled.of(rows, tensor_file)
        if settled.layout is not None:
            _write_tensors(rows, settled, at(tensor_file), tensors, private=private)
    manifest = at(MANIFEST)
    counts = manifests.merge(rows, manifest, settle=settled, private=private)
    write_contact_sheet(at(SHEET), title, counts, manifests.read(manifest), rows.thumbnails(), private=private)
    return counts


@dataclass(frozen=True, slots=True)
class _Layout:
    """Bands and shape of a tensor."""

    bands: tuple[str | None, ...]
    ny: int
    nx: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> _Layout:
        return cls(tuple(row["bands"]), row["ny"], row["nx"])

    def __str__(self) -> str:
        return " ".join([str(self.shape), *filter(None, self.bands)])

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.bands), self.ny, self.nx


@dataclass(frozen=True, slots=True, eq=False)
class _Settled:
    """What becomes of the tensor of each row, by its place in the order."""

    layout: _Layout | None
    """That of all tensors; None: there are none."""
    places: NDArray[np.int64]
    """Where it is in the file; -1: nowhere."""
    file: str
    """The name of that file."""
    odd: NDArray[np.bool_]
    """Whether it is accepted and has another layout."""

    @classmethod
    def of(cls, rows: manifests.Parts, file: str) -> _Settled:
        """Decided by bands and shapes alone, before any tensor is read."""
        layout = None
        good, odd = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        for first in range(0, len(rows), manifests.MERGED_ROWS):
            chunk = rows.take(np.arange(first, min(first + manifests.MERGED_ROWS, len(rows))), _LAYOUT)
            for place, row in enumerate(chunk.to_pylist(), first):
                if row["state"] == "accepted":
                    own = _Layout.of(row)
                    layout = layout or own
                    (good if own == layout else odd)[place] = True
        return cls(layout, np.where(good, np.cumsum(good) - 1, -1), file, odd)

    def __call__(self, chunk: Any, first: int) -> Any:
        """Rows of the manifest, the first of which is at that place, with their tensors told."""
        places, odd = (array[first : first + len(chunk)] for array in (self.places, self.odd))
        there = pa.array(places >= 0)
        reasons = chunk["reason"].to_pylist()
        for place in np.flatnonzero(odd).tolist():
            assert self.layout is not None
            own = _Layout.of(chunk.slice(place, 1).to_pylist()[0])
            reasons[place] = f"it has the shape and bands {own}, others have {self.layout}"
        told = {
            "tensor": pa.array(places, mask=places < 0),
            "path": pc.if_else(there, self.file, chunk["path"]),
            "state": pc.if_else(pa.array(odd), "rejected", chunk["state"]),
            "reason": pa.array(reasons, pa.string()),
        }
        for name, column in told.items():
            number = manifests.SCHEMA.get_field_index(name)
            chunk = chunk.set_column(number, manifests.SCHEMA.field(name), column)
        return chunk


def _write_tensors(
    rows: manifests.Parts, settled: _Settled, path: str | Path, how: Normalisation, *, private: bool
) -> None:
    layout = settled.layout
    assert layout is not None
    several = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // (5 * math.prod(layout.shape))))
    good = np.flatnonzero(settled.places >= 0)
    with TensorFile(
        path, layout.shape, bands=[each or "" for each in layout.bands], normalisation=how, private=private
    ) as file:
        for first in range(0, len(good), several):
            some = rows.take(good[first : first + several], ("row", "id", "pixels", "valid"))
            pixels, valid = (some[name].combine_chunks().values.to_numpy() for name in ("pixels", "valid"))
            shape = (len(some), *layout.shape)
            ids = some["id"].to_pylist()
            file.add(some["row"].to_numpy(), ids, pixels.reshape(shape), valid.reshape(shape).astype(bool))
