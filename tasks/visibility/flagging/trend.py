"""What is taken off a waterfall before a surface is fitted: the course that all channels share, hollows of the band.

At the first and last times a mean of neighbours is beside a slope, and a strong source is nothing but slope there.
Medians of the channels tell its course, and a line through these by parabolas, which bursts do not draw to themselves.
A beam is wider at low frequencies, and so is the course: the difference of medians of the upper and the lower half of
the channels tells how much.

Where a receiver's band has a step or a gap, a surface of neighbours is beside that too.  Interference adds to what is
there, so a channel that is below its neighbours at all times has none: it is a hollow of the band, and filled up.
"""

from __future__ import annotations

import math

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
DEEP = 3.0
"""Standard deviations of medians of channels from those around, beyond which a channel is a hollow of the band."""
FAR = 6.0
"""Standard deviations from the line beyond which a time is not of it."""
WIDER = 2.0
"""Than the Gaussian of the course is that of the difference between halves of the band."""
REACH = 4.0
"""Standard deviations of a Gaussian beyond which it is nothing."""
MAD_TO_SIGMA = 1.482602
"""A Gaussian's standard deviation, in medians of the absolute deviation."""


@kernel
def median_of(values: Doubles, count: int) -> float:
    """Of the first `count` of the values; 0 of none."""
    if count == 0:
        return 0.0
    return float(np.median(values[:count]))


@kernel
def prepare(values: Floats, usable: Bools, of_times: float, of_channels: float, shown: Floats) -> None:
    """Take courses and hollows off the values, (time, channel), and fill `shown` with what a surface goes through.

    That is the values, those cut down that are far above both their time and channel.  A source that passes is tall in
    all channels of its time, and a carrier at all times of its channel: they stay.  What is tall for its time and its
    channel, such as a number that a broken correlator has written, is none of both.  `of_times` and `of_channels` are
    widths of the Gaussians, in times and in channels, in which a parabola goes through medians.
    """
    times, channels = values.shape
    of_time, of_channel = np.zeros(times), np.zeros(channels)
    known = medians(values, usable, 0, channels, of_time)
    some = medians(values.T, usable.T, 0, times, of_channel)
    level = median_of(of_time[known], int(known.sum()))
    excess, hollow = np.zeros((times, channels), np.float32), np.zeros(channels)
    if level > 0 and known.sum() >= FEWEST:
        _courses(values, usable, some, of_time, of_times, excess)
        steady = np.zeros(channels)
        medians((values - excess).T, usable.T, 0, times, steady)
        hollows(steady, some, of_channels, hollow)
    for time in range(times):
        for channel in range(channels):
            value = values[time, channel]
            limit = min(FAR_TOO_TALL * level, TALLEST * max(of_time[time], of_channel[channel]))
            off = excess[time, channel] - hollow[channel]
            values[time, channel] = value - off
            shown[time, channel] = (min(value, limit) if limit > 0 else value) - off


@kernel
def medians(values: Floats, usable: Bools, first: int, last: int, out: Doubles) -> Bools:
    """Fill `out`, (line,), with medians along the second axis from `first` to before `last`; tell where there are any.

    Elsewhere it is 0.
    """
    lines = len(values)
    known = np.zeros(lines, np.bool_)
    some = np.empty(last - first)
    for line in range(lines):
        count = 0
        for at in range(first, last):
            if usable[line, at]:
                some[count] = values[line, at]
                count += 1
        out[line] = median_of(some, count)
        known[line] = count > 0
    return known


@kernel
def hollows(values: Doubles, known: Bools, sigma: float, out: Doubles) -> None:
    """Fill `out`, (channel,), with how far values are below a line through them by parabolas, `sigma` channels wide.

    It is 0 where that may be noise: within `DEEP` standard deviations, as those of all channels are scattered.
    """
    line(values, known, sigma, out)
    size = len(values)
    left = np.empty(size)
    count = 0
    for channel in range(size):
        out[channel] = out[channel] - values[channel] if known[channel] else 0.0
        if known[channel]:
            left[count] = abs(out[channel])
            count += 1
    least = DEEP * MAD_TO_SIGMA * median_of(left, count)
    for channel in range(size):
        if out[channel] <= least:
            out[channel] = 0.0


