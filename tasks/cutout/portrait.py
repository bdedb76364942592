"""A FITS file of the sky as a picture, whole, for pages."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from absurd.errors import PayloadTooLargeError
from absurd.tasks.cutout.fits_image import open_image
from absurd.tasks.cutout.preview import render
from absurd.tasks.image import Image

MOST_PIXELS = 64_000_000
"""Of an image of which a picture is painted: it is read whole."""


def paint(path: Path) -> bytes:
    """The first image of the sky in a FITS file as PNG: north as the pixels have it, with scale bar and compass.

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
    made = BytesIO()
    render(image).save(made, format="PNG")
    return made.getvalue()
