"""What points make of visibilities, one by one and exactly: loops over points, so that they fill the vectors.

A point has e = exp(2 pi i d f), with f the frequency of a channel and d the delay u x + v y + w' (n - 1) of a row.
Arrays are (channel, point); a multiple of 8 points leaves no rest of a vector (`padded`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel, reordering_kernel

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Values = NDArray[np.complex64]
_LANES = 8


def padded(points: int) -> int:
    """How many points there are room for: the others have no flux."""
    return -(-points // _LANES) * _LANES


@kernel
def subtract(values: Values, uvw_s: Floats, frequencies: Floats, even: bool, cosines: Floats, flux: Singles) -> None:
    """Take points out of visibilities (row, channel).

    `uvw_s` (row, 3) are seconds, `cosines` (3, point) x, y and n - 1, `flux` (channel, point) Jy; `even` tells that
    channels are equally far apart.
    """
    delay, turn_real, turn_imag = np.empty((3, flux.shape[1]))
    real, imag = np.empty(flux.shape, np.float32), np.empty(flux.shape, np.float32)
    for row in range(values.shape[0]):
        _phases(uvw_s[row], frequencies, even, cosines, delay, turn_real, turn_imag, real, imag)
        for channel in range(len(frequencies)):
            values[row, channel] -= _seen(flux[channel], real[channel], imag[channel])


@kernel
def project(
    values: Values, weights: Singles, uvw_s: Floats, frequencies: Floats, even: bool, cosines: Floats, flux: Singles,
    along: Singles, turned: Floats,
) -> None:  # fmt: skip
    """Add to `along` (channel, point) w Re(r conj(e)), and to `turned` (2, point) f u and f v times w Im(r conj(e)).

    r is what points leave of the visibilities.
    """
    delay, turn_real, turn_imag = np.empty((3, flux.shape[1]))
    real, imag = np.empty(flux.shape, np.float32), np.empty(flux.shape, np.float32)
    across = np.empty(flux.shape[1], np.float32)
    for row in range(values.shape[0]):
        _phases(uvw_s[row], frequencies, even, cosines, delay, turn_real, turn_imag, real, imag)
        across[:] = 0
        for channel in range(len(frequencies)):
            of_real, of_imag, sums = real[channel], imag[channel], along[channel]
            left = weights[row, channel] * (values[row, channel] - _seen(flux[channel], of_real, of_imag))
            scale = np.float32(frequencies[channel] / frequencies[0])  # near 1: f u as seconds would be lost
            left_real, left_imag = left.real, left.imag
            high_real, high_imag = scale * left_real, scale * left_imag
            for p in range(flux.shape[1]):
                sums[p] += left_real * of_real[p] + left_imag * of_imag[p]
                across[p] += high_imag * of_real[p] - high_real * of_imag[p]
        u, v = uvw_s[row, 0] * frequencies[0], uvw_s[row, 1] * frequencies[0]
        for p in range(flux.shape[1]):
            turned[0, p] += u * across[p]
            turned[1, p] += v * across[p]


@reordering_kernel
def _seen(flux: Singles, real: Singles, imag: Singles) -> np.complex64:
    """The visibility of all points in one channel."""
    seen_real, seen_imag = np.float32(0), np.float32(0)
    for p in range(len(flux)):
        seen_real += flux[p] * real[p]
        seen_imag += flux[p] * imag[p]
    return np.complex64(complex(seen_real, seen_imag))


@kernel
def _phases(
    uvw_s: Floats, frequencies: Floats, even: bool, cosines: Floats, delay: Floats, turn_real: Floats,
    turn_imag: Floats, real: Singles, imag: Singles,
) -> None:  # fmt: skip
    """E of one row.

    Where channels are even, the first 1, 2, 4, ... of them are turned into as many more, which takes products alone.
    """
    channels, points = real.shape
    for channel in range(1 if even else channels):
        for p in range(points):
            place = uvw_s[0] * cosines[0, p] + uvw_s[1] * cosines[1, p] + uvw_s[2] * cosines[2, p]
            delay[p] = place * frequencies[channel]
        _turn(delay, turn_real, turn_imag)
        for p in range(points):
            real[channel, p], imag[channel, p] = turn_real[p], turn_imag[p]
    if not even or channels == 1:
        return
    step = (frequencies[1] - frequencies[0]) / frequencies[0]
    for p in range(points):
        delay[p] *= step
    _turn(delay, turn_real, turn_imag)
    by_real, by_imag = np.empty(points, np.float32), np.empty(points, np.float32)
    known = 1
    while known < channels:
        for p in range(points):
            by_real[p], by_imag[p] = turn_real[p], turn_imag[p]
        for channel in range(min(known, channels - known)):
            old_real, old_imag = real[channel], imag[channel]
            new_real, new_imag = real[known + channel], imag[known + channel]
            for p in range(points):
                new_real[p] = by_real[p] * old_real[p] - by_imag[p] * old_imag[p]
                new_imag[p] = by_real[p] * old_imag[p] + by_imag[p] * old_real[p]
        for p in range(points):
            before = turn_real[p]
            turn_real[p] = before * before - turn_imag[p] * turn_imag[p]
            turn_imag[p] = 2 * before * turn_imag[p]
        known *= 2


@kernel
def _turn(turns: Floats, real: Floats, imag: Floats) -> None:
    """exp(2 pi i turns), to 1e-9: Taylor's series within a quarter of a turn of 0 or of a half."""
    for p in range(len(turns)):
        halves = np.floor(2 * turns[p] + 0.5)
        angle = 2 * np.pi * (turns[p] - 0.5 * halves)
        sign = 1 - 2 * (halves - 2 * np.floor(0.5 * halves))
        z = angle * angle
        cosine = 1 - z / 2 * (1 - z / 12 * (1 - z / 30 * (1 - z / 56 * (1 - z / 90 * (1 - z / 132 * (1 - z / 182))))))
        sine = 1 - z / 6 * (1 - z / 20 * (1 - z / 42 * (1 - z / 72 * (1 - z / 110 * (1 - z / 156 * (1 - z / 210))))))
        real[p], imag[p] = sign * cosine, sign * angle * sine