@kernel
def _courses(values: Floats, usable: Bools, some: Bools, of_time: Doubles, sigma: float, excess: Floats) -> None:
    """Fill `excess`, (time, channel), with what the course of each channel is above its level.

    It is the line through medians of all channels, and what the upper half of those in which there is anything (`some`)
    has more than the lower.  That changes less, so its line is wider by `WIDER`, and follows less of fringes.
    """
    times, channels = values.shape
    there = np.flatnonzero(some)
    split = there[len(there) // 2]
    lower, upper = np.zeros(times), np.zeros(times)
    known = medians(values, usable, 0, split, lower) & medians(values, usable, split, channels, upper)
    apart = there[there >= split].mean() - there[there < split].mean() if len(there) > 1 else 1.0
    common, tilt = np.zeros(times), np.zeros(times)
    line(of_time, of_time > 0, sigma, common)
    if known.sum() >= FEWEST:
        line(upper - lower, known, WIDER * sigma, tilt)
    middle = there.mean()
    one, ratio = np.empty(times), np.empty(times)
    for channel in there:
        place = (channel - middle) / apart
        for time in range(times):
            one[time] = common[time] + place * tilt[time]
        own = median_of(one, times)
        shape = _shape(values[:, channel], usable[:, channel], one, ratio)
        for time in range(times):
            excess[time, channel] = (one[time] - own) * shape


@kernel
def _shape(values: Floats, usable: Bools, course: Doubles, some: Doubles) -> float:
    """The part that a channel, (time,), has in a course, at the times when that is high.

    At others the noise of the channel would tell more than its gain.
    """
    highest = course.max()
    count = 0
    for time in range(len(values)):
        if usable[time] and course[time] > HIGH * highest:
            some[count] = values[time] / course[time]
            count += 1
    return median_of(some, count) if count else 1.0


@kernel
def line(values: Doubles, known: Bools, sigma: float, out: Doubles) -> None:
    """Fill `out` by parabolas through the known values around each, weighted by a Gaussian.

    Values that are far from the line lose their weight round by round (Cleveland 1979, JASA 74, 829).
    """
    size = len(values)
    weight = np.ones(size)
    left = np.empty(size)
    reach = min(size, math.ceil(REACH * max(sigma, 1.0)))
    near = np.exp(-0.5 * (np.arange(reach + 1) / max(sigma, 1.0)) ** 2)
    for _ in range(ROUNDS):
        for at in range(size):
            out[at] = _parabola(values, known, weight, near, at)
        count = 0
        for at in range(size):
            if known[at]:
                left[count] = abs(values[at] - out[at])
                count += 1
        far = FAR * MAD_TO_SIGMA * median_of(left, count)
        if far <= 0:
            return
        for at in range(size):
            part = abs(values[at] - out[at]) / far
            weight[at] = (1 - part**2) ** 2 if part < 1 else 0.0


@kernel
def _parabola(values: Doubles, known: Bools, weight: Doubles, near: Doubles, at: int) -> float:
    """The value of the parabola through those around; of their mean where there are too few.

    `near` is the weight of a value by its distance.
    """
    reach = len(near) - 1
    sums = np.zeros(5)
    products = np.zeros(3)
    for other in range(max(0, at - reach), min(len(values), at + reach + 1)):
        if known[other] and weight[other] > 0:
            x = (other - at) / reach
            here = weight[other] * near[abs(other - at)]
            power = 1.0
            for order in range(5):
                sums[order] += here * power
                if order < 3:
                    products[order] += here * power * values[other]
                power *= x
    if sums[0] <= 0:
        return float(values[at])
    a, b, c, d, e = sums
    determinant = a * (c * e - d * d) - b * (b * e - c * d) + c * (b * d - c * c)
    if determinant < 1e-9 * a * a * a:
        return float(products[0] / a)
    p, q, r = products
    return float((p * (c * e - d * d) - b * (q * e - r * d) + c * (q * d - r * c)) / determinant)
