"""How fast and how right images are made: of a simulated tile whose sky is known, by each imager, in processes."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.bench.figures import Figure
from absurd.bench.spent import Spent, spend

Floats = NDArray[np.float64]
_SEED = 20261130
_NOISE_JY, _SOURCES, _FAINTEST, _BRIGHTEST = 0.5, 50, 1e-3, 10.0
_OUTER = 15
"""Antennas around the T of the others."""
_SECONDS = 3600.0


def measure(
    *, rounds: int, size: int, antennas: int, channels: int, times: int, tell: Callable[[str], None]
) -> list[list[Figure]]:
    """Figures of each round: time, memory, noise, dynamic range and errors of fluxes, by imager.

    A drift scan of an array of the scale of DSA-110, with 50 sources of 1 mJy to 10 Jy behind a beam that stands still,
    and 0.5 Jy of noise in each part of a visibility; one Measurement Set is imaged by the embedded imager, and by
    WSClean's w-gridder where it is installed, with the same parameters.
    """
    with tempfile.TemporaryDirectory(prefix="absurd_bench_") as name:
        folder = Path(name)
        tell(f"Simulating {antennas} antennas, {channels} channels, {times} times")
        truth, job = _simulate(folder / "tile.ms", size, antennas, channels, times)
        commands = {"embedded": [sys.executable, "-m", "absurd.bench.imaging", json.dumps(job)]}
        spend(_compile(job), os.environ, _SECONDS)
        if program := shutil.which("wsclean"):
            from absurd.tasks.imaging.engines.wsclean import arguments_of, options
            from absurd.tasks.imaging.parameters import ImagingParameters

            arguments = arguments_of(ImagingParameters(**job["parameters"], mgain=0.8), options(program))
            stem = str(folder / "wsclean")
            commands["WSClean"] = [program, *arguments, "-temp-dir", name, "-name", stem, str(folder / "tile.ms")]
        found = []
        for number in range(rounds):
            figures: list[Figure] = []
            beam = thermal = None
            for imager, command in commands.items():
                shape: list[str] = (
                    [] if beam is None else ["-beam-shape", *beam]
                )  # its own fit of a snapshot's beam may be off
                spent = spend([command[0], *shape, *command[1:]] if shape else command, os.environ, _SECONDS)
                if spent.code:
                    raise RuntimeError(f"{imager} ended with code {spent.code}: {spent.told}")
                if beam is None:
                    beam, thermal = _beam_of(Path(job["out"] + "-image.fits"))
                stem = job["out"] if imager == "embedded" else str(folder / "wsclean")
                figures += _figures(imager, spent, stem, truth, thermal or math.nan)
            found.append(figures)
            tell(f"Round {number + 1} of {rounds}: " + "; ".join(f"{e.name} {e.value:,.4g} {e.unit}" for e in figures))
        return found


def _compile(job: dict[str, Any]) -> list[str]:
    """The same of a small image, so that no round is the first to compile."""
    small = {**job, "parameters": {**job["parameters"], "image_size": 256}, "out": job["out"] + "-small"}
    return [sys.executable, "-m", "absurd.bench.imaging", json.dumps(small)]


def _simulate(
    place: Path, size: int, antennas: int, channels: int, times: int
) -> tuple[list[tuple[float, float, float]], dict[str, Any]]:
    """The sources, with the mean of what is received of each: right ascension, declination (degrees), Jy."""
    from absurd.tasks.calibration.predict import predict
    from absurd.tasks.calibration.sky_model import Component, SkyModel, separation_rad
    from absurd.tasks.radio.beam import beam_named
    from absurd.tasks.radio.telescope import geocentric_m, load_telescope
    from absurd.tasks.visibility.measurement_set import write_measurement_set
    from absurd.tasks.visibility.uvw import meridian_centres, phase_to, uvw_m
    from absurd.tasks.visibility.visibilities import Array, Visibilities

    rng = np.random.default_rng(_SEED)
    telescope = load_telescope("dsa110")
    arms = np.arange(antennas - _OUTER)
    east = np.where(arms % 2, 0.0, 5.74 * (arms // 2 - len(arms) // 4))
    north = np.where(arms % 2, -8.65 * (arms // 2), 0.0)
    outer = rng.uniform(-1300, 1300, (2, _OUTER))
    positions = geocentric_m(
        telescope.latitude_deg + np.append(north, outer[1]) / 111_000,
        telescope.longitude_deg + np.append(east, outer[0]) / 88_700,
        np.full(antennas, telescope.height_m),
    )
    names = tuple(f"a{each:03d}" for each in range(antennas))
    array = Array(telescope.casa_name, names, positions, telescope.dish_diameter_m, telescope.position_m)
    first, second = np.triu_indices(antennas, 1)
    moments = 61_055.35 * 86_400 + telescope.integration_s * np.arange(times)
    centres = meridian_centres(moments, math.radians(54.6), array)
    one, two = (np.tile(each, times).astype(np.int32) for each in (first, second))
    field, time = np.repeat(np.arange(times, dtype=np.int32), len(first)), np.repeat(moments, len(first))
    frequencies = np.asarray(np.linspace(1.3e9, 1.5e9, channels), np.float64)
    shape = len(time), channels, 2
    seen = Visibilities(
        data=np.zeros(shape, np.complex64), flags=np.zeros(shape, np.bool_),
        weights=np.broadcast_to(np.float32(_NOISE_JY**-2), shape),
        uvw_m=uvw_m(array, one, two, time, field, centres), time_s=time,
        exposure_s=np.full(len(time), telescope.integration_s), antenna1=one, antenna2=two, field=field,
        frequencies_hz=frequencies, channel_width_hz=np.full(channels, 2e8 / channels), correlations=("XX", "YY"),
        array=array, phase_centres=centres,
    )  # fmt: skip
    middle = centres[times // 2]
    reach = math.radians(0.875 * size / 2 * 3 / 3600)
    places = rng.uniform(-reach, reach, (_SOURCES, 2))
    fluxes = np.geomspace(_FAINTEST, _BRIGHTEST, _SOURCES)
    sky = SkyModel(
        tuple(
            Component(f"{n}", middle.ra_rad + x / math.cos(middle.dec_rad + y), middle.dec_rad + y, float(flux))
            for n, ((x, y), flux) in enumerate(zip(places, fluxes, strict=True))
        )
    )
    beam = beam_named("gaussian", telescope.dish_diameter_m)
    data = predict(seen, sky, beam=beam)[:, :, :1].repeat(2, axis=2)
    for rows in np.array_split(np.arange(len(data)), times):
        noise = rng.standard_normal((len(rows), channels, 2, 2), np.float32) * np.float32(_NOISE_JY)
        data[rows] += noise.view(np.complex64)[..., 0]
    # One phase centre, which every imager can do with.
    write_measurement_set(phase_to(replace(seen, data=data), middle.ra_rad, middle.dec_rad), place)
    truth = []
    for each in sky:
        axes = np.array([[c.ra_rad, c.dec_rad] for c in centres])
        apart = separation_rad(axes[:, 0], axes[:, 1], np.array(each.ra_rad), np.array(each.dec_rad))
        mean = float(beam.power(apart[:, None], frequencies[None]).mean())
        truth.append((math.degrees(each.ra_rad), math.degrees(each.dec_rad), each.flux_jy * mean))
    parameters = {"image_size": size, "cell_size": "3arcsec", "robust": 0.0, "niter": 5000, "threshold": "1mJy",
                  "deconvolver": "clark"}  # fmt: skip
    return truth, {"ms": str(place), "out": str(place.with_name("own")), "parameters": parameters}


def _beam_of(path: Path) -> tuple[list[str], float]:
    from astropy.io import fits

    header = fits.getheader(path)
    sizes = [f"{3600 * header[key]:.4f}asec" for key in ("BMAJ", "BMIN")]
    return [*sizes, f"{header['BPA']:.4f}deg"], float(header["THERMAL"])


def _figures(
    imager: str, spent: Spent, stem: str, truth: Sequence[tuple[float, float, float]], thermal: float
) -> list[Figure]:
    from astropy.io import fits

    with fits.open(f"{stem}-residual.fits") as units:
        rms = float(np.sqrt(np.mean(np.square(units[0].data, dtype=np.float64))))
    measured, wanted = _fluxes(Path(f"{stem}-image.fits"), truth), np.array([each[2] for each in truth])
    errors = 100 * np.abs(measured / wanted - 1)
    bright, middling = wanted > 0.1, (wanted > 0.01) & (wanted <= 0.1)
    rows = [
        ("wall", spent.wall, "s", False),
        ("processor", spent.cpu, "s", False),
        ("memory", spent.peak / 2**30, "GiB", False),
        ("residual", 1e3 * rms, "mJy", False),
        ("residual over thermal noise", rms / thermal, "", False),
        ("dynamic range", float(measured.max()) / rms, "", True),
        ("error above 100 mJy, median", float(np.median(errors[bright])), "%", False),
        ("error above 100 mJy, worst", float(errors[bright].max()), "%", False),
        ("error of 10 to 100 mJy, median", float(np.median(errors[middling])), "%", False),
    ]
    return [Figure(f"{imager}, {name}", value, unit, higher=higher) for name, value, unit, higher in rows]


def _fluxes(path: Path, truth: Sequence[tuple[float, float, float]]) -> Floats:
    """Of sources at known places: the beam fitted to what lies within its width."""
    from astropy.io import fits
    from astropy.wcs import WCS

    from absurd.tasks.imaging.beam_fit import RestoringBeam

    with fits.open(path) as units:
        header, pixels = units[0].header, np.squeeze(units[0].data)
    beam = RestoringBeam(*(math.radians(header[key]) for key in ("BMAJ", "BMIN", "BPA")))
    p, q, r = beam.form(math.radians(header["CDELT2"]))
    sky = WCS(header).celestial
    found = []
    for ra, dec, _ in truth:
        x, y = sky.wcs_world2pix([[ra, dec]], 0)[0]
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
