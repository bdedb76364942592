"""Visibilities of antennas whose gains are known: what the solver finds has a right answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities

Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Scene:
    """What was seen, what is on the sky, and what the antennas did to it."""

    visibilities: Visibilities
    model: NDArray[np.complex64]
    bandpass: Complex
    """(antenna, channel, polarisation)."""
    gain: Complex
    """(time, antenna, polarisation)."""

    @property
    def truth(self) -> Complex:
        """(time, antenna, channel, polarisation)."""
        product: Complex = self.gain[:, :, None, :] * self.bandpass[None]
        return product

    def with_data(self, **changes: Any) -> Scene:
        """The same with other fields of the visibilities."""
        return Scene(self.visibilities.with_(**changes), self.model, self.bandpass, self.gain)


def empty(antennas: int, channels: int, times: int, *, correlations: tuple[str, ...] = ("XX", "YY")) -> Visibilities:
    """A tile of a drift scan, without data: all baselines at all times, each time a field of its own."""
    rng = np.random.default_rng(antennas)
    east_north = np.concatenate([rng.uniform(-1200, 1200, (antennas, 2)), np.zeros((antennas, 1))], axis=1)
    first, second = np.triu_indices(antennas, 1)
    rows = len(first) * times
    shape = (rows, channels, len(correlations))
    time = np.repeat(np.arange(times), len(first))
    middle = 59_000 * 86_400.0
    turn = 2 * np.pi / 86_164 * 12.884902
    centres = tuple(PhaseCentre(f"meridian_icrs_t{each}", 2.0 + turn * each, 0.65) for each in range(times))
    return Visibilities(
        data=np.zeros(shape, np.complex64),
        flags=np.zeros(shape, bool),
        weights=np.broadcast_to(np.float32(1), shape),
        uvw_m=np.tile(east_north[first] - east_north[second], (times, 1)),
        time_s=np.asarray(middle + 12.884902 * (time + 0.5), np.float64),
        exposure_s=np.full(rows, 12.884902),
        antenna1=np.tile(first, times).astype(np.int32),
        antenna2=np.tile(second, times).astype(np.int32),
        field=time.astype(np.int32),
        frequencies_hz=np.asarray(1.28e9 + 244_140.625 * np.arange(channels), np.float64),
        channel_width_hz=np.full(channels, 244_140.625),
        correlations=correlations,
        array=Array(
            "DSA-110",
            tuple(f"pad{each + 1:03d}" for each in range(antennas)),
            east_north,
            4.65,
            np.array([-2_409_150.0, -4_478_573.0, 3_838_617.0]),
        ),
        phase_centres=centres,
    )


def observe(
    visibilities: Visibilities, model: NDArray[np.complex64], *, seed: int, noise: float, drift: float = 0.3
) -> Scene:
    """See `model` through antennas with gains drawn from `seed`: amplitudes of 0.7 to 1.4, any phases.

    `noise` is the standard deviation of a real part, which the weights tell; phases drift by `drift` radians in a
    random walk from one time to the next.
    """
    rng = np.random.default_rng(seed)
    times, number = np.unique(visibilities.time_s, return_inverse=True)
    antennas, channels, hands = len(visibilities.array.names), len(visibilities.frequencies_hz), model.shape[2]
    x = np.linspace(-1, 1, channels)[:, None, None]
    bandpass = (1 + 0.2 * rng.standard_normal((antennas, hands)) * x) * np.exp(
        1j * (rng.standard_normal((antennas, hands)) * x + 0.5 * rng.standard_normal((antennas, hands)) * x**2)
    )
    bandpass = bandpass.transpose(1, 0, 2)
    walk = np.cumsum(drift * rng.standard_normal((len(times), antennas, hands)), axis=0)
    walk += rng.uniform(-np.pi, np.pi, (antennas, hands))
    gain = rng.uniform(0.75, 1.35, (antennas, hands)) * (1 + 0.02 * np.sin(walk)) * np.exp(1j * walk)
    total = gain[:, :, None, :] * bandpass[None]
    data = total[number, visibilities.antenna1] * model * np.conj(total[number, visibilities.antenna2])
    data += noise * (rng.standard_normal(data.shape) + 1j * rng.standard_normal(data.shape))
    weights = np.broadcast_to(np.float32(1 / noise**2 if noise else 1), data.shape)
    return Scene(visibilities.with_(data=data.astype(np.complex64), weights=weights), model, bandpass, gain)


def differences(found: Complex, truth: Complex) -> Complex:
    """Of gains (time, antenna, channel, polarisation), as a share of the truth.

    Phases are compared among antennas, for each time, channel and polarisation; NaN stays.
    """
    turn = np.nansum(found * np.conj(truth), axis=1, keepdims=True)
    return np.asarray(found * np.conj(turn) / np.abs(turn) / truth - 1)


def error(found: Complex, truth: Complex) -> float:
    """Root mean square of `differences`."""
    return float(np.sqrt(np.nanmean(np.abs(differences(found, truth)) ** 2)))
