"""What all tensors of one file have in common, whatever its form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AXES = ["band", "y", "x"]

Append = Callable[[NDArray[np.int64], Sequence[str | None], NDArray[np.float32], NDArray[np.bool_]], None]
"""Takes numbers of the requests, their ids, pixels (n, bands, y, x), and where these have no value."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape (bands, y, x), the names of the bands, and what was done to the pixels."""

    shape: tuple[int, int, int]
    bands: tuple[str, ...]
    normalisation: str
