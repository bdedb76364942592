"""Values of an image between its pixels: Lanczos-3 for images and variances, the nearest pixel for masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.sphere import Booleans, Floats

ORDER = 3
"""Of the Lanczos kernel: pixels that it reaches at each side."""
CHUNK = 1 << 15
"""Positions that are resampled together; each needs 36 pixels of the image."""


def lanczos_weights(fraction: Floats) -> Floats:
    """(n, 6) weights of the pixels -2 to 3 from the one below each position; `fraction` (n,) is 0 to below 1.

    sinc(x) sinc(x / 3), divided by their sum, so that a constant stays what it is (Turkowski 1990).
    """
    offsets = fraction[:, None] - np.arange(1 - ORDER, ORDER + 1)
    weights = np.sinc(offsets) * np.sinc(offsets / ORDER)
    normalised: Floats = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def resample(
    image: NDArray[np.generic],
    known: Booleans,
    pixels: Floats,
    variance: NDArray[np.generic] | None = None,
) -> tuple[Floats, Floats | None]:
    """Values (n,) at pixel positions (n, 2) (x, y) of an image (ny, nx), and their variances where one is given.

    Pixels that are not `known` (ny, nx), or not finite, do not count: the weights of the others are normalised to 1.
    A position whose nearest pixel is one of them is NaN.  Variances are sums over w² var of the same weights; that
    neighbouring results are correlated is not kept.
    """
    values = np.full(len(pixels), np.nan)
    variances = None if variance is None else np.full(len(pixels), np.nan)
    good = known & np.isfinite(image)
    if variance is not None:
        good &= np.isfinite(variance)
    for start in range(0, len(pixels), CHUNK):
        part = slice(start, start + CHUNK)
        values[part], found = _some(image, good, pixels[part], variance)
        if variances is not None:
            variances[part] = found
    return values, variances


def nearest(image: NDArray[np.generic], known: Booleans, pixels: Floats) -> tuple[NDArray[np.generic], Booleans]:
    """Values (n,) of the pixels nearest to positions (n, 2), and whether they are known; 0 where not."""
    index = np.floor(pixels + 0.5).astype(np.int64)
    inside = np.asarray(((index >= 0) & (index < image.shape[::-1])).all(axis=1))
    x, y = np.where(inside[:, None], index, 0).T
    found = inside & known[y, x]
    return np.where(found, image[y, x], image.dtype.type(0)), found


def _some(
    image: NDArray[np.generic], good: Booleans, pixels: Floats, variance: NDArray[np.generic] | None
) -> tuple[Floats, Floats | None]:
    below = np.floor(pixels)
    weights_x, weights_y = (lanczos_weights(part) for part in (pixels - below).T)
    reach = np.arange(1 - ORDER, ORDER + 1)
    x = below[:, 0].astype(np.int64)[:, None] + reach
    y = below[:, 1].astype(np.int64)[:, None] + reach
    ny, nx = image.shape
    inside = ((y >= 0) & (y < ny))[:, :, None] & ((x >= 0) & (x < nx))[:, None, :]
    x, y = np.clip(x, 0, nx - 1)[:, None, :], np.clip(y, 0, ny - 1)[:, :, None]
    counts = inside & good[y, x]
    weights = np.where(counts, weights_y[:, :, None] * weights_x[:, None, :], 0.0)
    _, there = nearest(good, good, pixels)
    # with the nearest pixel among them the weights' sum is far from 0
    total = np.where(there, weights.sum(axis=(1, 2)), np.nan)
    weights /= total[:, None, None]
    taken = np.where(counts, image[y, x], 0).astype(np.float64)
    values = np.einsum("nyx,nyx->n", weights, taken)
    if variance is None:
        return values, None
    spread = np.where(counts, variance[y, x], 0).astype(np.float64)
    return values, np.einsum("nyx,nyx->n", weights * weights, spread)
