"""Turning the phases of visibilities: the loop of `phase_to`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT

_TURN = 2 * np.pi / SPEED_OF_LIGHT


@kernel
def rotate(data: NDArray[np.complex64], path_m: NDArray[np.float64], frequencies_hz: NDArray[np.float64]) -> None:
    """Take the phase of a path, in metres for each row, out of data (row, channel, correlation), in place."""
    rows, channels, correlations = data.shape
    for row in range(rows):
        if path_m[row] == 0.0:
            continue
        for channel in range(channels):
            angle = _TURN * path_m[row] * frequencies_hz[channel]
            factor = complex(np.cos(angle), -np.sin(angle))
            for correlation in range(correlations):
                data[row, channel, correlation] *= factor
