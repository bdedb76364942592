"""Images for the benchmark of cut-outs: coadds in five bands that straddle 0h, plain and compressed as LSST's are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BANDS = "grizy"
KINDS = ("plain", "tiles of a row", "tiles of 100 x 100")
PLANES = {"plain": ("image",), "tiles of a row": ("image", "mask", "variance")}
PLANES["tiles of 100 x 100"] = PLANES["tiles of a row"]

_SCALE = 0.2 / 3600
_CENTRE = (0.0, -1.0)
_SEED = 20261129


def path_of(folder: Path, kind: str, band: str) -> Path:
    """The file of one kind and band."""
    return folder / f"{kind.replace(' ', '_')}_{band}.fits"


def wcs_of(side: int) -> Any:
    """The WCS of all bands."""
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = _CENTRE
    wcs.wcs.crpix = [side / 2 + 0.5] * 2
    wcs.wcs.cdelt = [-_SCALE, _SCALE]
    wcs.wcs.set()
    return wcs


def positions_on(side: int, n: int) -> NDArray[np.float64]:
    """Random positions all over the images, their edges too; (n, 2), degrees, ICRS."""
    pixels = np.random.default_rng(_SEED).uniform(-0.5, side - 0.5, (n, 2))
    there: NDArray[np.float64] = wcs_of(side).all_pix2world(pixels, 0)
    there[:, 0] %= 360
    return there


def make(
    folder: Path,
    side: int,
    tell: Callable[[str], None] = lambda _: None,
    *,
    bands: str = BANDS,
    kinds: Sequence[str] = KINDS,
) -> None:
    """Write images, plain ones always: noise and stars, a mask with few bits set, a variance that varies a little."""
    from astropy.io import fits

    header = wcs_of(side).to_header()
    for number, band in enumerate(bands):
        tell(f"Making images in {band}")
        rng = np.random.default_rng(_SEED + number)
        image = rng.standard_normal((side, side), np.float32) * np.float32(5)
        stars = rng.integers(0, side, (2, side))
        image[tuple(stars)] += rng.exponential(1000, side).astype(np.float32)
        mask = np.where(rng.random((side, side), np.float32) < 0.02, rng.integers(1, 256, (side, side)), 0)
        variance = 25 + rng.standard_normal((side, side), np.float32) / 10
        fits.PrimaryHDU(image, header).writeto(path_of(folder, "plain", band))
        for kind, tile in zip(KINDS[1:], ((1, side), (min(100, side),) * 2), strict=True):
            if kind not in kinds:
                continue
            how = {"compression_type": "RICE_1", "tile_shape": tile}
            real = how | {"quantize_method": 2, "dither_seed": number + 1}
            hdus = [
                fits.CompImageHDU(image, header, name="IMAGE", **real),
                fits.CompImageHDU(mask.astype(np.int32), header, name="MASK", **how),
                fits.CompImageHDU(variance, header, name="VARIANCE", **real),
            ]
            fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path_of(folder, kind, band))
