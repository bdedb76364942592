"""SumThreshold: neighbours in time or frequency that are all a little too strong are interference together.

Offringa et al. 2010 (MNRAS 405, 155): M neighbours are flagged if their mean is above chi_M = chi_1 / rho^log2(M).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel
from absurd.tasks.visibility.flagging.low_pass import Bools, Floats
from absurd.tasks.visibility.flagging.trend import MAD_TO_SIGMA, median_of

SUMS = 2_000
"""Of a length of which the scatter is measured, at most."""
FEWEST_SUMS = 30


@cache
def lengths(longest: int, size: int) -> NDArray[np.int64]:
    """1, 2, 4 up to the longest that fits into the size; and the size itself, for what is there all the time."""
    powers = [1 << power for power in range(longest.bit_length()) if 1 << power <= min(longest, size)]
    return np.array(sorted({*powers, size} if size <= longest else powers), np.int64)


@cache
def limits(first: float, rho: float, longest: int) -> NDArray[np.float64]:
    """chi_n for each number n of neighbours up to the longest; of 0 it is infinite."""
    return np.array([math.inf, *(first / rho ** math.log2(count) for count in range(1, longest + 1))])


@kernel
def sum_threshold(
    values: Floats,
    usable: Bools,
    time_lengths: NDArray[np.int64],
    channel_lengths: NDArray[np.int64],
    chi: NDArray[np.float64],
    both_signs: bool,
    found: Bools,
) -> None:
    """Fill `found`, (time, channel), from deviations with noise 1.

    What a shorter length has found, or may not be used, takes no part in sums: the limit is that of the number of
    samples that do, so that a lone one among many flagged ones is not judged by the limit for many.

    Where neighbours are alike, since the sky has more shape than the surface follows, their sums scatter more than
    those of noise do.  Limits of a length are higher by as much.
    """
    times, channels = values.shape
    new = np.zeros((times, channels), np.bool_)
    for time in range(times):
        for channel in range(channels):
            value = values[time, channel]
            found[time, channel] = usable[time, channel] and (value > chi[1] or (both_signs and -value > chi[1]))
    steps = max(len(time_lengths), len(channel_lengths))
    in_time, in_channel = 1.0, 1.0
    for step in range(1, steps):
        new[:] = False
        if step < len(channel_lengths):
            length = channel_lengths[step]
            in_channel = scatter(values, usable, found, length, in_channel)
            _along_channels(values, usable, found, length, chi * in_channel, both_signs, new)
        if step < len(time_lengths):
            length = time_lengths[step]
            in_time = scatter(values.T, usable.T, found.T, length, in_time)
            _along_times(values, usable, found, length, chi * in_time, both_signs, new)
        for time in range(times):
            for channel in range(channels):
                if new[time, channel] and usable[time, channel]:
                    found[time, channel] = True


@kernel
def scatter(values: Floats, usable: Bools, found: Bools, length: int, before: float) -> float:
    """By how much sums along the second axis scatter more than those of noise 1; `before` where too few tell it.

    It is at least 1, and that of the shorter length: shapes that are seen in few neighbours are there in more.
    """
    lines, size = values.shape
    sums = np.empty(SUMS)
    count = 0
    skipped = max(1, lines * max(1, 2 * size // length) // SUMS)
    for line in range(0, lines, skipped):
        for start in range(0, size - length + 1, max(1, length // 2)):
            total = 0.0
            number = 0
            for at in range(start, start + length):
                if usable[line, at] and not found[line, at]:
                    total += values[line, at]
                    number += 1
            if 2 * number >= length and count < SUMS:
                sums[count] = abs(total) / np.sqrt(number)
                count += 1
    if count < FEWEST_SUMS:
        return before
    return max(before, MAD_TO_SIGMA * median_of(sums, count))


@kernel
def _along_channels(
    values: Floats,
    usable: Bools,
    found: Bools,
    length: int,
    chi: NDArray[np.float64],
    both_signs: bool,
    new: Bools,
) -> None:
    times, channels = values.shape
    for time in range(times):
        total = 0.0
        count = 0
        marked = 0  # up to where all is
        for channel in range(channels):
            if usable[time, channel] and not found[time, channel]:
                total += values[time, channel]
                count += 1
            gone = channel - length
            if gone >= 0 and usable[time, gone] and not found[time, gone]:
                total -= values[time, gone]
                count -= 1
            if gone >= -1 and count > 0:
                limit = chi[count] * count
                if total > limit or (both_signs and -total > limit):
                    for each in range(max(marked, gone + 1), channel + 1):
                        new[time, each] = True
                    marked = channel + 1


@kernel
def _along_times(
    values: Floats,
    usable: Bools,
    found: Bools,
    length: int,
    chi: NDArray[np.float64],
    both_signs: bool,
    new: Bools,
) -> None:
    times, channels = values.shape
    total = np.zeros(channels)
    count = np.zeros(channels, np.int64)
    marked = np.zeros(channels, np.int64)
    for time in range(times):
        gone = time - length
        for channel in range(channels):
            if usable[time, channel] and not found[time, channel]:
                total[channel] += values[time, channel]
                count[channel] += 1
            if gone >= 0 and usable[gone, channel] and not found[gone, channel]:
                total[channel] -= values[gone, channel]
                count[channel] -= 1
            if gone >= -1 and count[channel] > 0:
                limit = chi[count[channel]] * count[channel]
                if total[channel] > limit or (both_signs and -total[channel] > limit):
                    for each in range(max(marked[channel], gone + 1), time + 1):
                        new[each, channel] = True
                    marked[channel] = time + 1
