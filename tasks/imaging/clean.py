"""Components: the peaks of a residual, a share at a time, each with the point spread function taken off.

Högbom (1974) takes it off as far as the image reaches; Clark (1980) only nearby, which is faster, and leaves the rest
to the next gridding.  Both look only at pixels that are above the limit when they begin: others can do so next time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]
CLARK_HALF = 512
"""Pixels to each side of a component from which Clark takes it off."""
_MOST_ACTIVE = 1 << 20
"""Pixels looked at, at most: the limit is raised until they are as few."""
_GROWN = 1.2
"""A minor cycle ends where peaks grow by this: it works on what sidelobes beyond the patch have left."""


@dataclass(frozen=True, slots=True)
class Components:
    """What a minor cycle found: parts of peaks, one after another."""

    y: NDArray[np.int64]
    x: NDArray[np.int64]
    flux_jy: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.flux_jy)

    def add_to(self, model: Pixels) -> None:
        """Add them to a model (y, x), in place."""
        np.add.at(model, (self.y, self.x), self.flux_jy.astype(np.float32))


def outside(psf: Pixels, half: int) -> float:
    """The highest sidelobe farther than `half` pixels from the middle along x or y."""
    ny, nx = psf.shape
    low, high, left, right = max(0, ny // 2 - half), ny // 2 + half + 1, max(0, nx // 2 - half), nx // 2 + half + 1
    parts = (psf[:low], psf[high:], psf[low:high, :left], psf[low:high, right:])
    return max((float(max(each.max(), -each.min())) for each in parts if each.size), default=0.0)


def peak(residual: Pixels, mask: Mask | None) -> float:
    """The highest absolute value where is cleaned, Jy of a beam."""
    if mask is None:
        return float(max(residual.max(), -residual.min()))
    return float(np.abs(residual[mask]).max(initial=0.0))


def minor_cycle(
    residual: Pixels, psf: Pixels, *, half: int, gain: float, limit_jy: float, most: int, mask: Mask | None = None
) -> Components:
    """Components down to a limit, `most` at most; the residual stays as it is.

    `psf` has its peak of 1 in pixel (ny / 2, nx / 2), and is taken off within `half` pixels along x and y.
    """
    limit = limit_jy
    active = (residual > limit) | (residual < -limit)
    if mask is not None:
        active &= mask
    if np.count_nonzero(active) > _MOST_ACTIVE:
        sizes = np.abs(residual[active])
        limit = max(limit, float(np.partition(sizes, -_MOST_ACTIVE)[-_MOST_ACTIVE]))
        active &= (residual > limit) | (residual < -limit)
    ys, xs = np.nonzero(active)
    values = residual[ys, xs]
    places, fluxes = np.empty(most, np.int64), np.empty(most, np.float64)
    first_of_row = np.searchsorted(ys, np.arange(residual.shape[0] + 1))
    found = _peel(values, ys, xs, first_of_row, psf, half, gain, limit, places, fluxes)
    return Components(ys[places[:found]], xs[places[:found]], fluxes[:found].copy())


@kernel
def _peel(
    values: NDArray[np.float32], ys: NDArray[np.int64], xs: NDArray[np.int64], first_of_row: NDArray[np.int64],
    psf: Pixels, half: int, gain: float, limit: float, places: NDArray[np.int64], fluxes: NDArray[np.float64],
) -> int:  # fmt: skip
    middle_y, middle_x = psf.shape[0] // 2, psf.shape[1] // 2
    rows = first_of_row.shape[0] - 1
    lowest = np.float32(np.inf)
    for number in range(len(places)):
        highest, at = np.float32(0), -1
        for each in range(len(values)):
            size = abs(values[each])
            if size > highest:
                highest, at = size, each
        if at < 0 or highest <= limit or highest > _GROWN * lowest:
            return number
        lowest = min(lowest, highest)
        flux = gain * values[at]
        places[number], fluxes[number] = at, flux
        part = np.float32(flux)
        y, x = ys[at], xs[at]
        start = first_of_row[max(0, y - min(half, middle_y))]
        end = first_of_row[min(rows, y + min(half, psf.shape[0] - 1 - middle_y) + 1)]
        for each in range(start, end):
            across = xs[each] - x + middle_x
            if -half <= xs[each] - x <= half and 0 <= across < psf.shape[1]:
                values[each] -= part * psf[ys[each] - y + middle_y, across]
    return len(places)
