"""How fast and how right images are made: of a simulated tile whose sky is known, by each imager, in processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.bench.figures import Figure
from absurd.bench.spent import Spent, spend
from absurd.bench.tiles import CELL_ARCSEC, Source, simulate

Floats = NDArray[np.float64]
_SECONDS = 3600.0
_AROUND = 45
"""Pixels around a wide source in which all of it lies."""
_SPECTRA = ["-join-channels", "-channels-out", "4", "-fit-spectral-pol", "2"]
"""With which WSClean knows of spectra."""
_SURE = 3.0
"""Deviations of the noise that no imager can do anything about: of a small tile that is per cents of 100 mJy."""
_SCALES = [0, 5, 15, 45]
"""Of an extended sky, pixels."""


def measure(
    *, rounds: int, tile: str, size: int, antennas: int, channels: int, times: int, tell: Callable[[str], None]
) -> list[list[Figure]]:
    """Figures of each round: time, memory, noise, dynamic range and errors of fluxes, by imager.

    A drift scan of an array of the scale of DSA-110 (see `tiles`); one Measurement Set is imaged by the embedded
    imager, and by WSClean's w-gridder where it is installed, with the same parameters.
    """
    with tempfile.TemporaryDirectory(prefix="absurd_bench_") as name:
        folder = Path(name)
        tell(f"Simulating {antennas} antennas, {channels} channels, {times} times")
        sizes = {"size": size, "antennas": antennas, "channels": channels, "times": times}
        truth = simulate(folder / "tile.ms", tile, **sizes)
        job = _job(folder, size, tile)
        commands = {"embedded": [sys.executable, "-m", "absurd.bench.imaging", json.dumps(job)]}
        spend(_compile(job), os.environ, _SECONDS)
        if program := shutil.which("wsclean"):
            from absurd.tasks.imaging.engines.wsclean import arguments_of, options
            from absurd.tasks.imaging.parameters import ImagingParameters

            arguments = arguments_of(ImagingParameters(**job["parameters"], mgain=0.8), options(program))
            arguments += _SPECTRA if tile == "chromatic" else []
            stem = str(folder / "wsclean")
            commands["WSClean"] = [program, *arguments, "-temp-dir", name, "-name", stem, str(folder / "tile.ms")]
        found = []
        for number in range(rounds):
            figures: list[Figure] = []
            beam: list[str] | None = None
            thermal = frequency = math.nan
            for imager, command in commands.items():
                shape: list[str] = (
                    [] if beam is None else ["-beam-shape", *beam]
                )  # its own fit of a snapshot's beam may be off
                spent = spend([command[0], *shape, *command[1:]] if shape else command, os.environ, _SECONDS)
                if spent.code:
                    raise RuntimeError(f"{imager} ended with code {spent.code}: {spent.told}")
                if beam is None:
                    beam, thermal, frequency = _told_of(Path(job["out"] + "-image.fits"))
                joined = "wsclean-MFS" if tile == "chromatic" else "wsclean"
                stem = job["out"] if imager == "embedded" else str(folder / joined)
                figures += _figures(imager, spent, stem, truth, thermal, frequency)
            found.append(figures)
            tell(f"Round {number + 1} of {rounds}: " + "; ".join(f"{e.name} {e.value:,.4g} {e.unit}" for e in figures))
        return found


def _job(folder: Path, size: int, tile: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "image_size": size, "cell_size": f"{CELL_ARCSEC}arcsec", "robust": 0.0, "niter": 5000, "threshold": "1mJy",
        "deconvolver": "clark",
    }  # fmt: skip
    if tile == "extended":
        parameters |= {"deconvolver": "multiscale", "scales": _SCALES}
    return {"ms": str(folder / "tile.ms"), "out": str(folder / "own"), "parameters": parameters}


def _compile(job: dict[str, Any]) -> list[str]:
    """The same of a small image, so that no round is the first to compile."""
    small = {**job, "parameters": {**job["parameters"], "image_size": 256}, "out": job["out"] + "-small"}
    return [sys.executable, "-m", "absurd.bench.imaging", json.dumps(small)]


def _told_of(path: Path) -> tuple[list[str], float, float]:
    """The beam in WSClean's words, the noise that weights promise, and the mean frequency by weight."""
    from astropy.io import fits

    header = fits.getheader(path)
    sizes = [f"{3600 * header[key]:.4f}asec" for key in ("BMAJ", "BMIN")]
    return [*sizes, f"{header['BPA']:.4f}deg"], float(header["THERMAL"]), float(header["RESTFRQ"])


