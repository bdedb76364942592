"""Radio images whose sky is known: Gaussian sources seen through a primary beam, in noise as smooth as the beam."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from absurd.tasks.radio.beam import beam_named
from absurd.tasks.radio.sky_pixels import separation_rad

FREQUENCY_HZ = 1.405e9
DISH_M = 4.65
WIDTH = 2.3548200450309493
"""Full width at half maximum of a Gaussian, in its standard deviations."""


@dataclass(frozen=True, slots=True)
class Field:
    """A patch of sky as an image shows it."""

    ra: float
    dec: float
    side: int = 300
    cell_arcsec: float = 48.0
    width: float = 5.0
    """Of the restoring beam at half maximum, pixels."""
    noise: float = 0.001
    slant: tuple[float, float] = (0.0, 0.0)
    """PV2_1 and PV2_2 of the SIN projection."""
    attenuated: bool = True
    """Whether the sky is seen through the primary beam."""

    @property
    def wcs(self) -> WCS:
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
        wcs.wcs.crval = [self.ra, self.dec]
        wcs.wcs.crpix = [self.side / 2 + 1, self.side / 2 + 1]
        wcs.wcs.cdelt = [-self.cell_arcsec / 3600, self.cell_arcsec / 3600]
        if self.slant != (0.0, 0.0):
            wcs.wcs.set_pv([(2, 1, self.slant[0]), (2, 2, self.slant[1])])
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.set()
        return wcs


Source = tuple[float, float, float]
"""Right ascension and declination (degrees), flux density (Jy)."""


def draw(field: Field, sources: Sequence[Source], rng: np.random.Generator) -> NDArray[np.float32]:
    """Pixels (y, x) of point sources and noise."""
    pixels = gaussian_filter(rng.standard_normal((field.side, field.side)), field.width / WIDTH, mode="wrap")
    pixels *= field.noise / pixels.std()
    ra, dec, flux = np.array(sources, dtype=float).reshape(-1, 3).T
    far = separation_rad(ra, dec, field.ra, field.dec)
    power = beam_named("airy", DISH_M).power(far, np.array(FREQUENCY_HZ)) if field.attenuated else np.ones(len(ra))
    x, y = field.wcs.wcs_world2pix(ra, dec, 0)
    for n in np.flatnonzero(far < np.radians(10)):
        add(pixels, float(x[n]), float(y[n]), float(flux[n] * power[n]), field.width, field.width)
    made: NDArray[np.float32] = pixels.astype(np.float32)
    return made


def add(pixels: NDArray[Any], x: float, y: float, peak: float, major: float, minor: float, angle: float = 0.0) -> None:
    """Add a Gaussian; widths at half maximum in pixels, the angle of the long one from y towards -x, degrees."""
    reach = int(4 * major / WIDTH) + 2
    left, bottom = max(int(x) - reach, 0), max(int(y) - reach, 0)
    box = pixels[bottom : max(int(y) + reach + 1, 0), left : max(int(x) + reach + 1, 0)]
    down, across = np.mgrid[bottom : bottom + box.shape[0], left : left + box.shape[1]]
    turn = np.radians(angle)
    along = -(across - x) * np.sin(turn) + (down - y) * np.cos(turn)
    beside = (across - x) * np.cos(turn) + (down - y) * np.sin(turn)
    box += peak * np.exp(-4 * np.log(2) * ((along / major) ** 2 + (beside / minor) ** 2))


def write(
    path: Path, field: Field, pixels: NDArray[np.float32], observed: datetime = datetime(2026, 1, 1, tzinfo=UTC)
) -> Path:
    """A FITS image in Jy/beam with the axes of radio images."""
    header = field.wcs.to_header()
    header["BUNIT"] = "Jy/beam"
    header["BMAJ"] = header["BMIN"] = field.width * field.cell_arcsec / 3600
    header["BPA"] = 0.0
    header["CTYPE3"], header["CRVAL3"], header["CRPIX3"], header["CDELT3"] = "FREQ", FREQUENCY_HZ, 1.0, 1.8e8
    header["CTYPE4"], header["CRVAL4"], header["CRPIX4"], header["CDELT4"] = "STOKES", 1.0, 1.0, 1.0
    header["DATE-OBS"] = observed.replace(tzinfo=None).isoformat()
    header["TELESCOP"] = "DSA-110"
    fits.writeto(path, pixels[None, None], header)
    return path


def scattered(
    rng: np.random.Generator, ra: float, dec: float, count: int, *, across: float, up: float, apart: float
) -> list[tuple[float, float]]:
    """Places around a position, degrees of sky to either side, none nearer to another than `apart`."""
    found: list[tuple[float, float]] = []
    while len(found) < count:
        new = (
            (ra + rng.uniform(-across, across) / np.cos(np.radians(dec))) % 360,
            dec + rng.uniform(-up, up),
        )
        if not found or nearest(found, new) > apart:
            found.append(new)
    return found


def nearest(places: Sequence[tuple[float, float]], to: tuple[float, float]) -> float:
    """Distance of the nearest place, degrees."""
    ra, dec = np.array(places).T
    return float(np.degrees(separation_rad(ra, dec, to[0], to[1]).min()))
