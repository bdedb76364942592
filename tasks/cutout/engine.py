"""A cut-out: the pixels of a box on an image, and the header that keeps them where they are on the sky."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.fits_image import meaning_of, open_image
from absurd.tasks.cutout.geometry import Box, Unit, check_position, place, shape_in_pixels
from absurd.tasks.cutout.header import check_kept, moved_header, tables_of, wcs_of
from absurd.tasks.image import Image, pixel_scale

IMAGE = "image"
"""The plane that every cut-out has."""


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
    meanings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The cards that tell what the numbers of a further plane are, by its name: BUNIT, MP_<name> of a mask."""
    stitched: tuple[str, ...] = ()
    """Names of the other files that pixels beyond the image are from."""
    n_missing: int | None = None
    """Pixels that none of the files has; None if nothing was stitched: those of the box beyond the image."""

    @property
    def n_outside(self) -> int:
        """Pixels that there are none for."""
        return self.box.n_outside if self.n_missing is None else self.n_missing


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
        header, tables = moved_header(image.header, image.hdus[0].header, tables_of(image.hdus), box)
        wcs = wcs_of(header, tables)
        check_kept(image.name, image.wcs, wcs, box)
        pixels = _filled(_as_float(image.read(box.on_image)), box)
        further = [name for name in planes if name.lower() != IMAGE]
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
            planes={name: _filled(image.plane(name, box.on_image), box) for name in further},
            meanings={name: meaning_of(image.named(name).header) for name in further},
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
