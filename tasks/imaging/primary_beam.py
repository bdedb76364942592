"""The beam of the dishes over an image: the mean of what they looked at while the sky drifted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.geometry import Geometry
from absurd.tasks.imaging.samples import Samples
from absurd.tasks.radio.beam import Beam

Floats = NDArray[np.float64]
_STEP = 32
"""Pixels between places where the beam is reckoned; a spline goes through them."""
_FREQUENCIES = 8
"""Parts of the band of which each has its own."""


def primary_beam(
    samples: Samples, weights: NDArray[np.float32], geometry: Geometry, beam: Beam | None
) -> NDArray[np.float32]:
    """(y, x), power received of a source as a share: the mean over pointings and frequencies, by weight.

    1 everywhere without a beam; NaN beyond the sky.
    """
    from scipy.interpolate import RectBivariateSpline

    ny, nx = geometry.shape
    power = np.ones((ny, nx), np.float32)
    if beam is None:
        return power
    nodes = [np.linspace(0, size - 1, max(5, size // _STEP + 1)) for size in (ny, nx)]
    coarse = at_places(samples, weights, geometry, beam, *np.meshgrid(*nodes, indexing="ij"))
    if not np.isfinite(coarse).all():  # the image reaches beyond the sky
        for row in range(ny):
            power[row] = at_places(
                samples, weights, geometry, beam, np.full(nx, float(row)), np.arange(nx, dtype=float)
            )
        return power
    spline = RectBivariateSpline(*nodes, coarse)
    columns = np.arange(nx)
    for first in range(0, ny, 256):
        rows = np.arange(first, min(ny, first + 256))
        power[rows] = spline(rows, columns)
    return power


def at_places(
    samples: Samples, weights: NDArray[np.float32], geometry: Geometry, beam: Beam, y: Floats, x: Floats
) -> Floats:
    """The same at 0-based pixel coordinates."""
    east, north = geometry.plane(y, x)
    down = geometry.depth(east, north)
    a, b = geometry.slant
    here = np.stack([east - a * down, north - b * down, 1 + down])
    by_channel = weights.sum(axis=0, dtype=np.float64)
    power = np.zeros(np.shape(y))
    for channels in np.array_split(np.arange(len(by_channel)), min(_FREQUENCIES, len(by_channel))):
        share = by_channel[channels]
        if not share.any():
            continue
        frequency = float(np.average(samples.frequencies_hz[channels], weights=share))
        for ra, dec, weight in samples.pointings:
            there = _cosines(samples.centre.ra_rad, samples.centre.dec_rad, ra, dec)
            chord = np.sqrt(sum((one - other) ** 2 for one, other in zip(here, there, strict=True)))
            distance = 2 * np.arcsin(chord / 2)
            power += weight * share.sum() * beam.power(distance, np.asarray(frequency))
    mean: Floats = power / (by_channel.sum() * samples.pointings[:, 2].sum())
    return mean


def _cosines(ra0: float, dec0: float, ra: float, dec: float) -> tuple[float, float, float]:
    """L to the east, m to the north and n of a direction, as seen from the centre."""
    turn = ra - ra0
    return (
        float(np.cos(dec) * np.sin(turn)),
        float(np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(turn)),
        float(np.sin(dec) * np.sin(dec0) + np.cos(dec) * np.cos(dec0) * np.cos(turn)),
    )
