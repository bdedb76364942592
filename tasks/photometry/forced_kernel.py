"""Loops of forced photometry: noise around a position, a Gaussian fitted there, several fitted together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Integers = NDArray[np.int64]
CUT = 12.5
"""Pixels count whose quadratic form is below: to 1.5 widths at half maximum, where a Gaussian is 0.002."""
_TAIL = 50.0
"""A neighbour's Gaussian is nothing beyond: e^-25."""
_FEWEST = 16
_LEAST_SEEN = 0.5
"""Share of a Gaussian's square that has to be on pixels with a value."""
_LEAST_PIVOT = 0.02
"""Of a source's square that its neighbours must leave: sources nearer than a twelfth of a beam have less."""
OUTSIDE, BLANK, BLENDED, INSEPARABLE, NO_NOISE = 1, 2, 4, 8, 16


@kernel
def surroundings(
    pixels: Pixels, x: Floats, y: Floats, inner: float, outer: float, stride: int,
    background: Floats, rms: Floats, start: int, stop: int,
) -> None:  # fmt: skip
    """Median, and 1.4826 times the median deviation within 3 of it, of pixels of a ring around positions.

    Every `stride`-th pixel along both axes counts, from `inner` to `outer` pixels away.  NaN for fewer than 16.
    """
    height, width = pixels.shape
    side = 2 * int(outer / stride) + 3
    values = np.empty(side * side, np.float32)
    off = np.empty(side * side, np.float32)
    for n in range(start, stop):
        background[n] = rms[n] = np.nan
        if not (np.isfinite(x[n]) and np.isfinite(y[n])):
            continue
        count = 0
        centre_x, centre_y = int(np.floor(x[n] + 0.5)), int(np.floor(y[n] + 0.5))
        reach = int(outer / stride)
        for j in range(-reach, reach + 1):
            row = centre_y + j * stride
            if row < 0 or row >= height:
                continue
            for i in range(-reach, reach + 1):
                column = centre_x + i * stride
                far = float(stride * stride * (i * i + j * j))
                if column < 0 or column >= width or far < inner * inner or far > outer * outer:
                    continue
                value = pixels[row, column]
                if not np.isnan(value):
                    values[count] = value
                    count += 1
        background[n], rms[n] = _clipped(values, off, count)


@kernel
def cell_statistics(
    pixels: Pixels, rows: Integers, columns: Integers, every: int, background: Floats, rms: Floats
) -> None:
    """The same of every `every`-th pixel of cells (y, x), which lie between `rows` and between `columns`."""
    side_y, side_x = np.max(rows[1:] - rows[:-1]) // every + 1, np.max(columns[1:] - columns[:-1]) // every + 1
    values = np.empty(side_y * side_x, np.float32)
    off = np.empty(side_y * side_x, np.float32)
    for j in range(len(rows) - 1):
        for i in range(len(columns) - 1):
            count = 0
            for row in range(rows[j], rows[j + 1], every):
                for column in range(columns[i], columns[i + 1], every):
                    value = pixels[row, column]
                    if not np.isnan(value):
                        values[count] = value
                        count += 1
            background[j, i], rms[j, i] = _clipped(values, off, count)


@kernel
def _clipped(values: Pixels, off: Pixels, count: int) -> tuple[float, float]:
    """Median and robust scatter of the first `count` values, which are put in another order; `off` is room for work."""
    middle, scatter = np.nan, np.nan
    for _ in range(3):
        if count < _FEWEST:
            break
        middle = float(np.median(values[:count]))
        for k in range(count):
            off[k] = abs(values[k] - middle)
        scatter = 1.4826 * float(np.median(off[:count]))
        kept = 0
        for k in range(count):
            if off[k] <= 3 * scatter:
                values[kept] = values[k]
                kept += 1
        if kept == count:
            break
        count = kept
    return middle, scatter


@kernel
def fit_groups(
    pixels: Pixels, x: Floats, y: Floats, forms: Floats, background: Floats, rms: Floats,
    members: Integers, bounds: Integers, start: int, stop: int,
    flux: Floats, spread: Floats, chi_squared: Floats, flags: Integers,
) -> None:  # fmt: skip
    """Heights of Gaussians of known place and shape, by least squares, for groups from `start` to `stop`.

    Group g is ``members[bounds[g]:bounds[g + 1]]``, positions that share pixels.  `spread` is by what neighbours widen
    the error, 1 for a position alone; `chi_squared` is that of the pixels within the Gaussian over the local noise.
    """
    for group in range(start, stop):
        own = members[bounds[group] : bounds[group + 1]]
        count = len(own)
        normal = np.zeros((count, count))
        right = np.zeros(count)
        alone = np.zeros(count)  # integral of the square of a Gaussian over all pixels
        for place in range(count):
            _accumulate(pixels, x, y, forms, background, own, place, normal, right, alone)
        _solve(normal, right, alone, own, flux, spread, flags)
        for place in range(count):
            n = own[place]
            if count > 1:
                flags[n] |= BLENDED
            if np.isnan(rms[n]) or rms[n] <= 0:
                flags[n] |= NO_NOISE
            chi_squared[n] = _misfit(pixels, x, y, forms, background, rms, own, place, flux)


