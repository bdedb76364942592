"""An image of the sky: pixels, where they are, and what they measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARCSEC_PER_DEGREE = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """Pixels with a celestial WCS."""

    pixels: NDArray[Any]
    """Shape (ny, nx), first axis y (rows, up), second x; NaN where there is no value."""
    wcs: Any
    """`astropy.wcs.WCS` of two celestial axes, for 0-based pixel coordinates (x, y) with pixel centres at integers."""
    unit: str | None = None
    """What a pixel value is in, as FITS writes it (BUNIT); None: not known."""

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2:
            raise ValueError(f"pixels have {self.pixels.ndim} axes; an image has two, (y, x)")
        if not self.wcs.has_celestial:
            raise ValueError("the WCS of an image must be celestial")

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels along (y, x)."""
        ny, nx = self.pixels.shape
        return ny, nx

    @property
    def pixel_scale(self) -> tuple[float, float]:
        """Size of a pixel at the reference point along (y, x), arcseconds; distortions do not count."""
        return pixel_scale(self.wcs)

    @property
    def centre(self) -> tuple[float, float]:
        """Right ascension and declination of the middle of the image, degrees, ICRS."""
        ny, nx = self.shape
        return sky_position(self.wcs, (nx - 1) / 2, (ny - 1) / 2)


def pixel_scale(wcs: Any) -> tuple[float, float]:
    """Size of a pixel of a celestial WCS of two axes at its reference point along (y, x), arcseconds."""
    from astropy.wcs.utils import proj_plane_pixel_scales

    x, y = np.asarray(proj_plane_pixel_scales(wcs)) * ARCSEC_PER_DEGREE
    return float(y), float(x)


def sky_position(wcs: Any, x: float, y: float) -> tuple[float, float]:
    """Right ascension (0 to 360) and declination at a 0-based pixel position, degrees, ICRS; NaN off the sky."""
    from astropy.wcs.utils import pixel_to_skycoord

    if wcs.wcs.lng > wcs.wcs.lat:  # astropy takes the pixel along longitude first, also where that is y
        x, y = y, x
    position = pixel_to_skycoord(x, y, wcs, origin=0, mode="all").icrs
    return float(position.ra.deg), float(position.dec.deg)
