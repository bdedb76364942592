"""Loops of forced photometry: a Gaussian fitted at a position, several fitted together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Integers = NDArray[np.int64]
CUT = 12.5
"""Pixels count whose quadratic form is below: to 1.5 widths at half maximum, where a Gaussian is 0.002."""
_INNER = float(np.exp(-CUT / 8))
"""What a Gaussian has not less than within half of that: what the fit leaves there is told."""
_TAIL = 50.0
"""A neighbour's Gaussian is nothing beyond: e^-25."""
_LEAST_SEEN = 0.5
"""Share of a Gaussian's square that has to be on pixels with a value."""
_LEAST_PIVOT = 0.02
"""Of a source's square that its neighbours must leave: sources nearer than a twelfth of a beam have less."""
OUTSIDE, BLANK, BLENDED, INSEPARABLE, NO_NOISE = 1, 2, 4, 8, 16


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
        if count == 1:
            _fit_alone(pixels, x, y, forms, background, rms, own[0], flux, spread, chi_squared, flags)
            continue
        normal = np.zeros((count, count))
        right = np.zeros(count)
        alone = np.zeros(count)  # integral of the square of a Gaussian over all pixels
        for place in range(count):
            _accumulate(pixels, x, y, forms, background, own, place, normal, right, alone)
        _solve(normal, right, alone, own, flux, spread, flags)
        for place in range(count):
            n = own[place]
            flags[n] |= BLENDED
            if np.isnan(rms[n]) or rms[n] <= 0:
                flags[n] |= NO_NOISE
            chi_squared[n] = _misfit(pixels, x, y, forms, background, rms, own, place, flux)


@kernel
def _fit_alone(
    pixels: Pixels, x: Floats, y: Floats, forms: Floats, background: Floats, rms: Floats, n: int,
    flux: Floats, spread: Floats, chi_squared: Floats, flags: Integers,
) -> None:  # fmt: skip
    """The same of one position, in one pass over its pixels.

    From one pixel to the next of a line a Gaussian grows by a factor, and that one by exp(-form[0]), which is all that
    takes an exponential: after 100 pixels it is right to 1e-12.
    """
    flux[n] = spread[n] = chi_squared[n] = np.nan
    if np.isnan(rms[n]) or rms[n] <= 0:
        flags[n] |= NO_NOISE
    if not (np.isfinite(x[n]) and np.isfinite(y[n]) and np.isfinite(background[n])):
        flags[n] |= OUTSIDE
        return
    height, width = pixels.shape
    xx, xy, yy = forms[n, 0], forms[n, 1], forms[n, 2]
    alone = square = product = 0.0
    inner_square = inner_product = inner_above = 0.0
    seen = 0
    faster = np.exp(-xx)
    _, _, bottom, top = _box(x[n], y[n], forms[n])
    for row in range(bottom, top + 1):
        dy = row - y[n]
        within = (xy * dy) ** 2 - xx * (yy * dy * dy - CUT)
        if within < 0:
            continue
        left = int(np.ceil(x[n] - (xy * dy + np.sqrt(within)) / xx))
        last = int(np.floor(x[n] - (xy * dy - np.sqrt(within)) / xx))
        dx = left - x[n]
        mine = np.exp(-0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy))
        growth = np.exp(-0.5 * (xx * (2 * dx + 1) + 2 * xy * dy))
        for column in range(left, last + 1):
            alone += mine * mine
            if 0 <= row < height and 0 <= column < width:
                value = pixels[row, column]
                if not np.isnan(value):
                    above = value - background[n]
                    square += mine * mine
                    product += mine * above
                    if mine >= _INNER:
                        inner_square += mine * mine
                        inner_product += mine * above
                        inner_above += above * above
                        seen += 1
            mine *= growth
            growth *= faster
    if not (alone > 0 and square >= _LEAST_SEEN * alone):
        flags[n] |= OUTSIDE
        return
    if square < 0.999 * alone:
        flags[n] |= BLANK
    flux[n] = product / square
    spread[n] = np.sqrt(alone / square)
    if seen and rms[n] > 0:
        left_over = inner_above - 2 * flux[n] * inner_product + flux[n] ** 2 * inner_square
        chi_squared[n] = max(left_over, 0.0) / (seen * rms[n] ** 2)


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
