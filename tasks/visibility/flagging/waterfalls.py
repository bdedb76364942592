"""Rows sorted by baseline: what is looked at together are the times and channels of one baseline, its waterfall."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GAP = 10
"""Integrations without data after which a new waterfall begins: nothing is known of what was between."""


@dataclass(frozen=True, slots=True)
class Waterfalls:
    """In which order rows are looked at, and where each waterfall begins."""

    rows: NDArray[np.int64]
    """(place,), the row at each place: by baseline, scan and time."""
    starts: NDArray[np.int64]
    """(waterfall + 1,), places; the last is the number of rows."""

    @property
    def count(self) -> int:
        return len(self.starts) - 1

    def blocks(self, bytes_of_row: int, bytes_at_once: int) -> Iterator[tuple[int, int]]:
        """Waterfalls, from and to, that are in memory together: as many as fit, one at least."""
        fit = max(1, bytes_at_once // max(1, bytes_of_row))
        first = 0
        while first < self.count:
            last = int(np.searchsorted(self.starts, self.starts[first] + fit, side="right")) - 1
            last = min(max(last, first + 1), self.count)
            yield first, last
            first = last


def waterfalls(
    antenna1: NDArray[np.int32],
    antenna2: NDArray[np.int32],
    scan: NDArray[np.int32],
    time_s: NDArray[np.float64],
    exposure_s: NDArray[np.float64],
) -> Waterfalls:
    """Sort rows; each may have other times than its neighbours, and a baseline its own number of them.

    A waterfall ends with its scan, and before a gap of `GAP` integrations.  Rows of antennas p, q and q, p are of the
    same baseline.
    """
    low, high = np.minimum(antenna1, antenna2), np.maximum(antenna1, antenna2)
    rows = np.lexsort((time_s, scan, high, low)).astype(np.int64)
    if not rows.size:
        return Waterfalls(rows, np.zeros(1, np.int64))
    same = np.ones(rows.size - 1, np.bool_)
    for each in (low, high, scan):
        same &= each[rows[1:]] == each[rows[:-1]]
    step = np.diff(time_s[rows])
    real = step[same & (step > 0)]
    usual = np.maximum(float(np.median(real)) if real.size else 0.0, exposure_s[rows[1:]])
    begins = np.flatnonzero(~(same & (step <= GAP * usual))) + 1
    return Waterfalls(rows, np.concatenate(([0], begins, [rows.size])).astype(np.int64))
