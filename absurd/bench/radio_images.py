"""Radio images with known sources, in noise as smooth as their beam, for the benchmarks that measure in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from absurd.tasks.radio.sky_pixels import separation_rad

WIDTH = 5.0
"""Of the beam at half maximum, pixels."""
FREQUENCY_HZ = 1.405e9
_SIGMA = WIDTH / np.sqrt(8 * np.log(2))
_REACH = 12
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Sky:
    """Point sources."""

    ra: Floats
    """Degrees."""
    dec: Floats
    flux: Floats
    """Jy."""


def plane(ra: float, dec: float, side: int, cell_deg: float) -> WCS:
    """The slanted plane (SIN with PV2_1 and PV2_2) of a square image."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [side / 2 + 1, side / 2 + 1]
    wcs.wcs.cdelt = [-cell_deg, cell_deg]
    wcs.wcs.set_pv([(2, 1, 0.02), (2, 2, 0.31)])
    wcs.wcs.set()
    return wcs


def write(path: Path, wcs: WCS, side: int, sky: Sky, noise: float, rng: np.random.Generator, beam: Any = None) -> None:
    """Write an image in Jy/beam; with a `beam` of the dishes, sources are seen through it."""
    pixels = gaussian_filter(rng.standard_normal((side, side), np.float32), _SIGMA)
    pixels *= noise / pixels.std()
    far = separation_rad(sky.ra, sky.dec, *wcs.wcs.crval)
    peaks = sky.flux if beam is None else sky.flux * beam.power(far, np.array(FREQUENCY_HZ))
    x, y = wcs.wcs_world2pix(sky.ra, sky.dec, 0)
    for n in np.flatnonzero((far < 0.2) & (x > _REACH) & (y > _REACH) & (x < side - _REACH) & (y < side - _REACH)):
        left, bottom = int(x[n]) - _REACH, int(y[n]) - _REACH
        across = np.exp(-0.5 * ((np.arange(left, left + 2 * _REACH + 1) - x[n]) / _SIGMA) ** 2)
        up = np.exp(-0.5 * ((np.arange(bottom, bottom + 2 * _REACH + 1) - y[n]) / _SIGMA) ** 2)
        pixels[bottom : bottom + 2 * _REACH + 1, left : left + 2 * _REACH + 1] += peaks[n] * up[:, None] * across
    header = wcs.to_header()
    header["BUNIT"], header["RESTFRQ"], header["BPA"] = "Jy/beam", FREQUENCY_HZ, 0.0
    header["BMAJ"] = header["BMIN"] = WIDTH * wcs.wcs.cdelt[1]
    header["DATE-OBS"] = "2026-01-01T00:00:00"
    fits.writeto(path, pixels, header)


def spread(rng: np.random.Generator, count: int, low: float, high: float, apart: float) -> Floats:
    """Places (n, 2) in a square, the middles of cells of a grid moved by less than leaves `apart` between them."""
    rows = int(np.ceil(np.sqrt(count)))
    step = (high - low) / rows
    loose = max(step - apart, 0) / 2
    cells = np.stack(np.divmod(np.arange(rows**2), rows), axis=1)[rng.permutation(rows**2)[:count]]
    places: Floats = low + step * (cells + 0.5) + rng.uniform(-loose, loose, (count, 2))
    return places
