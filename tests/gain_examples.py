"""Gains and visibilities with known answers, for tests of what stores and applies them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.gains import Gains, Kind
from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities

T0 = 5.3e9
"""Seconds of UTC since MJD 0, in 2026."""
LOWEST, WIDTH = 1.28e9, 1.0e6
"""Centre of the lowest channel and width of each, Hz."""


def array_of(antennas: int) -> Array:
    """Antennas in a row, 20 m apart."""
    names = tuple(f"pad{number:03d}" for number in range(antennas))
    centre = np.array([-2409466.0, -4477744.0, 3839086.0])
    places = centre + np.outer(np.arange(antennas), [10.0, -15.0, 8.0])
    return Array("OVRO_MMA", names, places, 4.65, centre)


def make_gains(
    kind: Kind = "gain",
    *,
    seed: int = 1,
    antennas: int = 5,
    channels: int = 8,
    times: int = 3,
    step_s: float = 100.0,
    flagged: float = 0.0,
    start_s: float = T0,
) -> Gains:
    """Random gains of amplitudes 0.5 to 2 and any phase; a part of them flagged."""
    random = np.random.default_rng(seed)
    shape = (times, antennas, channels if kind == "bandpass" else 1, 2)
    values = random.uniform(0.5, 2, shape) * np.exp(1j * random.uniform(-np.pi, np.pi, shape))
    flags = random.random(shape) < flagged
    if kind == "delay":
        values = random.uniform(-5e-9, 5e-9, shape).astype(np.complex128)
    values[flags] = 0 if kind == "delay" else 1
    centres = LOWEST + WIDTH * np.arange(channels, dtype=np.float64)
    names = array_of(antennas).names
    return Gains(
        kind=kind,
        values=values,
        flags=flags,
        snr=np.where(flags, 0, random.uniform(5, 50, shape)).astype(np.float32),
        time_s=start_s + step_s * np.arange(times, dtype=np.float64),
        interval_s=np.full(times, step_s),
        frequencies_hz=centres if kind == "bandpass" else np.array([centres.mean()], np.float64),
        polarisations=("X", "Y"),
        antennas=names,
        reference=(names[0],) * times,
        source="3C48",
        ra_rad=0.42,
        dec_rad=0.57,
        warnings=("antenna pad004 is weak",),
        chi_squared=1.1,
    )


def make_visibilities(
    *,
    seed: int = 2,
    antennas: int = 5,
    channels: int = 8,
    times: NDArray[np.float64] | None = None,
    correlations: tuple[str, ...] = ("XX", "XY", "YX", "YY"),
    flagged: float = 0.0,
) -> Visibilities:
    """Noise on every baseline, autocorrelations too, at these times (seconds since MJD 0)."""
    random = np.random.default_rng(seed)
    moments = T0 + np.array([-40.0, 0, 37, 100, 140, 230]) if times is None else times
    one, other = np.triu_indices(antennas)
    rows = len(one) * len(moments)
    shape = (rows, channels, len(correlations))
    data = (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(np.complex64)
    return Visibilities(
        data=data,
        flags=random.random(shape) < flagged,
        weights=random.uniform(0.5, 2, shape).astype(np.float32),
        uvw_m=random.normal(size=(rows, 3)),
        time_s=np.repeat(moments, len(one)),
        exposure_s=np.full(rows, 10.0),
        antenna1=np.tile(one, len(moments)).astype(np.int32),
        antenna2=np.tile(other, len(moments)).astype(np.int32),
        field=np.zeros(rows, np.int32),
        frequencies_hz=LOWEST + WIDTH * np.arange(channels, dtype=np.float64),
        channel_width_hz=np.full(channels, WIDTH),
        correlations=correlations,
        array=array_of(antennas),
        phase_centres=(PhaseCentre("3C48", 0.42, 0.57),),
    )


def observe(
    start_s: float, declination_deg: float, *, flux_jy: float = 12.0, noise_jy: float = 0.3, seed: int = 7
) -> Visibilities:
    """A point at the phase centre, seen with fixed gains and bandpass: 6 integrations of 10 s, XX and YY."""
    from absurd.tasks.calibration.apply import unapply_gains

    random = np.random.default_rng([seed, int(start_s)])
    empty = make_visibilities(
        antennas=6, times=start_s + 10.0 * np.arange(6, dtype=np.float64), correlations=("XX", "YY")
    )
    shape = empty.data.shape
    source = np.full(shape, flux_jy, np.complex64)
    noise = random.normal(scale=noise_jy, size=shape) + 1j * random.normal(scale=noise_jy, size=shape)
    band, gain = make_gains("bandpass", seed=seed, antennas=6, times=1), make_gains(seed=seed, antennas=6, times=1)
    x = np.linspace(-1, 1, band.values.shape[2])[:, None]
    band.values[:] = (1 + 0.1 * x) * np.exp(0.5j * x**2 * np.arange(1, 7)[:, None, None] / 6)
    model = empty.with_(
        data=source,
        weights=np.full(shape, noise_jy**-2, np.float32),
        uvw_m=np.zeros((len(source), 3)),
        phase_centres=(PhaseCentre("3C48", 0.42, float(np.radians(declination_deg))),),
    )
    seen = unapply_gains(model, band, gain, calwt=False).visibilities
    return seen.with_(data=(seen.data + noise).astype(np.complex64))
