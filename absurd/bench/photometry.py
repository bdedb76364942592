"""How many positions a second are measured, how right, and how sources are found."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.bench import radio_images
from absurd.bench.figures import Figure
from absurd.tasks.catalog.cross_match import cross_match
from absurd.tasks.photometry.detect import detect
from absurd.tasks.photometry.forced import measure as forced
from absurd.tasks.photometry.shapes import beam_shape
from absurd.tasks.radio.sky_image import open_sky_image
from absurd.tasks.radio.sky_pixels import pixels_to_sky

_SEED = 20_260_102
_NOISE_JY = 0.0003
_CELL_DEG = 3 / 3600


def measure(*, rounds: int, side: int, sources: int, tell: Callable[[str], None]) -> list[list[Figure]]:
    """Figures of each round; the image is made before, in a folder that goes afterwards."""
    rng = np.random.default_rng(_SEED)
    wcs = radio_images.plane(150.0, 40.0, side, _CELL_DEG)
    places = radio_images.spread(rng, sources, 40, side - 40, 3 * radio_images.WIDTH)
    ra, dec = pixels_to_sky(wcs, places[:, 0], places[:, 1])
    sky = radio_images.Sky(ra, dec, 10 ** rng.uniform(-3, 0, sources))
    tell(f"Simulating {sources} sources on {side} x {side} pixels")
    found = []
    with tempfile.TemporaryDirectory(prefix="absurd_bench_") as name:
        path = Path(name) / "image.fits"
        radio_images.write(path, wcs, side, sky, _NOISE_JY, rng)
        image = open_sky_image(path)
        assert image.beam is not None
        pixels, beam = image.pixels(), beam_shape(image, image.beam)
        forced(pixels, places[:, 0], places[:, 1], beam)  # compiled, if it has not been yet
        for number in range(rounds):
            figures = [*_forced(pixels, beam, places, sky), *_finding(pixels, beam, image.wcs, sky)]
            found.append(figures)
            tell(f"Round {number + 1} of {rounds}: " + _told(figures))
    return found


def _forced(
    pixels: NDArray[np.float32], beam: radio_images.Floats, places: radio_images.Floats,
    sky: radio_images.Sky,
) -> list[Figure]:  # fmt: skip
    began, cpu = time.perf_counter(), time.process_time()
    made = forced(pixels, places[:, 0], places[:, 1], beam)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    bright = sky.flux > 20 * made.error
    off = (made.flux - sky.flux) / made.error
    share = made.flux[bright] / sky.flux[bright] - 1
    weights = (sky.flux[bright] / made.error[bright]) ** 2
    return [
        Figure("forced photometry", len(places) / seconds, "positions/s"),
        Figure("each second of a processor", len(places) / cpu, "positions"),
        Figure("bias above 20 errors", 100 * abs(float(np.average(share, weights=weights))), "%", higher=False),
        Figure("scatter in errors", float(1.4826 * np.median(np.abs(off))), "", higher=None),
    ]


def _finding(pixels: NDArray[np.float32], beam: radio_images.Floats, wcs: Any, sky: radio_images.Sky) -> list[Figure]:
    began = time.perf_counter()
    found = detect(pixels, beam)
    seconds = time.perf_counter() - began
    match = cross_match(sky.ra, sky.dec, *pixels_to_sky(wcs, found.x, found.y), radius_arcsec=7.5)
    strong = sky.flux > 10 * _NOISE_JY
    seen = np.isin(np.flatnonzero(strong), match.first)
    return [
        Figure("finding", seconds, "s", higher=False),
        Figure("found above 10 sigma", 100 * float(seen.mean()), "%"),
        Figure("false", float(len(found.x) - len(match.first)), "", higher=False),
    ]


def _told(figures: Sequence[Figure]) -> str:
    return "; ".join(f"{each.name} {each.value:,.3g} {each.unit}".rstrip() for each in figures)
