"""Weights of visibilities in an image: natural, uniform, and Briggs's between the two.

D. S. Briggs, High fidelity deconvolution of moderately resolved sources (1995), chapter 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.imaging.samples import Samples
from absurd.tasks.radio.compiled import kernel
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT

Floats = NDArray[np.float64]


def imaging_weights(samples: Samples, parameters: ImagingParameters) -> NDArray[np.float32]:
    """(row, channel), with the sum 1.

    Natural weights are those of the visibilities, w.  With W the sum of these in a cell of the plane of baselines, of
    1 / (size of the image), uniform ones are w / W and Briggs's w / (1 + W f^2), f^2 = (5 10^-robust)^2 / mean W,
    where the mean is over visibilities, by weight.
    """
    weights = samples.weights.copy()
    if parameters.weighting != "natural":
        nx, ny = parameters.image_size
        per_metre = np.array([nx, ny]) * parameters.cell_rad / SPEED_OF_LIGHT
        cells = np.zeros((ny, nx // 2 + 1), np.float32)
        uv = samples.uvw_m[:, :2] * per_metre
        _fill(uv, samples.frequencies_hz, weights, cells)
        if parameters.weighting == "uniform":
            constant, factor = 0.0, 1.0
        else:
            constant = 1.0
            square = float(np.vdot(cells, cells)) / float(cells.sum(dtype=np.float64))
            factor = (5.0 * 10.0**-parameters.robust) ** 2 / square
        _divide(uv, samples.frequencies_hz, cells, constant, factor, weights)
    weights /= weights.sum(dtype=np.float64)
    return weights


def thermal_noise_jy(weights: NDArray[np.float32], samples: Samples) -> float:
    """Deviation of the image, of a beam, as the weights of the visibilities have it; `weights` have the sum 1."""
    return float(np.sqrt(_variance(weights, samples.weights)))


@kernel
def _variance(weights: NDArray[np.float32], natural: NDArray[np.float32]) -> float:
    total = 0.0
    for row in range(weights.shape[0]):
        for channel in range(weights.shape[1]):
            if natural[row, channel] > 0:
                total += np.float64(weights[row, channel]) ** 2 / natural[row, channel]
    return total


@kernel
def _cell(u: float, v: float, ny: int, half: int) -> tuple[int, int]:
    """Of a visibility or its conjugate, whose u is not negative; (-1, -1) beyond the plane."""
    if u < 0:
        u, v = -u, -v
    x, y = int(np.floor(u + 0.5)), int(np.floor(v + 0.5))
    if x > half or y >= ny // 2 or y < -(ny // 2):
        return -1, -1
    return y % ny, x


@kernel
def _fill(uv: Floats, frequencies: Floats, weights: NDArray[np.float32], cells: NDArray[np.float32]) -> None:
    ny, half = cells.shape[0], cells.shape[1] - 1
    for row in range(weights.shape[0]):
        for channel in range(weights.shape[1]):
            y, x = _cell(uv[row, 0] * frequencies[channel], uv[row, 1] * frequencies[channel], ny, half)
            if y >= 0:
                cells[y, x] += weights[row, channel]


@kernel
def _divide(
    uv: Floats, frequencies: Floats, cells: NDArray[np.float32], constant: float, factor: float,
    weights: NDArray[np.float32],
) -> None:  # fmt: skip
    ny, half = cells.shape[0], cells.shape[1] - 1
    for row in range(weights.shape[0]):
        for channel in range(weights.shape[1]):
            if weights[row, channel] > 0:
                y, x = _cell(uv[row, 0] * frequencies[channel], uv[row, 1] * frequencies[channel], ny, half)
                # What pixels are too wide for would fold back into the image.
                weights[row, channel] = weights[row, channel] / (constant + factor * cells[y, x]) if y >= 0 else 0.0
