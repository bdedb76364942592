"""Sums of the pixels around positions: of a source of any shape what a Gaussian does not tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
_PARTS = 8
"""A pixel on the edge counts by how many of 8 x 8 points of it are inside."""


def aperture_sums(pixels: Pixels, x: Floats, y: Floats, radius: float, background: Floats) -> Floats:
    """Sums over circles of a radius (pixels) around 0-based positions, above the background of each (n,).

    In the image's unit times pixels: over the beam's area in pixels they are Jy.  NaN where a pixel of the circle has
    no value or lies outside, and where the background is NaN.
    """
    sums = np.empty(len(x))
    _sum(np.ascontiguousarray(pixels), np.asarray(x, float), np.asarray(y, float), radius, background, sums)
    return sums


@kernel
def _sum(pixels: Pixels, x: Floats, y: Floats, radius: float, background: Floats, sums: Floats) -> None:
    height, width = pixels.shape
    for n in range(len(x)):
        total = np.nan
        if np.isfinite(x[n]) and np.isfinite(y[n]) and np.isfinite(background[n]):
            total = 0.0
            for row in range(int(np.floor(y[n] - radius + 0.5)), int(np.floor(y[n] + radius + 0.5)) + 1):
                for column in range(int(np.floor(x[n] - radius + 0.5)), int(np.floor(x[n] + radius + 0.5)) + 1):
                    inside = 0
                    for j in range(_PARTS):
                        for i in range(_PARTS):
                            dx = column - 0.5 + (i + 0.5) / _PARTS - x[n]
                            dy = row - 0.5 + (j + 0.5) / _PARTS - y[n]
                            if dx * dx + dy * dy <= radius * radius:
                                inside += 1
                    if inside == 0:
                        continue
                    if row < 0 or row >= height or column < 0 or column >= width:
                        total = np.nan
                    else:
                        total += inside / _PARTS**2 * (pixels[row, column] - background[n])
        sums[n] = total
