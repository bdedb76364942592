"""What an amplitude would be without noise and interference: a smooth surface over time and frequency.

Three running means, one after the other, are nearly a Gaussian, for a price that does not depend on its width.  What
may not be used has no weight: the surface there is that of its neighbours.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel

PASSES = 3
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]


def half_width(sigma: float) -> int:
    """Half the width of `PASSES` running means, in samples, that smooth as a Gaussian of that sigma does."""
    return max(0, round((math.sqrt(12 * sigma**2 / PASSES + 1) - 1) / 2))


@kernel
def surface(values: Floats, usable: Bools, half_time: int, half_channel: int, fits: int, out: Doubles) -> None:
    """Fill `out`, (time, channel), with the smoothed values; where nothing usable is near, with the values.

    Each further fit smooths what the ones before have left and adds it: where a surface bends, at the peak of a source
    or the edge of the band, a mean of neighbours is beside it, by the second derivative and the square of the width.
    That of two fits is beside it by the fourth derivative alone, that of three by the sixth.
    """
    times, channels = values.shape
    weight = np.empty((times, channels))
    for time in range(times):
        for channel in range(channels):
            weight[time, channel] = 1.0 if usable[time, channel] else 0.0
    shown = weight.copy()
    _along_both(weight, half_time, half_channel)
    for time in range(times):
        for channel in range(channels):  # sums of whole numbers: 0 is 0
            weight[time, channel] = 1.0 / weight[time, channel] if weight[time, channel] > 0.5 else 0.0
    left = np.empty((times, channels))
    out[:] = 0.0
    for _ in range(fits):
        for time in range(times):
            for channel in range(channels):
                left[time, channel] = (values[time, channel] - out[time, channel]) * shown[time, channel]
        _along_both(left, half_time, half_channel)
        for time in range(times):
            for channel in range(channels):
                out[time, channel] += left[time, channel] * weight[time, channel]
    for time in range(times):
        for channel in range(channels):
            if weight[time, channel] == 0.0:
                out[time, channel] = values[time, channel]


@kernel
def _along_both(array: Doubles, half_time: int, half_channel: int) -> None:
    for _ in range(PASSES):
        _along_channels(array, half_channel)
        _along_times(array, half_time)


@kernel
def _along_channels(array: Doubles, half: int) -> None:
    """Sums of 2 half + 1 neighbours, in place."""
    times, channels = array.shape
    if half == 0 or channels == 1:
        return
    line = np.zeros(channels + 2 * half + 1)  # with zeros around, so that no sample is asked where it is
    for time in range(times):
        total = 0.0
        for channel in range(channels):
            line[half + 1 + channel] = array[time, channel]
        for channel in range(min(half, channels)):
            total += array[time, channel]
        for channel in range(channels):
            total += line[channel + 2 * half + 1] - line[channel]
            array[time, channel] = total


@kernel
def _along_times(array: Doubles, half: int) -> None:
    times, channels = array.shape
    if half == 0 or times == 1:
        return
    before = array.copy()
    total = np.zeros(channels)
    for time in range(min(half, times)):
        for channel in range(channels):
            total[channel] += before[time, channel]
    for time in range(times):
        if time + half < times:
            for channel in range(channels):
                total[channel] += before[time + half, channel]
        if time - half - 1 >= 0:
            for channel in range(channels):
                total[channel] -= before[time - half - 1, channel]
        for channel in range(channels):
            array[time, channel] = total[channel]
