"""Drift scans whose sky is known, for the benchmark of imagers: as Measurement Sets with one phase centre."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.apply import apply_gains
from absurd.tasks.calibration.calibrator import solve_calibrator
from absurd.tasks.calibration.predict import predict
from absurd.tasks.calibration.settings import CalibratorSettings, GainSettings
from absurd.tasks.calibration.sky_model import Component, SkyModel, separation_rad
from absurd.tasks.radio.beam import Beam, beam_named
from absurd.tasks.radio.telescope import geocentric_m, load_telescope
from absurd.tasks.visibility.measurement_set import write_measurement_set
from absurd.tasks.visibility.uvw import meridian_centres, phase_to, uvw_m
from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]
KINDS = ("plain", "solved", "extended", "chromatic")
CELL_ARCSEC = 3.0
_SEED = 20261130
_NOISE_JY, _SOURCES, _FAINTEST, _BRIGHTEST, _CALIBRATOR_JY = 0.5, 50, 1e-3, 10.0, 10.0
_BAND_HZ = 1.3e9, 1.5e9
_OUTER = 15
"""Antennas around the T of the others."""
_WIDE = range(30, 50, 4)
"""Sources that are three beams wide on an extended sky, by their place from the faintest to the brightest."""
_WIDTH_ARCSEC = 60.0
_SOLUTION = GainSettings(reference=("a000",))
_HOW = CalibratorSettings(
    phase=replace(_SOLUTION, mode="p"), bandpass=replace(_SOLUTION, min_snr=5, normalise=True), gain=_SOLUTION
)


class Source(NamedTuple):
    """What is received of a source in the mean of times."""

    ra_deg: float
    dec_deg: float
    by_channel_jy: Floats
    """(channel,)."""
    is_wide: bool

    def flux_jy(self, frequency_hz: float) -> float:
        """In the mean of channels, by weights that rise or fall evenly so that their mean frequency is that one.

        Weights of images differ from channel to channel, and what is received does too, by the beam and the spectrum.
        """
        away = np.linspace(*_BAND_HZ, len(self.by_channel_jy)) - np.mean(_BAND_HZ)
        weights = 1 + away * (frequency_hz - np.mean(_BAND_HZ)) / np.mean(away**2)
        return float(np.average(self.by_channel_jy, weights=weights))


def simulate(place: Path, kind: str, *, size: int, antennas: int, channels: int, times: int) -> list[Source]:
    """Write the Measurement Set of a tile, and tell its sources.

    50 of 1 mJy to 10 Jy lie within an image of `size` pixels, behind a beam that stands still while they drift, with
    0.5 Jy of noise in each part of a visibility.  Of ``solved`` antennas have gains and bandpasses of their own, which
    are solved on a recording of a calibrator of 10 Jy and taken off; of ``extended`` five sources are Gaussians of a
    minute of arc; of ``chromatic`` all have spectra.
    """
    rng = np.random.default_rng(_SEED)
    empty = _empty(rng, antennas, channels, times)
    middle = empty.phase_centres[times // 2]
    reach = math.radians(0.875 * size / 2 * CELL_ARCSEC / 3600)
    sky = _sky(rng, middle, reach, kind)
    beam = beam_named("gaussian", empty.array.dish_diameter_m)
    seen = _seen(rng, empty, sky, beam)
    if kind == "solved":
        gains = _gains(rng, antennas, channels)
        calibrator = SkyModel((Component("calibrator", middle.ra_rad, middle.dec_rad, _CALIBRATOR_JY),))
        noise = _seen(rng, empty, SkyModel(()), beam)
        model = predict(empty, calibrator, beam=beam)
        solved = solve_calibrator(noise.with_(data=noise.data + _disturbed(empty, model, gains)), model, _HOW)
        # What receivers add is not changed by gains: it is added to a sky that was.
        true = predict(empty, sky, beam=beam)
        corrupted = seen.with_(data=seen.data - true + _disturbed(empty, true, gains))
        seen = apply_gains(corrupted, solved.bandpass, solved.gain).visibilities
    write_measurement_set(phase_to(seen, middle.ra_rad, middle.dec_rad), place)
    return [_received(each, empty, beam) for each in sky]


def _empty(rng: np.random.Generator, antennas: int, channels: int, times: int) -> Visibilities:
    """A T of antennas and some around, all their baselines at all times, without data."""
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
    shape = len(time), channels, 2
    return Visibilities(
        data=np.broadcast_to(np.complex64(0), shape), flags=np.zeros(shape, np.bool_),
        weights=np.broadcast_to(np.float32(_NOISE_JY**-2), shape),
        uvw_m=uvw_m(array, one, two, time, field, centres), time_s=time,
        exposure_s=np.full(len(time), telescope.integration_s), antenna1=one, antenna2=two, field=field,
        frequencies_hz=np.asarray(np.linspace(*_BAND_HZ, channels), np.float64),
        channel_width_hz=np.full(channels, np.ptp(_BAND_HZ) / channels), correlations=("XX", "YY"),
        array=array, phase_centres=centres,
    )  # fmt: skip


def _sky(rng: np.random.Generator, middle: PhaseCentre, reach: float, kind: str) -> SkyModel:
    places = rng.uniform(-reach, reach, (_SOURCES, 2))
    fluxes = np.geomspace(_FAINTEST, _BRIGHTEST, _SOURCES)
    indices = np.random.default_rng(_SEED + 1).normal(-0.7, 0.5, _SOURCES)
    width = math.radians(_WIDTH_ARCSEC / 3600)
    made = []
    for n, ((x, y), flux) in enumerate(zip(places, fluxes, strict=True)):
        each = Component(f"{n}", middle.ra_rad + x / math.cos(middle.dec_rad + y), middle.dec_rad + y, float(flux))
        if kind == "extended" and n in _WIDE:
            each = replace(each, major_rad=width, minor_rad=width)
        if kind == "chromatic":
            each = replace(each, reference_hz=1.4e9, spectrum=(float(indices[n]),))
        made.append(each)
    return SkyModel(tuple(made))


def _seen(rng: np.random.Generator, empty: Visibilities, sky: SkyModel, beam: Beam) -> Visibilities:
    """A sky with noise, alike in both polarisations."""
    shape = empty.data.shape
    data = predict(empty, sky, beam=beam)[:, :, :1].repeat(2, axis=2) if len(sky) else np.zeros(shape, np.complex64)
    for rows in np.array_split(np.arange(len(data)), len(empty.phase_centres)):
        noise = rng.standard_normal((len(rows), *shape[1:], 2), np.float32) * np.float32(_NOISE_JY)
        data[rows] += noise.view(np.complex64)[..., 0]
    return replace(empty, data=data)


def _gains(rng: np.random.Generator, antennas: int, channels: int) -> Complex:
    """(antenna, channel, polarisation): amplitudes of 0.75 to 1.35, any phase, and a slope and a bend of both."""
    x = np.linspace(-1, 1, channels)[:, None]
    slope, bend = rng.standard_normal((2, antennas, 1, 2))
    turn = rng.uniform(0, math.tau, (antennas, 1, 2))
    bandpass = (1 + 0.2 * np.tanh(slope) * x) * np.exp(1j * (turn + slope * x + 0.5 * bend * x**2))
    gains: Complex = rng.uniform(0.75, 1.35, (antennas, 1, 2)) * bandpass
    return gains


def _disturbed(empty: Visibilities, model: NDArray[np.complex64], gains: Complex) -> NDArray[np.complex64]:
    """A model as antennas with gains see it."""
    made = np.empty(empty.data.shape, np.complex64)
    for rows in np.array_split(np.arange(len(made)), len(empty.phase_centres)):
        made[rows] = gains[empty.antenna1[rows]] * model[rows] * np.conj(gains[empty.antenna2[rows]])
    return made


def _received(each: Component, empty: Visibilities, beam: Beam) -> Source:
    axes = np.array([[centre.ra_rad, centre.dec_rad] for centre in empty.phase_centres])
    apart = separation_rad(axes[:, 0], axes[:, 1], np.array(each.ra_rad), np.array(each.dec_rad))
    frequencies = empty.frequencies_hz
    mean = (beam.power(apart[:, None], frequencies[None]) * each.flux_at(frequencies)).mean(axis=0)
    return Source(math.degrees(each.ra_rad), math.degrees(each.dec_rad), mean, each.major_rad > 0)
