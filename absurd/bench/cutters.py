"""Contestants of the benchmark of cut-outs: each cuts positions out of the same files, one after another.

All but astrocut, which has no such way, keep their files open and get their pixel positions from one call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.bench import coadds
from absurd.tasks.cutout.batch import cut_stream
from absurd.tasks.cutout.images import ImageRef
from absurd.tasks.cutout.parsed import parse
from absurd.tasks.cutout.targets import Targets

Cutter = Callable[[NDArray[np.float64]], Iterator[int]]
"""Cuts all bands and planes at each position, and gives from time to time how many positions are newly done."""
Contestant = Callable[[Path, str, int, int], Any]
"""Opened with folder, kind, side of the images and side of the cut-outs; a context that gives a cutter."""


def contestants() -> dict[str, Contestant]:
    """Those that can be run here, by name."""
    known = {"absurd": _absurd, "fitsio": _fitsio, "astropy": _astropy, "astrocut": _astrocut}
    return {name: cutter for name, cutter in known.items() if name == "absurd" or find_spec(name)}


def references(folder: Path, kind: str) -> list[ImageRef]:
    """The images of one kind, from blue to red."""
    first = 0 if kind == coadds.KINDS[0] else 1
    hdus = {plane: first + i for i, plane in enumerate(coadds.PLANES[kind])}
    return [ImageRef(str(coadds.path_of(folder, kind, band)), band, hdus) for band in coadds.BANDS]


@contextmanager
def _absurd(folder: Path, kind: str, side: int, size: int) -> Iterator[Cutter]:
    images = references(folder, kind)
    for image in images:
        parse(image, coadds.PLANES[kind])

    def cut(positions: NDArray[np.float64]) -> Iterator[int]:
        for batch in cut_stream(Targets.on(positions, images), (size, size), coadds.PLANES[kind]):
            if batch.errors:
                raise next(iter(batch.errors.values()))
            yield len(batch)

    yield cut


@contextmanager
def _fitsio(folder: Path, kind: str, side: int, size: int) -> Iterator[Cutter]:
    fitsio = import_module("fitsio")
    with ExitStack() as stack:
        files = [(stack.enter_context(fitsio.FITS(image.uri)), image) for image in references(folder, kind)]
        yield _one_by_one([file[hdu] for file, image in files for hdu in image.hdus.values()], side, size)


@contextmanager
def _astropy(folder: Path, kind: str, side: int, size: int) -> Iterator[Cutter]:
    from astropy.io import fits

    with ExitStack() as stack:
        files = [(stack.enter_context(fits.open(image.uri)), image) for image in references(folder, kind)]
        yield _one_by_one([file[hdu].section for file, image in files for hdu in image.hdus.values()], side, size)


def _one_by_one(sections: list[Any], side: int, size: int) -> Cutter:
    """Slices of what can be sliced, into boxes that are NaN beyond the image."""

    def cut(positions: NDArray[np.float64]) -> Iterator[int]:
        origins = np.ceil(coadds.wcs_of(side).all_world2pix(positions, 0) - size / 2).astype(int)
        for x, y in origins.tolist():
            rows, columns = slice(max(0, y), min(side, y + size)), slice(max(0, x), min(side, x + size))
            for section in sections:
                part = section[rows, columns]
                if part.shape != (size, size):
                    box = np.full((size, size), np.nan if part.dtype.kind == "f" else 0, part.dtype.newbyteorder("="))
                    box[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x] = part
            yield 1

    return cut


@contextmanager
def _astrocut(folder: Path, kind: str, side: int, size: int) -> Iterator[Cutter]:
    astrocut, coordinates = import_module("astrocut"), import_module("astropy.coordinates")
    paths = [image.uri for image in references(folder, kind)]

    def cut(positions: NDArray[np.float64]) -> Iterator[int]:
        for ra, dec in positions.tolist():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                astrocut.FITSCutout(paths, coordinates.SkyCoord(ra, dec, unit="deg"), size).fits_cutouts  # noqa: B018
            yield 1

    yield cut
