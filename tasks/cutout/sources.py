"""Which files a cut-out is taken from: the one that is named, or those of a folder that cover the position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from absurd.tasks.cutout.errors import (
    BandNotFoundError,
    ImageUnreadableError,
    NotOnSkyError,
    PositionOutsideError,
    SourceNotFoundError,
)
from absurd.tasks.cutout.fits_image import by_wavelength, open_image
from absurd.tasks.cutout.geometry import check_position

SUFFIXES = (".fits", ".fit", ".fts")
PACKED = (".fz", ".gz", ".bz2", ".xz", ".Z")
"""What may follow a suffix: compressed tiles, or a compressed file."""

NOT_AN_IMAGE = frozenset({"wtmap", "dqmask", "expmap"})
"""PRODTYPE of files that belong to an image: weights, data quality, exposure."""


@dataclass(frozen=True, slots=True)
class Found:
    """An image that covers the position."""

    path: Path
    band: str | None
    depth: float
    """Pixels from the position to the nearest edge."""


def find_images(source: Path, ra: float, dec: float, bands: Sequence[str] = ()) -> list[Found]:
    """One image for each band, those in `bands` in that order, else all there are, from blue to red.

    A file is taken as it is.  Of a folder, and the folders in it, the FITS files whose image contains the position
    (degrees, ICRS) are taken, the deepest inside for each band; files without a sky image, and those that PRODTYPE
    declares weights or masks, are passed over.  Bands that differ in capitals only are different unless only one
    exists.

    Raises
    ------
    InvalidPositionError, SourceNotFoundError
    ImageUnreadableError, NotOnSkyError
        The file cannot be used, or every file of the folder is such.
    PositionOutsideError
        No image of the folder contains the position.
    BandNotFoundError
        A wanted band is not among those that do.
    """
    check_position(ra, dec)
    if source.is_dir():
        found = _search(source, ra, dec, bands)
    else:
        with open_image(source, ra=ra, dec=dec) as image:
            found = [Found(source, image.band(bands), image.covers(ra, dec))]
    return _select(source, found, bands)


def _search(folder: Path, ra: float, dec: float, bands: Sequence[str]) -> list[Found]:
    files = list_files(folder)
    if not files:
        raise SourceNotFoundError(f"there is no FITS file in {folder}", source=str(folder))
    best: dict[str | None, Found] = {}
    usable = 0
    unusable: list[ImageUnreadableError | NotOnSkyError] = []
    for path in files:
        try:
            with open_image(path, ra=ra, dec=dec) as image:
                if str(image.hdus[0].header.get("PRODTYPE", "")).strip().lower() in NOT_AN_IMAGE:
                    continue
                usable += 1
                each = Found(path, image.band(bands), image.covers(ra, dec))
        except (ImageUnreadableError, NotOnSkyError) as error:
            unusable.append(error)
            continue
        if each.depth >= 0 and (each.band not in best or each.depth > best[each.band].depth):
            best[each.band] = each
    if not usable and unusable:
        raise unusable[0]
    if not best:
        raise PositionOutsideError(
            f"ra {ra:.6f}, dec {dec:+.6f} is on none of the {usable} images in {folder.name}", ra=ra, dec=dec
        )
    return [best[band] for band in sorted(best, key=by_wavelength)]


def list_files(folder: Path) -> list[Path]:
    """The FITS files in a folder and below it, sorted, without hidden ones."""
    files = []
    for path in sorted(folder.rglob("*")):
        suffixes = [suffix for suffix in path.suffixes if suffix not in PACKED]
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if suffixes and suffixes[-1].lower() in SUFFIXES and not hidden and path.is_file():
            files.append(path)
    return files


def _select(source: Path, found: Sequence[Found], bands: Sequence[str]) -> list[Found]:
    if not bands:
        return list(found)
    selected = []
    for band in bands:
        same = [each for each in found if each.band == band]
        alike = [each for each in found if each.band is not None and each.band.lower() == band.lower()]
        if same or len(alike) == 1:
            selected.append((same or alike)[0])
            continue
        there = ", ".join(sorted(each.band or "one of unknown band" for each in found))
        raise BandNotFoundError(f"{source.name} has no image in band {band!r} there; it has {there}", band=band)
    return selected
