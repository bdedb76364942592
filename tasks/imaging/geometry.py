"""Where the pixels of an image are: on the sky, and on the slant plane of the array."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.visibility.visibilities import PhaseCentre

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of an image are."""

    centre: PhaseCentre
    shape: tuple[int, int]
    """(ny, nx), even; the phase centre is in the middle of pixel (ny / 2, nx / 2), counted from 0."""
    cell_rad: float
    slant: tuple[float, float] = (0.0, 0.0)
    """a and b."""

    @cached_property
    def wcs(self) -> Any:
        """Celestial, of two axes, ICRS, for 0-based (x, y)."""
        from astropy.wcs import WCS

        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.crval = np.degrees([self.centre.ra_rad, self.centre.dec_rad])
        wcs.wcs.crpix = [self.shape[1] // 2 + 1, self.shape[0] // 2 + 1]
        wcs.wcs.cdelt = np.degrees([-self.cell_rad, self.cell_rad])
        if any(self.slant):
            wcs.wcs.set_pv([(2, 1, -self.slant[0]), (2, 2, -self.slant[1])])
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.set()
        return wcs

    def plane(self, y: Any, x: Any) -> tuple[Floats, Floats]:
        """The plane's x and y, radians, of 0-based pixel coordinates."""
        return (
            (self.shape[1] // 2 - np.asarray(x, np.float64)) * self.cell_rad,
            (np.asarray(y, np.float64) - self.shape[0] // 2) * self.cell_rad,
        )

    def depth(self, x: Floats, y: Floats) -> Floats:
        """N - 1 at places of the plane; NaN beyond the sky."""
        return depth(x, y, *self.slant)


def depth(x: Floats, y: Floats, a: float, b: float) -> Floats:
    """N - 1 where x = l + a (n - 1), y = m + b (n - 1) and l^2 + m^2 + n^2 = 1, without loss of digits."""
    square = x * x + y * y
    half = 1 - a * x - b * y
    inside = half * half - (1 + a * a + b * b) * square
    root = np.sqrt(np.where(inside >= 0, inside, np.nan))
    value: Floats = -square / (half + root)
    return value
