"""How fast and how right gains are solved: of a simulated tile whose gains are known, by each engine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.bench.figures import Figure
from absurd.tasks.calibration.calibrator import CalibratorSolution
from absurd.tasks.calibration.engines import Engine, engine_named
from absurd.tasks.calibration.predict import predict
from absurd.tasks.calibration.settings import CalibratorSettings, GainSettings
from absurd.tasks.calibration.sky_model import Component, SkyModel
from absurd.tasks.radio.beam import beam_named
from absurd.tasks.radio.telescope import geocentric_m, load_telescope
from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities

Complex = NDArray[np.complex128]
_SEED = 20261129
_NOISE_JY, _CALIBRATOR_JY, _SOURCES = 0.5, 10.0, 30
_INTERFERENCE_JY, _SHARE, _DEAD = 300.0, 0.1, (0, 20)
_EACH = CalibratorSettings(
    phase=GainSettings(mode="p", interval_s=0, reference=("a000",)),
    bandpass=GainSettings(min_snr=5, normalise=True, reference=("a000",)),
    gain=GainSettings(interval_s=0, reference=("a000",)),
)


def measure(
    *, rounds: int, antennas: int, channels: int, times: int, casa: str | None, tell: Callable[[str], None]
) -> list[list[Figure]]:
    """Figures of each round: seconds of a solve, and errors of the gains in per cent, by engine.

    A calibrator of 10 Jy and 30 sources are seen through the beam of a drift scan, with a bandpass, gains that change
    with each integration, and 0.5 Jy of noise; the embedded engine solves once more with a tenth of interference and
    two dead antennas, of which one is the reference.  `casa` is a Python that has casatasks, which then solves the same
    Measurement Set, in a temporary folder.
    """
    tell(f"Simulating {antennas} antennas, {channels} channels, {times} times")
    seen, model, truth = _tile(antennas, channels, times)
    disturbed = _disturbed(seen)
    engine_named("embedded").solve(seen, model, _EACH)  # compiled, if it has not been yet
    found = []
    with tempfile.TemporaryDirectory(prefix="absurd_bench_") as name:
        engines: dict[str, Engine] = {"embedded": engine_named("embedded")}
        place = Path(name) / "tile.ms"
        if casa:
            from absurd.tasks.visibility.measurement_set import write_measurement_set

            write_measurement_set(seen, place, model=np.array(model))
            engines["casa"] = engine_named("casatasks", python=casa)
        for number in range(rounds):
            figures: list[Figure] = []
            for each, engine in engines.items():
                figures += _figures(each, engine, seen, model, truth, place)
            figures += _figures("embedded, disturbed", engines["embedded"], disturbed, model, truth, place)
            found.append(figures)
            tell(f"Round {number + 1} of {rounds}: " + _told(figures))
    return found


def _figures(
    name: str, engine: Engine, seen: Visibilities, model: NDArray[Any], truth: Complex, place: Path
) -> Sequence[Figure]:
    began = time.perf_counter()
    solution = engine.solve(seen, model, _EACH, measurement_set=place)
    seconds = time.perf_counter() - began
    return [
        Figure(f"{name}, solve", seconds, "s", higher=False),
        Figure(f"{name}, error of gains", 100 * _error(solution, truth), "%", higher=False),
    ]


def _error(found: CalibratorSolution, truth: Complex) -> float:
    """Root mean square of what is solved, as a share of the truth; phases among antennas."""
    lost = found.bandpass.flags | found.gain.flags
    product = np.where(lost, 0, found.bandpass.values * found.gain.values)
    turn = np.sum(product * np.conj(truth), axis=1, keepdims=True)
    size = np.abs(turn)
    off = product * np.where(size > 0, np.conj(turn) / np.where(size > 0, size, 1), 1) / truth - 1
    return float(np.sqrt(np.mean(np.abs(off[~lost]) ** 2)))


def _tile(antennas: int, channels: int, times: int) -> tuple[Visibilities, NDArray[np.complex64], Complex]:
    """Visibilities, their model, and the gains (time, antenna, channel, polarisation)."""
    rng = np.random.default_rng(_SEED)
    telescope = load_telescope("dsa110")
    first, second = np.triu_indices(antennas, 1)
    rows, time_number = len(first) * times, np.repeat(np.arange(times), len(first))
    shape = (rows, channels, 2)
    east_north = np.concatenate([rng.uniform(-1200, 1200, (antennas, 2)), np.zeros((antennas, 1))], axis=1)
    places = geocentric_m(
        telescope.latitude_deg + east_north[:, 1] / 111_000,
        telescope.longitude_deg + east_north[:, 0] / 88_000,
        np.full(antennas, telescope.height_m),
    )
    step = 2 * np.pi / 86_164 * telescope.integration_s
    centres = tuple(PhaseCentre(f"meridian_icrs_t{each}", 2.0 + step * each, 0.65) for each in range(times))
    empty = Visibilities(
        data=np.zeros(shape, np.complex64),
        flags=np.zeros(shape, bool),
        weights=np.broadcast_to(np.float32(_NOISE_JY**-2), shape),
        uvw_m=np.tile(east_north[first] - east_north[second], (times, 1)),
        time_s=np.asarray(59_000 * 86_400.0 + telescope.integration_s * (time_number + 0.5), np.float64),
        exposure_s=np.full(rows, telescope.integration_s),
        antenna1=np.tile(first, times).astype(np.int32),
        antenna2=np.tile(second, times).astype(np.int32),
        field=time_number.astype(np.int32),
        frequencies_hz=np.asarray(
            telescope.band.lowest_hz + telescope.band.channel_width_hz * np.arange(channels), np.float64
        ),
        channel_width_hz=np.full(channels, telescope.band.channel_width_hz),
        correlations=("XX", "YY"),
        array=Array(
            telescope.casa_name, tuple(f"a{each:03d}" for each in range(antennas)), places,
            telescope.dish_diameter_m, telescope.position_m,
        ),
        phase_centres=centres,
    )  # fmt: skip
    middle = centres[times // 2]
    sky = [Component("calibrator", middle.ra_rad, middle.dec_rad, _CALIBRATOR_JY)]
    for each in range(_SOURCES):
        ra, dec = middle.ra_rad + rng.uniform(-0.02, 0.02), middle.dec_rad + rng.uniform(-0.015, 0.015)
        sky.append(Component(f"{each}", ra, dec, float(10 ** rng.uniform(-2, -0.3)), 1.4e9, (-0.7,)))
    model = predict(empty, SkyModel(tuple(sky)), beam=beam_named("airy", telescope.dish_diameter_m))
    x = np.linspace(-1, 1, channels)[:, None]
    slope, bend = rng.standard_normal((2, antennas, 1, 2))
    bandpass = (1 + 0.2 * slope * x) * np.exp(1j * (slope * x + 0.5 * bend * x**2))
    walk = np.cumsum(0.3 * rng.standard_normal((times, antennas, 1, 2)), axis=0)
    truth = rng.uniform(0.75, 1.35, (antennas, 1, 2)) * bandpass * np.exp(1j * walk)
    data = truth[time_number, empty.antenna1] * model * np.conj(truth[time_number, empty.antenna2])
    data += _NOISE_JY * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    return replace(empty, data=data.astype(np.complex64)), model, truth


def _disturbed(seen: Visibilities) -> Visibilities:
    """A tenth of the baselines, times and channels have interference, of any phase, in both polarisations.

    Two antennas are dead, among them the one that is to be the reference.
    """
    rng = np.random.default_rng(_SEED + 1)
    hit = rng.random((*seen.data.shape[:2], 1)) < _SHARE
    burst = _INTERFERENCE_JY * np.exp(2j * np.pi * rng.random(seen.data.shape))
    dead = np.isin(seen.antenna1, _DEAD) | np.isin(seen.antenna2, _DEAD)
    data = np.where(dead[:, None, None], 0, seen.data + np.where(hit, burst, 0)).astype(np.complex64)
    return replace(seen, data=data, flags=seen.flags | dead[:, None, None])


def _told(figures: Sequence[Figure]) -> str:
    return "; ".join(f"{each.name} {each.value:,.3g} {each.unit}" for each in figures)
