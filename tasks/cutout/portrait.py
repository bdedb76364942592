"""A FITS file of the sky for pages: whole as a picture, or a part of it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from absurd.errors import PayloadTooLargeError
from absurd.tasks.cutout.engine import extract
from absurd.tasks.cutout.fits_image import open_image
from absurd.tasks.cutout.geometry import Unit
from absurd.tasks.cutout.output import write_hdus
from absurd.tasks.cutout.preview import render
from absurd.tasks.image import Image

MOST_PIXELS = 64_000_000
"""Of an image of which a picture is painted: it is read whole."""


def paint(path: Path, largest: int | None = None) -> bytes:
    """The first image of the sky in a FITS file as PNG: north as the pixels have it, with scale bar and compass.

    Its longer side has at most `largest` pixels.
    Raises PayloadTooLargeError for one of more than 64 million pixels, and as `open_image`.
    """
    with open_image(path) as found:
        ny, nx = found.shape
        if ny * nx > MOST_PIXELS:
            raise PayloadTooLargeError(
                f"{path.name} has {ny} by {nx} pixels; pictures are painted of {MOST_PIXELS} at most", limit=MOST_PIXELS
            )
        pixels = np.asarray(found.read((slice(0, ny), slice(0, nx))), dtype=np.float32)
        image = Image(pixels.reshape(ny, nx), found.wcs, found.unit)
    return _png(image, largest)


def cut(path: Path, ra: float, declination: float, size: float, unit: Unit, form: str) -> bytes:
    """A square of `size` arcseconds or pixels around a position (degrees, ICRS), as ``fits`` or ``png``.

    Raises as `extract`.
    """
    found = extract(path, (ra, declination), size, unit=unit)
    if form == "png":
        return _png(found.image, None)
    made = BytesIO()
    write_hdus(found, made)
    return made.getvalue()


def _png(image: Image, largest: int | None) -> bytes:
    picture = render(image)
    if largest is not None:
        picture.thumbnail((largest, largest))
    made = BytesIO()
    picture.save(made, format="PNG")
    return made.getvalue()
