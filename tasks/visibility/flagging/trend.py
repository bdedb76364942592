"""How all channels of a waterfall change together: a source that passes, taken off before a surface is fitted.

At the first and last times a mean of neighbours is beside a slope, and a strong source is nothing but slope there.  The
median of all channels tells its course, and a line through that by parabolas, which bursts do not draw to themselves.
"""

from __future__ import annotations

import numpy as np

from absurd.tasks.radio.compiled import kernel
from absurd.tasks.visibility.flagging.low_pass import Bools, Doubles, Floats

TALLEST = 30.0
"""Of the larger of the medians of its time and of its channel: what is above counts as that, in a surface."""
FAR_TOO_TALL = 1e6
"""Of the median of a waterfall, as above: beyond, sums lose the digits of the rest."""
ROUNDS = 6
"""In which the line finds out which times are not of it."""
FEWEST = 5
"""Times that a line needs."""
HIGH = 0.5
"""Part of the highest value of a course above which that tells what a channel has of it."""
FAR = 6.0
"""Standard deviations from the line beyond which a time is not of it."""
MAD_TO_SIGMA = 1.482602
"""A Gaussian's standard deviation, in medians of the absolute deviation."""


@kernel
def median_of(values: Doubles, count: int) -> float:
    """Of the first `count` of the values; 0 of none."""
    if count == 0:
        return 0.0
    return float(np.median(values[:count]))


@kernel
def prepare(values: Floats, usable: Bools, sigma: float, shown: Floats) -> None:
    """Take the common course off the values, (time, channel), and fill `shown` with what a surface goes through.

    That is the values, those cut down that are far above both their time and channel.  A source that passes is tall in
    all channels of its time, and a carrier at all times of its channel: they stay.  What is tall for its time and its
    channel, such as a number that a broken correlator has written, is none of both.  `sigma` is the width of the
    Gaussian, in times, in which a parabola goes through the medians.
    """
    times, channels = values.shape
    of_time, of_channel = np.zeros(times), np.zeros(channels)
    known = np.zeros(times, np.bool_)
    some = np.empty(max(times, channels))
    for time in range(times):
        count = 0
        for channel in range(channels):
            if usable[time, channel]:
                some[count] = values[time, channel]
                count += 1
        of_time[time] = median_of(some, count)
        known[time] = count > 0
    for channel in range(channels):
        count = 0
        for time in range(times):
            if usable[time, channel]:
                some[count] = values[time, channel]
                count += 1
        of_channel[channel] = median_of(some, count)
    level = median_of(of_time[known], int(known.sum()))
    course, shape = np.zeros(times), np.zeros(channels)
    if level > 0 and known.sum() >= FEWEST:
        line(of_time, known, sigma, course)
        _shape(values, usable, known, course, some, shape)
        for time in range(times):
            course[time] = course[time] - level if known[time] else 0.0
    for time in range(times):
        for channel in range(channels):
            value = values[time, channel]
            limit = min(FAR_TOO_TALL * level, TALLEST * max(of_time[time], of_channel[channel]))
            off = course[time] * shape[channel]
            values[time, channel] = value - off
            shown[time, channel] = (min(value, limit) if limit > 0 else value) - off


@kernel
def _shape(values: Floats, usable: Bools, known: Bools, course: Doubles, some: Doubles, shape: Doubles) -> None:
    """Fill `shape`, (channel,), with the part that a channel has in the course, at the times when that is high.

    At others the noise of the channel would tell more than its gain.
    """
    times, channels = values.shape
    highest = 0.0
    for time in range(times):
        if known[time]:
            highest = max(highest, course[time])
    for channel in range(channels):
        count = 0
        for time in range(times):
            if usable[time, channel] and course[time] > HIGH * highest:
                some[count] = values[time, channel] / course[time]
                count += 1
        shape[channel] = median_of(some, count) if count else 1.0


@kernel
def line(values: Doubles, known: Bools, sigma: float, out: Doubles) -> None:
    """Fill `out`, (time,), by parabolas through the known values around each time, weighted by a Gaussian.

    Values that are far from the line lose their weight round by round (Cleveland 1979, JASA 74, 829).
    """
    times = len(values)
    weight = np.ones(times)
    left = np.empty(times)
    for _ in range(ROUNDS):
        for time in range(times):
            out[time] = _parabola(values, known, weight, sigma, time)
        count = 0
        for time in range(times):
            if known[time]:
                left[count] = abs(values[time] - out[time])
                count += 1
        far = FAR * MAD_TO_SIGMA * median_of(left, count)
        if far <= 0:
            return
        for time in range(times):
            part = abs(values[time] - out[time]) / far
            weight[time] = (1 - part**2) ** 2 if part < 1 else 0.0


@kernel
def _parabola(values: Doubles, known: Bools, weight: Doubles, sigma: float, at: int) -> float:
    """The value at a time of the parabola through those around it; of their mean where there are too few."""
    sums = np.zeros(5)
    products = np.zeros(3)
    for time in range(len(values)):
        if known[time] and weight[time] > 0:
            x = (time - at) / max(sigma, 1.0)
            here = weight[time] * np.exp(-0.5 * x * x)
            power = 1.0
            for order in range(5):
                sums[order] += here * power
                if order < 3:
                    products[order] += here * power * values[time]
                power *= x
    if sums[0] <= 0:
        return float(values[at])
    a, b, c, d, e = sums
    determinant = a * (c * e - d * d) - b * (b * e - c * d) + c * (b * d - c * c)
    if determinant < 1e-9 * a * a * a:
        return float(products[0] / a)
    p, q, r = products
    return float((p * (c * e - d * d) - b * (q * e - r * d) + c * (q * d - r * c)) / determinant)