def _figures(
    imager: str, spent: Spent, stem: str, truth: Sequence[Source], thermal: float, frequency: float
) -> list[Figure]:
    from astropy.io import fits

    with fits.open(f"{stem}-residual.fits") as units:
        rms = float(np.sqrt(np.mean(np.square(units[0].data, dtype=np.float64))))
    measured = fluxes(Path(f"{stem}-image.fits"), truth)
    wanted = np.array([each.flux_jy(frequency) for each in truth])
    errors = 100 * np.abs(measured / wanted - 1)
    beyond = 100 * np.maximum(np.abs(measured - wanted) - _SURE * thermal, 0) / wanted
    wide = np.array([each.is_wide for each in truth])
    bright, middling = (wanted > 0.1) & ~wide, (wanted > 0.01) & (wanted <= 0.1) & ~wide
    rows = [
        ("wall", spent.wall, "s", False),
        ("processor", spent.cpu, "s", False),
        ("memory", spent.peak / 2**30, "GiB", False),
        ("residual", 1e3 * rms, "mJy", False),
        ("residual over thermal noise", rms / thermal, "", False),
        ("dynamic range", float(measured.max()) / rms, "", True),
        ("error above 100 mJy, median", float(np.median(errors[bright])), "%", False),
        ("error above 100 mJy, worst", float(errors[bright].max()), "%", False),
        ("error above 100 mJy, worst, beyond three deviations of the noise", float(beyond[bright].max()), "%", False),
        ("error of 10 to 100 mJy, median", float(np.median(errors[middling])), "%", False),
    ]
    if wide.any():
        rows.append(("error of what is wide, worst", float(errors[wide].max()), "%", False))
    return [Figure(f"{imager}, {name}", value, unit, higher=higher) for name, value, unit, higher in rows]


def fluxes(path: Path, truth: Sequence[Source]) -> Floats:
    """Of sources at known places: the beam fitted to what lies within its width; of wide ones all that is around."""
    from astropy.io import fits
    from astropy.wcs import WCS

    from absurd.tasks.imaging.beam_fit import RestoringBeam
    from absurd.tasks.quiet import quiet

    with quiet(), fits.open(path) as units:
        header, pixels = units[0].header, np.squeeze(units[0].data)
        sky = WCS(header).celestial
    beam = RestoringBeam(*(math.radians(header[key]) for key in ("BMAJ", "BMIN", "BPA")))
    p, q, r = beam.form(math.radians(header["CDELT2"]))
    found = []
    area = beam.solid_angle_sr / math.radians(header["CDELT2"]) ** 2
    for each in truth:
        x, y = sky.wcs_world2pix([[each.ra_deg, each.dec_deg]], 0)[0]
        if each.is_wide:
            ys, xs = np.mgrid[round(y) - _AROUND : round(y) + _AROUND + 1, round(x) - _AROUND : round(x) + _AROUND + 1]
            inside = np.hypot(ys - y, xs - x) <= _AROUND
            found.append(float(pixels[ys[inside], xs[inside]].sum(dtype=np.float64)) / area)
            continue
        ys, xs = np.mgrid[round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5]
        form = np.exp(-(p * (ys - y) ** 2 + q * (xs - x) * (ys - y) + r * (xs - x) ** 2))
        found.append(float((form * pixels[ys, xs]).sum() / (form * form).sum()))
    return np.array(found)


def main(job: dict[str, Any]) -> None:
    """Image a Measurement Set, as the task does."""
    from absurd.tasks.imaging.engines import Recording, engine_named
    from absurd.tasks.imaging.parameters import ImagingParameters
    from absurd.tasks.imaging.products import product_paths, write_products

    parameters = ImagingParameters(**job["parameters"])
    results = engine_named("embedded").image(Recording(job["ms"]), parameters, lambda stage: None)
    write_products(results, product_paths(job["out"], pbcor=parameters.pbcor), pblimit=parameters.pblimit)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
