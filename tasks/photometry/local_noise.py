"""Loops that tell background and noise around positions, and in cells: medians that outliers do not change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Integers = NDArray[np.int64]
_FEWEST = 16
_ROUNDS = 3
_TINY = 1e-30
_QUICK = 8
"""Guesses by the density of a Gaussian, before a median is looked for by halves."""
_AT_MIDDLE, _AT_DEVIATION = 0.3989, 0.6356
"""Densities of a Gaussian at its median, and of its deviations at theirs, over its standard deviation."""


@kernel
def surroundings(
    pixels: Pixels, x: Floats, y: Floats, inner: float, outer: float, stride: int,
    background: Floats, rms: Floats, start: int, stop: int,
) -> None:  # fmt: skip
    """Median, and 1.4826 times the median deviation within 3 of it, of pixels of a ring around positions.

    Every `stride`-th pixel along both axes counts, from `inner` to `outer` pixels away.  NaN for fewer than 16.
    """
    height, width = pixels.shape
    reach = int(outer / stride)
    most = (2 * reach + 1) ** 2
    down, across = np.empty(most, np.int64), np.empty(most, np.int64)
    places = 0
    for j in range(-reach, reach + 1):
        for i in range(-reach, reach + 1):
            far = float(stride * stride * (i * i + j * j))
            if inner * inner <= far <= outer * outer:
                down[places], across[places] = j * stride, i * stride
                places += 1
    values, off = np.empty(most, np.float32), np.empty(most, np.float32)
    middle, scatter = 0.0, 1.0
    for n in range(start, stop):
        background[n] = rms[n] = np.nan
        if not (np.isfinite(x[n]) and np.isfinite(y[n])):
            continue
        count = 0
        centre_x, centre_y = int(np.floor(x[n] + 0.5)), int(np.floor(y[n] + 0.5))
        for place in range(places):
            row, column = centre_y + down[place], centre_x + across[place]
            if row < 0 or column < 0 or row >= height or column >= width:
                continue
            value = pixels[row, column]
            if np.isfinite(value):
                values[count] = value
                count += 1
        background[n], rms[n] = _clipped(values, off, count, middle, scatter)
        if rms[n] > 0:
            middle, scatter = background[n], rms[n]


@kernel
def cell_statistics(
    pixels: Pixels, rows: Integers, columns: Integers, every: int, background: Floats, rms: Floats
) -> None:
    """The same of every `every`-th pixel of cells (y, x), which lie between `rows` and between `columns`."""
    side_y, side_x = np.max(rows[1:] - rows[:-1]) // every + 1, np.max(columns[1:] - columns[:-1]) // every + 1
    values = np.empty(side_y * side_x, np.float32)
    off = np.empty(side_y * side_x, np.float32)
    middle, scatter = 0.0, 1.0
    for j in range(len(rows) - 1):
        for i in range(len(columns) - 1):
            count = 0
            for row in range(rows[j], rows[j + 1], every):
                for column in range(columns[i], columns[i + 1], every):
                    value = pixels[row, column]
                    if np.isfinite(value):
                        values[count] = value
                        count += 1
            background[j, i], rms[j, i] = _clipped(values, off, count, middle, scatter)
            if rms[j, i] > 0:
                middle, scatter = background[j, i], rms[j, i]


@kernel
def _clipped(values: Pixels, off: Pixels, count: int, guess: float, width: float) -> tuple[float, float]:
    """Median and robust scatter of the first `count` values, those that count moved to the front; `off` is room.

    `guess` and `width` are about what is expected: they change how long it takes, not what comes out.
    """
    middle, scatter = np.nan, np.nan
    for _ in range(_ROUNDS):
        if count < _FEWEST:
            break
        middle = _median(values, count, guess, width / (_AT_MIDDLE * count))
        centre = np.float32(middle)
        for k in range(count):
            off[k] = abs(values[k] - centre)
        scatter = 1.4826 * _median(off, count, width / 1.4826, width / (_AT_DEVIATION * count))
        limit = np.float32(3 * scatter)
        kept = _not_above(off, count, limit)
        if kept == count:
            break
        kept = 0
        for k in range(count):
            if off[k] <= limit:
                values[kept] = values[k]
                kept += 1
        count = kept
        guess, width = middle, scatter
    return middle, scatter


@kernel
def _median(values: Pixels, count: int, guess: float, between: float) -> float:
    """The median of the first `count` values, exactly; none is NaN.

    Values that are not above a threshold are counted, a vector at a time, until the threshold parts them in halves.
    Thresholds follow from the count and the distance `between` neighbours, and from halves of what is left if that
    does not get there.  To put values in order costs ten times as much for 200 of them.
    """
    half, odd = count // 2, count % 2
    low, high = -np.inf, np.inf
    at = np.float32(guess)
    tries = 0
    while True:
        below = _not_above(values, count, at)
        if half <= below <= half + odd:
            break
        if below < half:
            low = np.float64(at)
        else:
            high = np.float64(at)
        at = np.float32(at + (half + 0.5 * odd - below) * between)
        tries += 1
        if tries < _QUICK and low < at < high:
            continue
        if np.isinf(low):
            lowest = np.float64(np.min(values[:count]))
            low = lowest - max(abs(lowest), _TINY)
        if np.isinf(high):
            high = np.float64(np.max(values[:count]))
        at = np.float32((low + high) / 2)
        if not low < at < high:  # no number lies between: all that are above `low` and count are the same
            return float(high)
    under, over = np.float32(-np.inf), np.float32(np.inf)
    for k in range(count):
        if values[k] <= at:
            under = max(under, values[k])
        else:
            over = min(over, values[k])
    if odd:
        return float(over) if below == half else float(under)
    return float(np.float64(under) + np.float64(over)) / 2


@kernel
def _not_above(values: Pixels, count: int, limit: np.float32) -> int:
    found = 0
    for k in range(count):
        found += values[k] <= limit
    return found
