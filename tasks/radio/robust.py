"""Scatter that outliers do not change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def robust_rms(values: NDArray[Any]) -> float:
    """1.4826 times the median deviation from the median, of what is within 3 of it; NaN for fewer than 16 numbers."""
    kept = values[np.isfinite(values)]
    rms = math.nan
    for _ in range(5):
        if kept.size < 16:
            return math.nan
        middle = np.median(kept)
        off = np.abs(kept - middle)
        rms = 1.4826 * float(np.median(off))
        inside = off <= 3 * rms
        if inside.all():
            break
        kept = kept[inside]
    return rms
