"""Rows of a batch as they are kept: FITS files in the folder of the products, all else in one file of the part."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import numpy as np

from absurd.tasks.artifact import left_behind, own_place, remove, sync
from absurd.tasks.cutout.contact_sheet import thumbnail
from absurd.tasks.cutout.errors import RippleError
from absurd.tasks.cutout.fetched import Fetched
from absurd.tasks.cutout.file_names import plain, plain_bands
from absurd.tasks.cutout.fits_form import FitsWriter
from absurd.tasks.cutout.manifest import PartFile
from absurd.tasks.cutout.normalise import Hook, normalise
from absurd.tasks.cutout.request import IMAGE, Normalisation
from absurd.tasks.cutout.resume import may_improve, version_cut
from absurd.tasks.cutout.sources.folder import version_of

ROWS_AT_ONCE = 256
"""Rows that wait to be written."""
BYTES_AT_ONCE = 32 << 20
"""Or bytes of tensors."""
LONGEST_ID = 50
"""Characters of an id in the name of a file."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a cut-out, beside its row."""

    fits: bool = True
    """Each band as a FITS file, named after the row, its id and the band."""
    tensors: Normalisation | None = None
    """The pixels for learning, after `preprocessing`."""
    preprocessing: Hook | None = None


class PartWriter:
    """Writes rows, in any order, for `merge_products`.

    The part's own file appears last, after all FITS files: where it is, they are.
    """

    def __init__(
        self, path: Path, folder: Path, kept: Kept, *, thumbnails: int = 0, task_id: UUID | None = None
    ) -> None:
        self.thumbnails = thumbnails
        """How many pictures may still be made."""
        self._folder = folder
        self._kept = kept
        self._path = path
        self._fits = FitsWriter(task_id)
        self._own = own_place(path, "fits", is_folder=True)
        self._aside = path
        """The folder for FITS files that are not in their place yet."""
        self._file = PartFile(path)
        self._waiting: list[dict[str, Any]] = []
        self._bytes = 0

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for left in left_behind(self._path, "fits"):
            remove(left)
        self._aside = self._own.__enter__()
        self._file.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write()
                self._put_in_place()
        except BaseException as failed:
            self._file.__exit__(type(failed), failed, failed.__traceback__)
            raise
        else:
            self._file.__exit__(kind, error, traceback)
        finally:
            remove(self._aside)
            self._own.__exit__(None, None, None)

    def add(self, row: Fetched, *, n_planned: int = 0) -> None:
        """Keep what became of a request; `n_planned` as `may_improve`.  Raises OSError."""
        told: dict[str, Any] = {}
        if row.error is None:
            try:
                told = self._products(row)
            except RippleError as error:  # what it lacks is told in its row
                row = replace(row, state="failed", reason=error.message, error=error)
        self._add(_told(row) | {"may_improve": may_improve(row, n_planned=n_planned)} | told)

    def refuse(self, told: Mapping[str, Any], code: str, reason: str) -> None:
        """Keep that a request failed: `told` holds its row, and id, ra and dec if there are any."""
        nothing = {"state": "failed", "bands": [], "left_out": [], "sources": []}
        self._add(nothing | dict(told) | {"code": code, "reason": reason})

    def _add(self, told: dict[str, Any]) -> None:
        self._waiting.append(told)
        self._bytes += told["pixels"].nbytes if "pixels" in told else 0
        if len(self._waiting) >= ROWS_AT_ONCE or self._bytes >= BYTES_AT_ONCE:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            self._file.write(self._waiting)
            self._waiting, self._bytes = [], 0

    def _products(self, row: Fetched) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if self._kept.tensors is not None and row.state == "accepted":
            pixels = row.pixels.astype(np.float32)
            valid = np.isfinite(pixels)
            if self._kept.preprocessing is not None:
                pixels = self._kept.preprocessing(pixels, valid)
            told["pixels"] = normalise(pixels, valid, self._kept.tensors).reshape(-1)
            told["valid"] = valid.reshape(-1).astype(np.uint8)
        if self._kept.fits:
            told["files"] = self._write_bands(row)
            told["path"] = told["files"][0]["name"]
        if self.thumbnails > 0 and IMAGE in row.planes:
            told["thumbnail"] = _thumbnail(row)
            self.thumbnails -= 1
        return told

    def _write_bands(self, row: Fetched) -> list[dict[str, str]]:
        """The file of each band, with the version that it also has when it is in its place."""
        names = fits_names(row.row, row.request.id, row.bands)
        try:
            for band, each in zip(row.bands, names, strict=True):
                self._fits.write(row.bare(band), self._aside / each)
        except RippleError:
            for each in names:
                remove(self._aside / each)
            raise
        return [{"name": each, "version": version_of(self._aside / each)} for each in names]

    def _put_in_place(self) -> None:
        names = os.listdir(self._aside)
        for name in names:  # all at last: while one is waited for the system has begun with the others
            sync(self._aside / name)
        for name in names:
            (self._aside / name).replace(self._folder / name)
        if names:
            sync(self._folder)


def fits_names(row: int, name: str | None, bands: Sequence[str | None]) -> list[str]:
    """The file of each band, in the folder of the products: no two rows have the same."""
    base = f"{row:06d}" + (f"_{plain(name[:LONGEST_ID])}" if name else "")
    return [f"{base}_{each}.fits" for each in plain_bands(bands)]


def _thumbnail(row: Fetched) -> bytes:
    assert row.batch is not None
    files = [row.batch.files[row.place][column] for column in row.columns]
    bands = [band or (file.band if file else None) for band, file in zip(row.bands, files, strict=True)]
    return thumbnail(row.pixels, bands, [file.unit if file else None for file in files])


def _told(row: Fetched) -> dict[str, Any]:
    """The row of the manifest."""
    told: dict[str, Any] = {
        "row": row.row,
        "id": row.request.id,
        "ra": row.request.ra,
        "dec": row.request.dec,
        "state": row.state,
        "code": None if row.error is None else row.error.code,
        "reason": row.reason or None,
        "bands": list(row.bands),
        "left_out": list(row.left_out),
        "sources": [each.uri for each in row.all_images],
        "images": [{"name": each.uri, "version": version_cut(each)} for each in row.all_images],
        "note": row.note or None,
    }
    if row.error is None and row.batch is not None:
        box, (x, y) = row.box(), row.batch.pixel_positions[row.place, row.columns[0]]
        told |= {"x": float(x), "y": float(y), "origin_x": box.origin[0], "origin_y": box.origin[1]}
        told |= {"ny": box.shape[0], "nx": box.shape[1], "tract": row.images[0].tract, "patch": row.images[0].patch}
    if row.quality is not None:
        quality = row.quality
        told |= {"outside": quality.outside, "not_finite": quality.not_finite, "masked": quality.masked}
    return told
