"""How long a mosaic takes, in how much memory, and how right it is: tiles with sources that are known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from absurd.bench import radio_images
from absurd.bench.figures import Figure
from absurd.tasks.imaging.mosaicking.combine import combine
from absurd.tasks.imaging.mosaicking.tile import tile_of
from absurd.tasks.photometry.forced import measure as forced
from absurd.tasks.photometry.shapes import beam_shape, beam_shapes
from absurd.tasks.radio.beam import beam_named
from absurd.tasks.radio.sky_image import open_sky_image

_SEED = 20_260_101
_DEC = 54.6
_RA = 358.0
_STEP = 1.25
"""Degrees of right ascension between tiles: five minutes."""
_FIELD = 4.0
"""Side of a tile, degrees."""
_NOISE_JY = 0.0003
_MOST_SOURCES = 400
_DISH_M = 4.65
_REACH = 1.0
"""Sources lie within so many degrees of the declination of the tiles."""
_APART = 5.0
"""Widths of the beam: nearer ones would be in the ring that tells a source's background."""

_PROGRAM = """
import json, sys
from pathlib import Path
from absurd.bench.mosaic import run
print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]))))
"""


def measure(*, rounds: int, tiles: int, side: int, tell: Callable[[str], None]) -> list[list[Figure]]:
    """Figures of each round, each a process of its own; the tiles are made before, in a folder that goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="absurd_bench_") as name:
        folder = Path(name)
        tell(f"Simulating {tiles} tiles of {side} x {side} pixels")
        sky = _simulate(folder, tiles, side)
        found = []
        for number in range(rounds):
            command = [sys.executable, "-c", _PROGRAM, str(folder), str(tiles)]
            told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            figures = [
                Figure(f"{tiles} tiles", told["seconds"], "s", higher=False),
                Figure("processor", told["cpu"], "s", higher=False),
                Figure("peak memory", told["peak"], "MiB", higher=False),
                Figure("chi squared of pixels", told["chi_squared"], "", higher=None),
                *_fluxes(folder, sky),
            ]
            found.append(figures)
            tell(f"Round {number + 1} of {rounds}: " + _told(figures))
    return found


def run(folder: Path, tiles: int) -> dict[str, float]:
    """Combine the tiles of a folder: seconds, those of processors, MiB at most, and how the noise map fits."""
    most = 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.02):
            most = max(most, int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        began, cpu = time.perf_counter(), time.process_time()
        beam = beam_named("airy", _DISH_M)
        made = [tile_of(str(folder / f"tile{n}.fits"), beam) for n in range(tiles)]
        combined = combine(made, folder / "mosaic.fits", folder / "noise.fits")
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    finally:
        ended.set()
        watcher.join()
    peak = most * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    return {"seconds": seconds, "cpu": cpu, "peak": peak, "chi_squared": combined.chi_squared}


def _simulate(folder: Path, tiles: int, side: int) -> radio_images.Sky:
    rng = np.random.default_rng(_SEED)
    half = (tiles - 1) / 2 * _STEP
    count = min(_MOST_SOURCES, tiles * side // 10)  # so that they stay apart
    apart = max(0.02, _APART * radio_images.WIDTH * _FIELD / side / (2 * _REACH))
    places = radio_images.spread(rng, count, 0, 1, apart)
    sky = radio_images.Sky(
        ra=(_RA + (2 * places[:, 0] - 1) * (half + 1.5)) % 360,
        dec=_DEC + (2 * places[:, 1] - 1) * _REACH,
        flux=10 ** rng.uniform(-2, 0, count),
    )
    beam = beam_named("airy", _DISH_M)
    for n in range(tiles):
        wcs = radio_images.plane((_RA - half + n * _STEP) % 360, _DEC, side, _FIELD / side)
        noise = _NOISE_JY * (1 + 0.3 * (n % 3))
        radio_images.write(folder / f"tile{n}.fits", wcs, side, sky, noise, rng, beam)
    return sky


def _fluxes(folder: Path, sky: radio_images.Sky) -> list[Figure]:
    """Of sources of which the noise is less than a hundredth."""
    image = open_sky_image(folder / "mosaic.fits")
    assert image.beam is not None
    x, y = image.wcs.wcs_world2pix(sky.ra, sky.dec, 0)
    found = forced(
        image.pixels(), x, y, beam_shape(image, image.beam), shapes=beam_shapes(image, image.beam, sky.ra, sky.dec)
    )
    good = found.flags == 0
    off = (found.flux[good] - sky.flux[good]) / np.hypot(found.error[good], 0.002 * sky.flux[good])
    bright = good & (sky.flux > 100 * found.error)
    return [
        Figure("sources", float(good.sum()), "", higher=None),
        Figure("bias of bright sources", 100 * float(np.median(found.flux[bright] / sky.flux[bright]) - 1), "%", None),
        Figure("chi squared of sources, 0.2 % allowed", float(np.mean(off**2)), "", higher=None),
    ]


def _told(figures: Sequence[Figure]) -> str:
    return "; ".join(f"{each.name} {each.value:,.3g} {each.unit}".rstrip() for each in figures)
