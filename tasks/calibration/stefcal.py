"""The solver: gains of antennas that agree best with sums over baselines.

Alternating least squares with the average of every second iterate (StEFCal: Salvini and Wijnholds 2014, A&A 571, A97):
with all other gains held, g_p = sum_q X_pq g_q / sum_q Y_pq |g_q|^2, where X = sum w V conj(H) and Y = sum w |H|^2.
It begins at the leading eigenvector of the matrix of X_pq / sqrt(Y_pq Y_mean), by power iterations, so that phases may
be anything.

The standard deviation of a gain's real part is noise / sqrt(sum_q Y_pq |g_q|^2), with the noise of what the fit leaves
over its degrees of freedom: so weights need to be right only among themselves.  Noise without any signal has gains too,
at an SNR of sqrt(8) = 2.8 each, whatever the number of antennas: the largest eigenvalue of a Hermitian matrix of noise
of n antennas is 2 sigma sqrt(n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.rows import Numbers
from absurd.tasks.calibration.sums import Complex, Floats, Sums
from absurd.tasks.radio.compiled import kernel

States = NDArray[np.int8]
SOLVED, NO_DATA, FEW_BASELINES, APART, NOT_CONVERGED, LOW_SNR, BAD_FIT = range(7)
"""Why there is a solution, or none: `APART` antennas share no baseline with most others, directly or through others."""
NOISE_SNR = 8**0.5
"""What noise alone gives, root mean square over antennas."""


@dataclass(frozen=True, slots=True)
class Solved:
    """Gains as they come, with phases that are only known among antennas."""

    values: Complex
    """(interval, antenna, channel, polarisation), 0 where there is no solution."""
    state: States
    """Of the same shape: `SOLVED`, or why not."""
    snr: Floats
    """Of the same shape."""
    iterations: Numbers
    """(interval, channel, polarisation)."""
    chi_squared: Floats
    """(interval, channel, polarisation): sum of w |V - fit|^2."""
    freedom: Floats
    """(interval, channel, polarisation): its degrees of freedom, real ones."""


def solve_sums(
    sums: Sums,
    pairs: Numbers,
    start: Complex,
    *,
    min_baselines: int,
    tolerance: float,
    max_iterations: int,
) -> Solved:
    """Gains of each interval, channel and polarisation, apart from one another.

    `pairs` (baseline, 2) are the antennas of a baseline, the lower first; `start` (interval, antenna, channel,
    polarisation) is what has been found before, all 0 where nothing has.  The same input gives the same bits.
    """
    shape = start.shape
    without = (shape[0], *shape[2:])
    made = Solved(
        start.copy(),
        np.zeros(shape, np.int8),
        np.zeros(shape),
        np.zeros(without, np.int64),
        np.zeros(without),
        np.zeros(without),
    )
    _solve_all(
        sums.cross, sums.model, sums.data, sums.count, sums.seen, pairs,
        min_baselines, tolerance, max_iterations,
        made.values, made.state, made.snr, made.iterations, made.chi_squared, made.freedom,
    )  # fmt: skip
    return made


@kernel
def _solve_all(
    cross: Complex, model: Floats, data: Floats, count: Floats, seen: Floats, pairs: Numbers,
    min_baselines: int, tolerance: float, max_iterations: int,
    values: Complex, state: States, snr: Floats, iterations: Numbers, chi_squared: Floats, freedom: Floats,
) -> None:  # fmt: skip
    n = values.shape[1]
    block = min(8, values.shape[2])  # channels that are fetched at once, since they lie side by side
    x_real = np.zeros((block, n, n))
    x_imag = np.zeros((block, n, n))
    y = np.zeros((block, n, n))
    for i in range(values.shape[0]):
        for hand in range(values.shape[3]):
            for begin in range(0, values.shape[2], block):
                end = min(begin + block, values.shape[2])
                for b in range(pairs.shape[0]):
                    p = pairs[b, 0]
                    q = pairs[b, 1]
                    for c in range(begin, end):
                        each = cross[i, b, hand, c]
                        x_real[c - begin, p, q] = each.real
                        x_real[c - begin, q, p] = each.real
                        x_imag[c - begin, p, q] = each.imag
                        x_imag[c - begin, q, p] = -each.imag
                        y[c - begin, p, q] = model[i, b, hand, c]
                        y[c - begin, q, p] = model[i, b, hand, c]
                for c in range(begin, end):
                    iterations[i, c, hand], chi_squared[i, c, hand], freedom[i, c, hand] = _solve_one(
                        x_real[c - begin], x_imag[c - begin], y[c - begin],
                        data[i, :, hand, c], count[i, :, hand, c], seen[i, hand, c], pairs,
                        min_baselines, tolerance, max_iterations,
                        values[i, :, c, hand], state[i, :, c, hand], snr[i, :, c, hand],
                    )  # fmt: skip


@kernel
def _solve_one(
    x_real: Floats, x_imag: Floats, y: Floats, data: Floats, count: Floats, seen: float, pairs: Numbers,
    min_baselines: int, tolerance: float, max_iterations: int,
    values: Complex, why: States, snr: Floats,
) -> tuple[int, float, float]:  # fmt: skip
    """Solve one matrix, of which the rows and columns of unusable antennas are made 0."""
    n = len(values)
    real = values.real.copy()
    imag = values.imag.copy()
    _judge(y, min_baselines, why)
    left = 0
    known_before = False
    for p in range(n):
        if why[p] == SOLVED:
            left += 1
            known_before = known_before or real[p] != 0.0 or imag[p] != 0.0
        else:
            real[p] = 0.0
            imag[p] = 0.0
            x_real[p, :] = 0.0
            x_real[:, p] = 0.0
            x_imag[p, :] = 0.0
            x_imag[:, p] = 0.0
            y[p, :] = 0.0
            y[:, p] = 0.0
    if left == 0:
        values[:] = 0.0
        return 0, 0.0, 0.0
    if not known_before:
        _begin(x_real, x_imag, y, why, real, imag)
    took, converged = _iterate(x_real, x_imag, y, why, real, imag, tolerance, max_iterations)
    squares, visibilities = _left(x_real, x_imag, y, real, imag, data, count, pairs, why)
    kept = min(1.0, np.sum(count) / seen) if seen > 0.0 else 0.0  # of the weights, where there are outliers
    freedom = max(0.0, 2.0 * visibilities - kept * (2.0 * left - 1.0))
    # Whatever the rounding: no fit to data of single precision is better than to a part in 1e7.
    squares = max(squares, 1e-14 * np.sum(data))
    variance = squares / freedom if freedom > 0.0 else 1.0
    for p in range(n):
        known = 0.0
        for q in range(n):
            known += y[p, q] * (real[q] * real[q] + imag[q] * imag[q])
        size = np.sqrt(real[p] * real[p] + imag[p] * imag[p])
        snr[p] = size * np.sqrt(known / variance) if why[p] == SOLVED and variance > 0.0 else 0.0
    for p in range(n):
        values[p] = complex(real[p], imag[p]) if why[p] == SOLVED else 0.0j
        if not converged and why[p] == SOLVED:
            why[p] = NOT_CONVERGED
    return took, squares, freedom


@kernel
def _judge(y: Floats, min_baselines: int, why: States) -> None:
    """Say of each antenna whether it can be solved: enough baselines to others that can, and one network of them."""
    n = y.shape[0]
    for p in range(n):
        why[p] = NO_DATA
        for q in range(n):
            if y[p, q] > 0.0:
                why[p] = SOLVED
                break
    changed = True
    while changed:
        changed = False
        for p in range(n):
            if why[p] != SOLVED:
                continue
            baselines = 0
            for q in range(n):
                if y[p, q] > 0.0 and why[q] == SOLVED:
                    baselines += 1
            if baselines < min_baselines:
                why[p] = FEW_BASELINES
                changed = True
    network = np.full(n, -1)
    queue = np.zeros(n, np.int64)
    largest = -1
    most = 0
    for start in range(n):
        if why[start] != SOLVED or network[start] >= 0:
            continue
        network[start] = start
        queue[0] = start
        taken = 0
        size = 1
        while taken < size:
            p = queue[taken]
            taken += 1
            for q in range(n):
                if y[p, q] > 0.0 and why[q] == SOLVED and network[q] < 0:
                    network[q] = start
                    queue[size] = q
                    size += 1
        if size > most:
            most = size
            largest = start
    for p in range(n):
        if why[p] == SOLVED and network[p] != largest:
            why[p] = APART


@kernel
def _begin(x_real: Floats, x_imag: Floats, y: Floats, why: States, real: Floats, imag: Floats) -> None:
    """Make the gains the leading eigenvector, scaled so that it fits best."""
    n = y.shape[0]
    mean = 0.0
    baselines = 0
    for p in range(n):
        for q in range(n):
            if y[p, q] > 0.0:
                mean += y[p, q]
                baselines += 1
    mean /= max(baselines, 1)
    a_real = np.zeros((n, n))
    a_imag = np.zeros((n, n))
    best = 0
    most = -1.0
    for p in range(n):
        strength = 0.0
        for q in range(n):
            if y[p, q] > 0.0:
                scale = 1.0 / np.sqrt(y[p, q] * mean)
                a_real[p, q] = x_real[p, q] * scale
                a_imag[p, q] = x_imag[p, q] * scale
                strength += np.sqrt(a_real[p, q] * a_real[p, q] + a_imag[p, q] * a_imag[p, q])
        if why[p] == SOLVED and strength > most:
            most = strength
            best = p
    for p in range(n):
        size = np.sqrt(a_real[p, best] * a_real[p, best] + a_imag[p, best] * a_imag[p, best])
        real[p] = a_real[p, best] / size if size > 0.0 else 0.0
        imag[p] = a_imag[p, best] / size if size > 0.0 else 0.0
    real[best] = 1.0
    top_real = np.zeros(n)
    top_imag = np.zeros(n)
    for _ in range(12):
        _times(a_real, a_imag, real, imag, top_real, top_imag)
        norm = 0.0
        for p in range(n):
            # Shifted, so that the other end of the spectrum never wins, as it would where antennas form two parties.
            top_real[p] += 0.3 * most * real[p]
            top_imag[p] += 0.3 * most * imag[p]
            norm += top_real[p] * top_real[p] + top_imag[p] * top_imag[p]
        if norm == 0.0:
            break
        norm = 1.0 / np.sqrt(norm)
        for p in range(n):
            real[p] = top_real[p] * norm
            imag[p] = top_imag[p] * norm
    _times(x_real, x_imag, real, imag, top_real, top_imag)
    top = 0.0
    bottom = 0.0
    for p in range(n):
        top += top_real[p] * real[p] + top_imag[p] * imag[p]
        own = real[p] * real[p] + imag[p] * imag[p]
        for q in range(n):
            bottom += y[p, q] * own * (real[q] * real[q] + imag[q] * imag[q])
    size = np.sqrt(top / bottom) if top > 0.0 and bottom > 0.0 else 1.0
    for p in range(n):
        real[p] *= size
        imag[p] *= size


@kernel
def _times(
    x_real: Floats, x_imag: Floats, real: Floats, imag: Floats, product_real: Floats, product_imag: Floats
) -> None:
    """The Hermitian matrix x times a vector; by columns of its conjugate, that is rows, which lie side by side."""
    n = x_real.shape[0]
    for p in range(n):
        product_real[p] = 0.0
        product_imag[p] = 0.0
    for q in range(n):
        g_real = real[q]
        g_imag = imag[q]
        for p in range(n):
            product_real[p] += x_real[q, p] * g_real + x_imag[q, p] * g_imag
            product_imag[p] += x_real[q, p] * g_imag - x_imag[q, p] * g_real


@kernel
def _iterate(
    x_real: Floats, x_imag: Floats, y: Floats, why: States, real: Floats, imag: Floats,
    tolerance: float, max_iterations: int,
) -> tuple[int, bool]:  # fmt: skip
    """Improve the gains in place: how many iterations it took, and whether they converged."""
    n = y.shape[0]
    new_real = np.zeros(n)
    new_imag = np.zeros(n)
    below = np.ones(n)
    for iteration in range(1, max_iterations + 1):
        _times(x_real, x_imag, real, imag, new_real, new_imag)
        for p in range(n):
            below[p] = 0.0
        for q in range(n):
            power = real[q] * real[q] + imag[q] * imag[q]
            for p in range(n):
                below[p] += y[q, p] * power
        change = 0.0
        norm = 0.0
        for p in range(n):
            if why[p] != SOLVED:
                continue
            a = new_real[p] / below[p] if below[p] > 0.0 else real[p]
            b = new_imag[p] / below[p] if below[p] > 0.0 else imag[p]
            change += (a - real[p]) ** 2 + (b - imag[p]) ** 2
            norm += a * a + b * b
            if iteration % 2 == 0:
                a = 0.5 * (a + real[p])
                b = 0.5 * (b + imag[p])
            real[p] = a
            imag[p] = b
        if not (norm > 0.0 and norm < np.inf):
            return iteration, False
        if iteration % 2 == 0 and change <= tolerance * tolerance * norm:
            return iteration, True
    return max_iterations, False


@kernel
def _left(
    x_real: Floats, x_imag: Floats, y: Floats, real: Floats, imag: Floats,
    data: Floats, count: Floats, pairs: Numbers, why: States,
) -> tuple[float, float]:  # fmt: skip
    """Sum of w |V - fit|^2 over baselines of antennas that were solved, and how many visibilities these have."""
    squares = 0.0
    visibilities = 0.0
    for b in range(pairs.shape[0]):
        p = pairs[b, 0]
        q = pairs[b, 1]
        if not y[p, q] > 0.0:
            continue
        g_real = real[p] * real[q] + imag[p] * imag[q]
        g_imag = imag[p] * real[q] - real[p] * imag[q]
        fit = x_real[p, q] * g_real + x_imag[p, q] * g_imag
        squares += data[b] - 2.0 * fit + (g_real * g_real + g_imag * g_imag) * y[p, q]
        visibilities += count[b]
    return squares, visibilities
