"""Transforms of few points, without a grid: exact, with all of w, and cheaper than a grid of millions of pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.geometry import Geometry
from absurd.tasks.imaging.phasors import padded, subtract
from absurd.tasks.imaging.samples import Samples
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Values = NDArray[np.complex64]
_AT_ONCE = 64
"""Points whose phases stay in the processor's nearest cache."""


class Direct:
    """Of the visibilities of a grid."""

    def __init__(self, samples: Samples, geometry: Geometry, uvw_m: Floats) -> None:
        self._geometry, self._starts = geometry, samples.starts
        self.uvw_s = uvw_m / SPEED_OF_LIGHT
        self.frequencies_hz = samples.frequencies_hz
        steps = np.diff(samples.frequencies_hz)
        self.even = bool(not len(steps) or np.ptp(steps) < 1e-6 * abs(steps[0]))

    def cosines(self, places: Floats) -> Floats:
        """(3, padded point): x, y and n - 1 of 0-based pixel coordinates (point, 2), y and x."""
        x, y = self._geometry.plane(places[:, 0], places[:, 1])
        found = np.zeros((3, padded(len(places))))
        found[:, : len(places)] = x, y, np.nan_to_num(self._geometry.depth(x, y))
        return found

    def subtract(self, places: Floats, spectra: Callable[[int], Floats], values: Values) -> None:
        """Take points out of visibilities (row, channel), in place; `spectra` (channel, point) are Jy at a time."""
        for first in range(0, len(places), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            cosines = self.cosines(places[part])

            def take(number: int, rows: slice, part: slice = part, cosines: Floats = cosines) -> None:
                flux = padded_flux(spectra(number)[:, part])
                subtract(values[rows], self.uvw_s[rows], self.frequencies_hz, self.even, cosines, flux)

            self.by_time(take)

    def by_time(self, work: Callable[[int, slice], None]) -> None:
        """Each time by itself, on all processors; what is added up is the same however many there are."""
        parts: Iterator[tuple[int, slice]] = (
            (number, slice(int(begin), int(end)))
            for number, (begin, end) in enumerate(zip(self._starts[:-1], self._starts[1:], strict=True))
        )
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(lambda part: work(*part), parts))


def padded_flux(flux: Floats) -> Singles:
    """(channel, padded point) of (channel, point)."""
    room = np.zeros((flux.shape[0], padded(flux.shape[1])), np.float32)
    room[:, : flux.shape[1]] = flux
    return room