@kernel
def _accumulate(
    pixels: Pixels, x: Floats, y: Floats, forms: Floats, background: Floats, own: Integers, place: int,
    normal: Floats, right: Floats, alone: Floats,
) -> None:  # fmt: skip
    """Add the pixels of one source, that are not those of one before it, to the normal equations of its group."""
    n = own[place]
    if not (np.isfinite(x[n]) and np.isfinite(y[n]) and np.isfinite(background[n])):
        return
    height, width = pixels.shape
    count = len(own)
    heights = np.zeros(count)
    left, last, bottom, top = _box(x[n], y[n], forms[n])
    for row in range(bottom, top + 1):
        for column in range(left, last + 1):
            form = _form(forms[n], column - x[n], row - y[n])
            if form > CUT:
                continue
            mine = np.exp(-0.5 * form)
            alone[place] += mine * mine
            if row < 0 or column < 0 or row >= height or column >= width:
                continue
            value = pixels[row, column]
            if np.isnan(value):
                continue
            taken = False
            for other in range(count):
                if other == place:
                    heights[other] = mine
                    continue
                o = own[other]
                near = _form(forms[o], column - x[o], row - y[o])
                if other < place and near <= CUT:
                    taken = True
                    break
                heights[other] = np.exp(-0.5 * near) if near < _TAIL else 0.0
            if taken:
                continue
            above = value - background[n]
            for one in range(count):
                if heights[one] > 0:
                    right[one] += heights[one] * above
                    for other in range(one + 1):
                        normal[one, other] += heights[one] * heights[other]


@kernel
def _solve(
    normal: Floats, right: Floats, alone: Floats, own: Integers, flux: Floats, spread: Floats, flags: Integers
) -> None:
    """Cholesky's factors of the normal equations, of those sources that have pixels."""
    count = len(own)
    lower = np.zeros((count, count))
    for i in range(count):
        n = own[i]
        flux[n] = spread[n] = np.nan
        if not (alone[i] > 0 and normal[i, i] >= _LEAST_SEEN * alone[i]):
            flags[n] |= OUTSIDE
            lower[i, i] = np.inf  # it takes no part
            continue
        if normal[i, i] < 0.999 * alone[i]:
            flags[n] |= BLANK
        for j in range(i + 1):
            value = normal[i, j]
            for k in range(j):
                value -= lower[i, k] * lower[j, k]
            if j < i:
                lower[i, j] = value / lower[j, j]
            elif value > _LEAST_PIVOT * normal[i, i]:
                lower[i, i] = np.sqrt(value)
            else:
                for each in range(count):
                    flags[own[each]] |= INSEPARABLE
                return
    solution = np.zeros(count)
    for i in range(count):
        value = right[i]
        for k in range(i):
            value -= lower[i, k] * solution[k]
        solution[i] = value / lower[i, i]
    for i in range(count - 1, -1, -1):
        value = solution[i]
        for k in range(i + 1, count):
            value -= lower[k, i] * solution[k]
        solution[i] = value / lower[i, i]
    column = np.zeros(count)
    for i in range(count):
        n = own[i]
        if np.isinf(lower[i, i]):
            continue
        column[:] = 0.0  # of the inverse of `lower`, whose square is the inverse's diagonal
        square = 0.0
        for j in range(i, count):
            value = 1.0 if j == i else 0.0
            for k in range(i, j):
                value -= lower[j, k] * column[k]
            column[j] = value / lower[j, j]
            square += column[j] * column[j]
        flux[n] = solution[i]
        spread[n] = np.sqrt(square * alone[i])


@kernel
def _misfit(
    pixels: Pixels, x: Floats, y: Floats, forms: Floats, background: Floats, rms: Floats, own: Integers, place: int,
    flux: Floats,
) -> float:  # fmt: skip
    """Mean square of what a fit leaves within half a width around a source, over the noise."""
    n = own[place]
    if not (np.isfinite(flux[n]) and rms[n] > 0):
        return np.nan
    height, width = pixels.shape
    total, seen = 0.0, 0
    left, last, bottom, top = _box(x[n], y[n], forms[n])
    for row in range(max(bottom, 0), min(top + 1, height)):
        for column in range(max(left, 0), min(last + 1, width)):
            value = pixels[row, column]
            if _form(forms[n], column - x[n], row - y[n]) > CUT / 4 or np.isnan(value):
                continue
            left_over = value - background[n]
            for other in range(len(own)):
                o = own[other]
                near = _form(forms[o], column - x[o], row - y[o])
                if near < _TAIL and np.isfinite(flux[o]):
                    left_over -= flux[o] * np.exp(-0.5 * near)
            total += left_over * left_over
            seen += 1
    return total / (seen * rms[n] * rms[n]) if seen else np.nan


@kernel
def _form(form: Floats, dx: float, dy: float) -> float:
    value: float = form[0] * dx * dx + 2 * form[1] * dx * dy + form[2] * dy * dy
    return value


@kernel
def _box(x: float, y: float, form: Floats) -> tuple[int, int, int, int]:
    """Columns and rows (first and last) of the ellipse in which pixels count."""
    size = form[0] * form[2] - form[1] * form[1]
    reach_x, reach_y = np.sqrt(CUT * form[2] / size), np.sqrt(CUT * form[0] / size)
    return (
        int(np.ceil(x - reach_x)),
        int(np.floor(x + reach_x)),
        int(np.ceil(y - reach_y)),
        int(np.floor(y + reach_y)),
    )
