"""Flux densities at positions that are given, whether there is a source or not."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.photometry.forced_kernel import OUTSIDE, fit_groups
from absurd.tasks.photometry.local_noise import surroundings
from absurd.tasks.photometry.shapes import width_pixels
from absurd.tasks.radio.robust import robust_rms

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Integers = NDArray[np.int64]
INNER, OUTER = 2.0, 5.0
"""Of the ring whose pixels are noise and background, in widths of the beam at half maximum."""
BLEND_WIDTHS = 2.5
"""Sources nearer than this are fitted together: a Gaussian leaves 0.0002 of itself in one so far away."""
_BLANKS = 2000
"""Random positions by which the scatter of fluxes is measured."""
_FEWEST_BLANKS = 100
_SEED = 20_240_229
_SAMPLED = 0.6
"""Distance of the ring's pixels that count, in short widths of the beam: nearer ones tell much the same."""
_AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Forced:
    """Measurements, one for each position, in the order of these; of arrays (n,)."""

    flux: Floats
    """Height of the Gaussian above the background, in the image's unit (Jy/beam); NaN where there is none."""
    error: Floats
    """Standard deviation of `flux`: `rms` times `scatter`, wider where neighbours are fitted too."""
    rms: Floats
    """Scatter of pixels around the position."""
    background: Floats
    chi_squared: Floats
    """Mean square of what the fit leaves within 3/4 of a width, over `rms`."""
    group: Integers
    """Number of those that were fitted together; alone, too, it is one of its own."""
    flags: Integers
    """Bits of `Flag`."""
    scatter: float
    """By how much fluxes at random positions scatter, in units of the local rms."""


def measure(
    pixels: Pixels,
    x: Floats,
    y: Floats,
    beam: Floats,
    *,
    shapes: Floats | None = None,
    noise: Pixels | None = None,
    background: Pixels | None = None,
    ring: tuple[float, float] | None = None,
    threads: int | None = None,
) -> Forced:
    """Fit the heights of Gaussians at 0-based pixel positions (x, y) of an image (rows, columns).

    `beam` is the form of the restoring beam (see `beam_shape`), and `shapes` (n, 3) that of each source, if they are
    not points.  For one alone that is F = sum(D K) / sum(K^2), with the Gaussian K and the image D above the median
    of a ring around (Condon 1997, PASP 109, 166); those that are near one another are solved together.
    `noise` and `background` are maps, instead of what the ring tells; its radii are `ring` (pixels), or 2 and 5 widths.

    The noise of an image is smooth, as its beam: neighbouring pixels tell the same again.  Therefore a flux's
    error is not that of independent pixels, but what fluxes at random positions of the same image scatter by, over the
    local rms.
    """
    x, y = (np.ascontiguousarray(each, dtype=np.float64) for each in (x, y))
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    forms = np.ascontiguousarray(np.broadcast_to(beam, (len(x), 3)) if shapes is None else shapes, dtype=np.float64)
    workers = threads or min(4, len(os.sched_getaffinity(0)))
    scatter = filter_scatter(pixels, beam, ring, workers)
    groups = grouped(x, y, forms)
    maps = background, noise
    made = _measured(pixels, x, y, forms, groups, beam, maps, ring, workers)
    flux, spread, rms, level, chi_squared, flags = made
    return Forced(flux, rms * scatter * spread, rms, level, chi_squared, groups, flags, scatter)


def filter_scatter(pixels: Pixels, beam: Floats, ring: tuple[float, float] | None = None, threads: int = 1) -> float:
    """Scatter of the beam's fit at 2,000 random positions, over the local rms; 1 where fewer than 100 have a value.

    Sources under some of them do not matter: it is a median deviation.
    """
    rng = np.random.default_rng(_SEED)
    height, width = pixels.shape
    x, y = rng.uniform(0, width - 1, _BLANKS), rng.uniform(0, height - 1, _BLANKS)
    forms = np.ascontiguousarray(np.broadcast_to(beam, (_BLANKS, 3)), dtype=np.float64)
    alone = np.arange(_BLANKS)
    flux, _, rms, _, _, flags = _measured(pixels, x, y, forms, alone, beam, (None, None), ring, threads)
    good = (flags == 0) & (rms > 0)
    return robust_rms(flux[good] / rms[good]) if good.sum() >= _FEWEST_BLANKS else 1.0


def grouped(x: Floats, y: Floats, forms: Floats) -> Integers:
    """Numbers of groups, from 0, of positions linked by less than 2.5 widths (the mean of the two long axes)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    count = len(x)
    seen = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if not len(seen):
        return np.arange(count)
    # the eigenvalue of the long axis of each form, and from it the width
    middle, half = (forms[:, 0] + forms[:, 2]) / 2, np.hypot((forms[:, 0] - forms[:, 2]) / 2, forms[:, 1])
    widths = np.sqrt(8 * math.log(2) / (middle - half))
    places = np.stack([x[seen], y[seen]], axis=1)
    pairs = cKDTree(places).query_pairs(BLEND_WIDTHS * widths[seen].max(), output_type="ndarray")
    one, other = seen[pairs[:, 0]], seen[pairs[:, 1]]
    near = np.hypot(x[one] - x[other], y[one] - y[other]) < BLEND_WIDTHS * (widths[one] + widths[other]) / 2
    links = coo_array((np.ones(near.sum(), bool), (one[near], other[near])), shape=(count, count))
    labels: Integers = connected_components(links, directed=False)[1].astype(np.int64)
    return labels


def _measured(
    pixels: Pixels,
    x: Floats,
    y: Floats,
    forms: Floats,
    groups: Integers,
    beam: Floats,
    maps: tuple[Pixels | None, Pixels | None],
    radii: tuple[float, float] | None,
    threads: int,
) -> tuple[Floats, Floats, Floats, Floats, Floats, Integers]:
    count = len(x)
    flux, spread, rms, background, chi_squared = np.full((5, count), np.nan)
    flags = np.zeros(count, np.int64)
    members = np.argsort(groups, kind="stable").astype(np.int64)
    bounds = np.searchsorted(groups[members], np.arange(groups.max(initial=-1) + 2)).astype(np.int64)
    major, minor = width_pixels(beam)
    ring = *(radii or (INNER * major, OUTER * major)), max(1, int(_SAMPLED * minor))

    def around(start: int) -> None:
        surroundings(pixels, x, y, *ring, background, rms, start, min(start + _AT_ONCE, count))

    def fit(start: int) -> None:
        stop = min(start + _AT_ONCE, len(bounds) - 1)
        fit_groups(pixels, x, y, forms, background, rms, members, bounds, start, stop, flux, spread, chi_squared, flags)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(around, range(0, count, _AT_ONCE)))
        for plane, values in zip(maps, (background, rms), strict=True):
            if plane is not None:
                _take(plane, x, y, values)
        list(pool.map(fit, range(0, len(bounds) - 1, _AT_ONCE)))
    flags[~np.isfinite(x) | ~np.isfinite(y)] |= OUTSIDE
    return flux, spread, rms, background, chi_squared, flags


def _take(plane: Pixels, x: Floats, y: Floats, values: Floats) -> None:
    """What a map has at the pixel of each position."""
    height, width = plane.shape
    values[:] = np.nan
    seen = np.isfinite(x) & np.isfinite(y)
    column, row = np.rint(x[seen]).astype(int), np.rint(y[seen]).astype(int)
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    values[np.flatnonzero(seen)[inside]] = plane[row[inside], column[inside]]
