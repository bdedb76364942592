"""Loops over visibilities, flags and weights (row, channel, correlation): each goes over its arrays once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT

_TURN = 2 * np.pi / SPEED_OF_LIGHT


@kernel
def rotate(data: NDArray[np.complex64], path_m: NDArray[np.float64], frequencies_hz: NDArray[np.float64]) -> None:
    """Take the phase of a path, in metres for each row, out of data, in place."""
    rows, channels, correlations = data.shape
    for row in range(rows):
        if path_m[row] == 0.0:
            continue
        for channel in range(channels):
            angle = _TURN * path_m[row] * frequencies_hz[channel]
            factor = complex(np.cos(angle), -np.sin(angle))
            for correlation in range(correlations):
                data[row, channel, correlation] *= factor


@kernel
def put_in_order(
    stored: tuple[NDArray[np.complex64], NDArray[np.bool_], NDArray[np.float32]],
    channels: NDArray[np.intp],
    correlations: NDArray[np.intp],
    conjugate: bool,
    ordered: tuple[NDArray[np.complex64], NDArray[np.bool_], NDArray[np.float32]],
) -> None:
    """Copy data, flags and weights, with the channels and correlations that are named; weights are 0 or more."""
    data, flags, weights = stored
    new_data, new_flags, new_weights = ordered
    for row in range(new_data.shape[0]):
        for channel in range(len(channels)):
            for correlation in range(len(correlations)):
                place = row, channels[channel], correlations[correlation]
                value, weight = data[place], weights[place]
                new_data[row, channel, correlation] = value.conjugate() if conjugate else value
                new_flags[row, channel, correlation] = flags[place]
                new_weights[row, channel, correlation] = weight if weight > 0 else np.float32(0)


@kernel
def add_weights(
    flags: NDArray[np.bool_], weights: NDArray[np.float32], sums: NDArray[np.float64], counts: NDArray[np.int64]
) -> None:
    """Add to `sums` of weights and `counts` of channels, (row, correlation), what is not flagged."""
    rows, channels, correlations = flags.shape
    for row in range(rows):
        for channel in range(channels):
            for correlation in range(correlations):
                if not flags[row, channel, correlation]:
                    sums[row, correlation] += weights[row, channel, correlation]
                    counts[row, correlation] += 1


@kernel
def flag_invalid(
    data: NDArray[np.complex64],
    flags: NDArray[np.bool_],
    weights: NDArray[np.float32],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> tuple[int, int]:
    """Make 0 and flag what is no number; add up what is not flagged; how many were no numbers, and are flagged.

    `sums` of weights and `counts` of channels are (row, correlation), and are added to.
    """
    rows, channels, correlations = data.shape
    invalid = flagged = 0
    for row in range(rows):
        for channel in range(channels):
            for correlation in range(correlations):
                value = data[row, channel, correlation]
                if not (np.isfinite(value.real) and np.isfinite(value.imag)):
                    data[row, channel, correlation] = 0
                    flags[row, channel, correlation] = True
                    invalid += 1
                if flags[row, channel, correlation]:
                    flagged += 1
                else:
                    sums[row, correlation] += weights[row, channel, correlation]
                    counts[row, correlation] += 1
    return invalid, flagged
