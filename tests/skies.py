"""Images for the tests of cut-outs: made by astropy, with known positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from absurd.tasks.cutout.images import Source


def make_wcs(
    ra: float = 10.0,
    dec: float = 20.0,
    *,
    scale: float = 0.5,
    angle: float = 0.0,
    flip: bool = True,
    crpix: tuple[float, float] = (20.5, 15.5),
    projection: str = "TAN",
    frame: str = "ICRS",
) -> WCS:
    """A celestial WCS; `scale` in arcseconds a pixel, `angle` in degrees, `flip`: east to the left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = [f"RA---{projection}", f"DEC--{projection}"]
    if frame == "galactic":
        wcs.wcs.ctype = [f"GLON-{projection}", f"GLAT-{projection}"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = crpix
    turn, sign = np.radians(angle), -1 if flip else 1
    wcs.wcs.cd = scale / 3600 * np.array([[sign * np.cos(turn), np.sin(turn)], [-sign * np.sin(turn), np.cos(turn)]])
    if frame != "galactic":
        wcs.wcs.radesys = frame
    if frame in ("FK5", "FK4"):
        wcs.wcs.equinox = 2000.0 if frame == "FK5" else 1950.0
    wcs.wcs.set()
    return wcs


def pixels_of(shape: tuple[int, int] = (30, 40), seed: int = 0) -> NDArray[np.float32]:
    """Noise, different in each pixel."""
    return np.random.default_rng(seed).normal(100, 5, shape).astype(np.float32)


def write_image(path: Path, pixels: NDArray[Any], wcs: WCS, **cards: Any) -> Path:
    """One image in the primary HDU."""
    header = wcs.to_header(relax=True)
    header.update({key.upper(): value for key, value in cards.items()})
    fits.PrimaryHDU(pixels, header).writeto(path, overwrite=True)
    return path


def no_index(name: str) -> Source:
    """For batches of which none asks for an index."""
    raise AssertionError(f"nobody names the index {name}")
