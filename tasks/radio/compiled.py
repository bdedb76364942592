"""Loops that are compiled when they are first called, and kept compiled on the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a loop over arrays; it runs without the GIL, and may call other kernels.

    Sums are made in the order in which they are written: the same input gives the same bits.
    """
    compiled: F = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled
