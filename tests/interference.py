"""Recordings with interference of which it is known where it is: noise, sources that drift, a band's shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.visibility.visibilities import Array, PhaseCentre, Visibilities

C = 299_792_458.0
PLACE = np.array([-2_409_150.4, -4_478_573.1, 3_838_617.3])
TURN = 2 * np.pi / 86_164.0905
"""Of the sky, radians a second."""
Mask = NDArray[np.bool_]
Inject = Callable[[np.random.Generator, NDArray[np.complex64]], Mask]
"""Adds interference to waterfalls of noise 1, (baseline, time, channel, correlation), and tells where."""


@dataclass(frozen=True)
class Sky:
    """A point source: Jy, and where it is when the recording begins, direction cosines."""

    flux: float
    l: float = 0.0  # noqa: E741
    m: float = 0.0


def recording(
    *,
    antennas: int = 8,
    times: int = 24,
    channels: int = 192,
    correlations: tuple[str, ...] = ("XX", "YY"),
    noise: float = 1.0,
    sky: Sequence[Sky] = (),
    autos: bool = False,
    shape: NDArray[np.float64] | None = None,
    integration_s: float = 12.884902,
    seed: int = 0,
) -> Visibilities:
    """A recording as it comes: all baselines of a time, then those of the next.

    Noise is the standard deviation of real and of imaginary parts, Jy.  The antennas stand still and the phase centre
    with them, so that sources drift as they do over an array on the meridian.  `shape`, (channel,), is the gain of
    amplitudes over the band.
    """
    random = np.random.default_rng(seed)
    frequencies = np.asarray(1311.25e6 + 244_140.625 * (np.arange(channels) + 0.5), np.float64)
    places = np.zeros((antennas, 3))
    places[:, :2] = random.uniform(-700, 700, (antennas, 2))
    pairs = [(p, q) for p in range(antennas) for q in range(p + (not autos), antennas)]
    first, second = (np.array(each, np.int32) for each in zip(*pairs, strict=True))
    baselines = len(pairs)
    data = (noise * random.standard_normal((times, baselines, channels, 2 * len(correlations)), np.float32)).view(
        np.complex64
    )
    uvw = places[first] - places[second]
    time_s = 5.0e9 + integration_s * np.arange(times)
    for each in sky:
        hour = each.l + TURN * (time_s - time_s[0])
        path = uvw[None, :, 0] * hour[:, None] + uvw[None, :, 1] * each.m
        data += (each.flux * np.exp(2j * np.pi * path[..., None] * frequencies / C)).astype(np.complex64)[..., None]
    if shape is not None:
        data *= shape.astype(np.float32)[:, None]
    rows = times * baselines
    return Visibilities(
        data=data.reshape(rows, channels, len(correlations)),
        flags=np.zeros((rows, channels, len(correlations)), np.bool_),
        weights=np.full((rows, channels, len(correlations)), 1 / max(noise, 1e-9) ** 2, np.float32),
        uvw_m=np.tile(uvw, (times, 1)),
        time_s=np.repeat(time_s, baselines),
        exposure_s=np.full(rows, integration_s),
        antenna1=np.tile(first, times),
        antenna2=np.tile(second, times),
        field=np.zeros(rows, np.int32),
        frequencies_hz=frequencies,
        channel_width_hz=np.full(channels, 244_140.625),
        correlations=correlations,
        array=Array(
            "DSA-110",
            tuple(f"pad{number:03d}" for number in range(antennas)),
            places + PLACE,
            4.65,
            PLACE,
        ),
        phase_centres=(PhaseCentre("meridian", 0.0, 0.65),),
    )


def waterfalls_of(visibilities: Visibilities, values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Values, (row, channel, correlation), of a `recording` as (baseline, time, channel, correlation)."""
    times = len(np.unique(visibilities.time_s))
    return values.reshape(times, -1, *values.shape[1:]).swapaxes(0, 1)


def interfered(
    visibilities: Visibilities, inject: Inject, *, noise: float = 1.0, seed: int = 1
) -> tuple[Visibilities, Mask]:
    """The recording with interference, and where that is, (row, channel, correlation)."""
    random = np.random.default_rng(seed)
    data = visibilities.data / np.float32(noise)
    planes = np.ascontiguousarray(waterfalls_of(visibilities, data)).astype(np.complex64)
    mask = inject(random, planes)
    shape = visibilities.data.shape
    back = np.ascontiguousarray(planes.swapaxes(0, 1)).reshape(shape) * np.float32(noise)
    return visibilities.with_(data=back), np.ascontiguousarray(mask.swapaxes(0, 1)).reshape(shape)


def _add(random: np.random.Generator, data: NDArray[np.complex64], mask: Mask, where: Any, amplitude: Any) -> None:
    """Interference of that amplitude, in standard deviations of the noise; its phase is one for each baseline."""
    phase = np.exp(2j * np.pi * random.random((data.shape[0], 1, 1, 1)))
    added = np.zeros(data.shape[1:3], np.float64)
    added[where] = amplitude
    data += (phase * added[None, :, :, None]).astype(np.complex64)
    mask |= (added != 0)[None, :, :, None]


def carriers(random: np.random.Generator, data: NDArray[np.complex64]) -> Mask:
    """Narrow band: three channels at all times, amplitudes 2 to 10."""
    mask = np.zeros(data.shape, np.bool_)
    for channel in random.choice(data.shape[2], 3, replace=False):
        _add(random, data, mask, (slice(None), channel), random.uniform(2, 10))
    return mask


def broad(random: np.random.Generator, data: NDArray[np.complex64]) -> Mask:
    """Broad band: a third of the channels for three times, amplitude 2."""
    mask = np.zeros(data.shape, np.bool_)
    time = random.integers(2, data.shape[1] - 5)
    channel = random.integers(0, data.shape[2] * 2 // 3)
    _add(random, data, mask, (slice(time, time + 3), slice(channel, channel + data.shape[2] // 3)), 2.0)
    return mask


def bursts(random: np.random.Generator, data: NDArray[np.complex64]) -> Mask:
    """Bursts: all channels at two single times, amplitude 3."""
    mask = np.zeros(data.shape, np.bool_)
    for time in random.choice(data.shape[1], 2, replace=False):
        _add(random, data, mask, (time, slice(None)), 3.0)
    return mask


def ramps(random: np.random.Generator, data: NDArray[np.complex64]) -> Mask:
    """Ramps: eight channels whose amplitude grows from 0 to 8 over two thirds of the time."""
    mask = np.zeros(data.shape, np.bool_)
    length = data.shape[1] * 2 // 3
    channel = random.integers(0, data.shape[2] - 8)
    slope = np.linspace(8 / length, 8, length)[:, None]
    _add(random, data, mask, (slice(2, 2 + length), slice(channel, channel + 8)), slope)
    return mask


def sweeps(random: np.random.Generator, data: NDArray[np.complex64]) -> Mask:
    """Sweeps: a carrier three channels wide that moves by four channels a time, amplitude 5."""
    mask = np.zeros(data.shape, np.bool_)
    start = random.integers(0, data.shape[2] - 4 * data.shape[1] - 3)
    for time in range(data.shape[1]):
        _add(random, data, mask, (time, slice(start + 4 * time, start + 4 * time + 3)), 5.0)
    return mask


def faint(random: np.random.Generator, data: NDArray[np.complex64]) -> Mask:
    """Faint: sixteen channels for eight times, amplitude 1, on all baselines."""
    mask = np.zeros(data.shape, np.bool_)
    time, channel = random.integers(4, data.shape[1] - 12), random.integers(0, data.shape[2] - 16)
    _add(random, data, mask, (slice(time, time + 8), slice(channel, channel + 16)), 1.0)
    return mask


def spikes(random: np.random.Generator, data: NDArray[np.complex64]) -> Mask:
    """Spikes: one visibility in a thousand, each by itself, amplitude 20."""
    mask = random.random(data.shape) < 1e-3
    data[mask] += (20 * np.exp(2j * np.pi * random.random(int(mask.sum())))).astype(np.complex64)
    return mask


KINDS: dict[str, Inject] = {each.__name__: each for each in (carriers, broad, bursts, ramps, sweeps, faint, spikes)}
