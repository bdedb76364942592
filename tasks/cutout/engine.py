"""A cut-out: the pixels of a box on an image, and the header that keeps them where they are on the sky."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.errors import NotOnSkyError
from absurd.tasks.cutout.fits_image import FitsImage, open_image
from absurd.tasks.cutout.geometry import Box, Unit, check_position, place, shape_in_pixels
from absurd.tasks.image import Image, pixel_scale

IMAGE = "image"
"""The plane that every cut-out has."""

WCS_TOLERANCE = 1e-9
"""Degrees by which a corner of the cut-out may move on the sky: 4 micro-arcseconds, rounding only."""

_FROM_PRIMARY = (
    "TELESCOP", "INSTRUME", "OBJECT", "OBSERVER", "FILTER", "BAND", "DATE-OBS", "TIME-OBS", "MJD-OBS", "TIMESYS",
    "EXPTIME", "AIRMASS", "BUNIT",
)  # fmt: skip
"""What an extension says only in the primary header of its file."""

_ABOUT_THE_FILE = (
    "XTENSION", "PCOUNT", "GCOUNT", "GROUPS", "EXTEND", "EXTNAME", "EXTVER", "EXTLEVEL", "INHERIT", "BSCALE", "BZERO",
    "BLANK", "CHECKSUM", "DATASUM", "ZHECKSUM", "ZDATASUM", "DATAMIN", "DATAMAX", "NEXTEND", "LONGSTRN",
)  # fmt: skip
"""What is no longer so in the cut-out."""

_THIRD_AXIS = re.compile(
    r"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME|NAXIS|LTV)[3-9][A-Z]?"
    r"|(PC|CD|LTM)(0?[3-9]_0?\d|0?\d_0?[3-9])[A-Z]?|PC00[3-9]\d+|(PV|PS)[3-9]_\d+[A-Z]?"
)


@dataclass(frozen=True, slots=True, eq=False)
class Cutout:
    """Pixels around a position, and where they came from."""

    image: Image
    """Shape as wanted, (ny, nx), floating point; NaN where the box is beyond the image."""
    header: Any
    """`astropy.io.fits.Header` of the cut-out, with its WCS."""
    tables: tuple[Any, ...]
    """Image HDUs with the lookup tables of the WCS's distortions; mostly none."""
    position: tuple[float, float]
    """What was asked for: right ascension and declination, degrees, ICRS."""
    pixel_position: tuple[float, float]
    """The same in pixels (x, y) of the source image, 0-based."""
    box: Box
    band: str | None
    source: str
    """Name of the file, without its folder."""
    hdu: int
    """Place of the image in the file, from 0."""
    planes: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Further planes by name, of the same shape; integers stay what they are, with 0 beyond the image."""


def extract(
    source: str | os.PathLike[str],
    position: tuple[float, float],
    size: float | tuple[float, float],
    *,
    unit: Unit = "arcsec",
    hdu: int | None = None,
    bands: Sequence[str] = (),
    planes: Sequence[str] = (IMAGE,),
) -> Cutout:
    """Cut a box around a sky position out of a FITS image.

    Pixel for pixel the same as `astropy.nddata.Cutout2D` with ``mode="partial"``, but for two things: integer
    pixels become floating point (exactly: single precision up to 16 bits, double above), so that NaN can fill what
    is beyond the image; and lookup tables of the WCS move with the box as CRPIX does.

    Parameters
    ----------
    source
        A FITS file, plain or compressed.  Of several images in it the first with a celestial WCS is taken, or that
        with the position deepest inside; `hdu` (from 0) takes another.
    position
        Right ascension (0 to 360) and declination, degrees, ICRS; transformed to the image's own frame.
    size
        Side of a square, or (height, width) along (y, x), in `unit`; arcseconds are measured at the reference point
        of the WCS, and rounded to whole pixels.
    bands
        Names of bands to look for in the file's name, should its headers tell none.
    planes
        Names (EXTNAME) of further image HDUs of the same shape to cut likewise, beside "image".

    Raises
    ------
    InvalidPositionError, InvalidSizeError
        The position or the size is no number, or out of range.
    SourceNotFoundError, PlaneNotFoundError
        File, HDU or plane do not exist.
    ImageUnreadableError
        The file is not FITS, damaged or truncated.
    NotOnSkyError
        It has no celestial WCS, or one that cannot be carried over to the cut-out.
    PositionOutsideError
        Box and image have no pixel in common.
    """
    ra, dec = position
    check_position(ra, dec)
    if unit == "pixel":  # tell a wrong size before any file is opened
        shape_in_pixels(size, unit, (1.0, 1.0))
    with open_image(Path(source), ra=ra, dec=dec, hdu=hdu) as image:
        shape = shape_in_pixels(size, unit, pixel_scale(image.wcs))
        box, pixel = place(image.wcs, image.shape, ra, dec, shape, image.name)
        header, tables = _moved_header(image, box)
        wcs = _wcs_of(header, tables)
        _check_kept(image, wcs, box)
        pixels = _filled(_as_float(image.read(box.on_image)), box)
        return Cutout(
            image=Image(pixels, wcs, image.unit),
            header=header,
            tables=tables,
            position=(ra, dec),
            pixel_position=pixel,
            box=box,
            band=image.band(bands),
            source=image.name,
            hdu=image.hdu,
            planes={name: _filled(image.plane(name, box.on_image), box) for name in planes if name.lower() != IMAGE},
        )


def _as_float(pixels: NDArray[Any]) -> NDArray[Any]:
    if pixels.dtype.kind == "f":
        return pixels
    return pixels.astype(np.float32 if pixels.dtype.itemsize <= 2 else np.float64)


def _filled(part: NDArray[Any], box: Box) -> NDArray[Any]:
    """The whole box around the part of it that is on the image: NaN beyond, or 0 for integers."""
    whole = np.full(box.shape, np.nan if part.dtype.kind == "f" else 0, dtype=part.dtype)
    whole[box.in_box] = part
    return whole


def _moved_header(image: FitsImage, box: Box) -> tuple[Any, tuple[Any, ...]]:
    """The image's header for a box on it, and its distortion tables likewise.

    All that belongs to the WCS is given relative to the reference pixel, so that only CRPIX (and LTV, the place on
    the detector) change, by whole pixels, and every other number keeps its digits; the tables have their place in
    CRVAL.
    """
    header = image.header.copy(strip=True)
    for key in _ABOUT_THE_FILE:
        header.remove(key, ignore_missing=True, remove_all=True)
    for key in [key for key in header if _THIRD_AXIS.fullmatch(key)]:
        header.remove(key, remove_all=True)
    header.pop("WCSAXES", None)
    for key in _FROM_PRIMARY:
        if key not in header and key in image.hdus[0].header:
            header[key] = (image.hdus[0].header[key], image.hdus[0].header.comments[key])
    alternatives = {match[1] for key in header if (match := re.fullmatch(r"CTYPE[12]([A-Z]?)", key))}
    for axis, shift in zip("12", box.origin, strict=True):
        for alternative in alternatives:
            header[f"CRPIX{axis}{alternative}"] = header.get(f"CRPIX{axis}{alternative}", 0.0) - shift
        if f"LTV{axis}" in header:
            header[f"LTV{axis}"] -= shift
    return header, tuple(_moved_table(hdu, box) for hdu in image.hdus if hdu.name in ("WCSDVARR", "D2IMARR"))


def _moved_table(hdu: Any, box: Box) -> Any:
    """A lookup table for pixels of the box, in which CRVAL is the pixel of the image at CRPIX of the table."""
    from astropy.io import fits

    moved = fits.ImageHDU(np.array(hdu.data), hdu.header.copy(), name=hdu.name, ver=hdu.ver)
    for axis, shift in zip("12", box.origin, strict=True):
        moved.header[f"CRVAL{axis}"] = moved.header.get(f"CRVAL{axis}", 0.0) - shift
    return moved


def _wcs_of(header: Any, tables: Sequence[Any]) -> Any:
    """The WCS that a reader of the written cut-out will find."""
    from astropy.io import fits
    from astropy.wcs import WCS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return WCS(header, fobj=fits.HDUList([fits.PrimaryHDU(), *tables]), naxis=2)


def _check_kept(image: FitsImage, wcs: Any, box: Box) -> None:
    """Raise NotOnSkyError unless the box has the same corners on the sky as its pixels have on the image."""
    (ny, nx), (x, y) = box.shape, box.origin
    corners = np.array([(0, 0), (nx - 1, 0), (0, ny - 1), (nx - 1, ny - 1)], dtype=float)
    try:
        there = wcs.all_pix2world(corners, 0)
    except ValueError as error:
        raise NotOnSkyError(f"the WCS of {image.name} cannot be carried over to a cut-out: {error}") from error
    before = image.wcs.all_pix2world(corners + np.array([x, y]), 0)
    apart = np.abs((there - before + 180) % 360 - 180)  # NaN off the sky, on both sides
    if not np.array_equal(np.isnan(there), np.isnan(before)) or (apart > WCS_TOLERANCE).any():
        raise NotOnSkyError(f"the WCS of {image.name} cannot be carried over to a cut-out: its corners would move")
