"""What is kept of fetched rows: FITS files, tensors, a manifest and a contact sheet, in one folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from absurd.tasks.cutout.contact_sheet import MOST_SHOWN
from absurd.tasks.cutout.fan_in import TENSORS, merge_products
from absurd.tasks.cutout.fetched import Fetched, State
from absurd.tasks.cutout.normalise import Hook
from absurd.tasks.cutout.part import Kept, PartWriter
from absurd.tasks.cutout.request import Normalisation

ROWS_OF_A_PART = 1_500


def write_products(
    rows: Iterable[Fetched],
    folder: str | os.PathLike[str],
    *,
    fits: bool = True,
    tensors: Normalisation | None = None,
    tensor_file: str = TENSORS,
    preprocessing: Hook | None = None,
    title: str = "Cut-outs",
) -> dict[State, int]:
    """Write what was fetched into a folder, and give how many rows there are in each state.

    ``manifest.parquet`` has a row for each request, in their order (`manifest.SCHEMA`), ``contact_sheet.html`` shows
    them.  With `fits`, each band of what is not failed is a FITS file, named after the row, its id and the band.  With
    `tensors`, a normalisation, all accepted are in `tensor_file`, (n, bands, y, x), after `preprocessing`; one of
    another shape, or with other bands, than the first is rejected.  A name that ends in ``.zarr`` makes a Zarr store.
    Memory: 40 bytes a row, and some hundred cut-outs.

    Raises OSError; what a row lacks is told in its row.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    waiting, thumbnails = iter(rows), MOST_SHOWN
    with TemporaryDirectory(prefix=".parts-", dir=place) as aside:
        parts: list[Path] = []
        while some := next(waiting, None):
            parts.append(Path(aside) / f"{len(parts)}.arrow")
            with PartWriter(parts[-1], place, Kept(fits, tensors, preprocessing), thumbnails=thumbnails) as part:
                part.add(some)
                for row in islice(waiting, ROWS_OF_A_PART - 1):
                    part.add(row)
            thumbnails = part.thumbnails
        return merge_products(parts, place.joinpath, tensors=tensors, tensor_file=tensor_file, title=title)
