"""How far each amplitude is from the smooth surface around it, in standard deviations of the noise there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel
from absurd.tasks.visibility.flagging.low_pass import Bools, Doubles, Floats, surface
from absurd.tasks.visibility.flagging.trend import MAD_TO_SIGMA, median_of

CUT = 3.0
MEAN_CUT_TO_SIGMA = 1.254520
"""A Gaussian's standard deviation, in means of its absolute deviations of which none counts more than `CUT`."""
SAMPLES_OF_SCALE = 300
"""Of which the noise of a channel is estimated, with those of its neighbours: good to 5 %."""
LEAST_OF_SURFACE = 1e-5
"""No noise is below that part of the signal: digits of float32 would be interference."""
AT_MOST = 20_000
"""Samples of which a median is taken: more would tell no more."""


@kernel
def deviations(values: Floats, usable: Bools, background: Doubles, out: Floats) -> None:
    """Fill `out`, (time, channel), with (value - background) / sigma.

    The noise is that of each channel, as told by absolute deviations of it and its neighbours, since a receiver's
    noise goes with its gain.
    """
    times, channels = values.shape
    typical = np.empty(min(AT_MOST, times * channels) + 1)
    level = np.empty(typical.size)
    stride = max(1, (times * channels) // AT_MOST)
    count = 0
    position = 0
    for time in range(times):
        for channel in range(channels):
            if usable[time, channel]:
                if position % stride == 0 and count < typical.size:
                    typical[count] = abs(values[time, channel] - background[time, channel])
                    level[count] = background[time, channel]
                    count += 1
                position += 1
    sigma = MAD_TO_SIGMA * median_of(typical, count)
    least = LEAST_OF_SURFACE * abs(median_of(level, count))
    sigma = max(sigma, least)
    if sigma == 0.0:
        sigma = 1.0
    scale = np.full(channels, sigma)
    if channels > 1:
        _scales(values, usable, background, sigma, scale)
    for time in range(times):
        for channel in range(channels):
            out[time, channel] = (values[time, channel] - background[time, channel]) / max(scale[channel], least)


@kernel
def _scales(values: Floats, usable: Bools, background: Doubles, sigma: float, scale: NDArray[np.float64]) -> None:
    times, channels = values.shape
    total, number = np.zeros(channels), np.zeros(channels)
    for time in range(times):
        for channel in range(channels):
            if usable[time, channel]:
                total[channel] += min(abs(values[time, channel] - background[time, channel]), CUT * sigma)
                number[channel] += 1
    half = max(5, -(-SAMPLES_OF_SCALE // (2 * times)))
    all_total, all_number = 0.0, 0.0
    for channel in range(min(half, channels)):
        all_total += total[channel]
        all_number += number[channel]
    for channel in range(channels):
        if channel + half < channels:
            all_total += total[channel + half]
            all_number += number[channel + half]
        if channel - half - 1 >= 0:
            all_total -= total[channel - half - 1]
            all_number -= number[channel - half - 1]
        if all_number > 0 and all_total > 0:
            scale[channel] = MEAN_CUT_TO_SIGMA * all_total / all_number


@kernel
def without(usable: Bools, found: Bools, out: Bools) -> int:
    """Fill `out` with what is usable and not found; count it."""
    times, channels = usable.shape
    count = 0
    for time in range(times):
        for channel in range(channels):
            good = usable[time, channel] and not found[time, channel]
            out[time, channel] = good
            count += good
    return count


@kernel
def look(
    values: Floats,
    shown: Floats,
    usable: Bools,
    clean: Bools,
    half_time: int,
    half_channel: int,
    fits: int,
    out: Floats,
) -> None:
    """Deviations of the values from the surface through what is shown of the clean ones; 0 of what is not usable."""
    background = np.empty(values.shape)
    surface(shown, clean, half_time, half_channel, fits, background)
    deviations(values, clean, background, out)
    times, channels = values.shape
    for time in range(times):
        for channel in range(channels):
            if not usable[time, channel]:
                out[time, channel] = 0.0
