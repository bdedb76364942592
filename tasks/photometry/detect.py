"""Sources in an image: peaks above the local noise, islands around them, and Gaussians fitted together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.photometry.forced import measure
from absurd.tasks.photometry.local_noise import cell_statistics
from absurd.tasks.photometry.shapes import areas, width_pixels

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
_MESH_WIDTHS = 16
"""Side of a cell in which background and noise are measured, in widths of the beam."""

_MESH_SAMPLES = 40
"""Pixels along a cell that count: more of them tell no more, being as smooth as the beam."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Sources, the brightest first; of arrays (n,)."""

    x: Floats
    """0-based pixels."""
    y: Floats
    flux: Floats
    """Height of the beam's Gaussian, in the image's unit."""
    error: Floats
    rms: Floats
    island: NDArray[np.int64]
    """Number of the pixels that touch one another."""
    island_flux: Floats
    """Sum of the island's pixels over the beam's area: of an extended source what the Gaussian does not tell.
    Pixels below the island's limit are not in it."""
    island_pixels: NDArray[np.int64]
    flags: NDArray[np.int64]


def detect(
    pixels: Pixels,
    beam: Floats,
    *,
    detection_sigma: float = 5.0,
    island_sigma: float = 3.0,
    noise: Pixels | None = None,
) -> Found:
    """Find local maxima of `detection_sigma` above the background, and measure them with the beam.

    Background and noise are medians of cells of 16 beams, and interpolated between; `noise` is a map, instead.  A
    maximum is the largest of its eight neighbours, at the top of the parabolas through them.  Those nearer to a
    brighter one than half a beam are noise on its flank.  Flux densities are fitted together where sources are near
    one another (see `forced.measure`).
    """
    from scipy.ndimage import label

    major, minor = width_pixels(beam)
    level, scatter = background_and_noise(pixels, max(int(_MESH_WIDTHS * major), 16))
    rms = scatter if noise is None else noise
    with np.errstate(invalid="ignore", divide="ignore"):
        above = (pixels - level) / rms
    above[~np.isfinite(above)] = -np.inf
    row, column = _maxima(above, detection_sigma)
    order = np.argsort(-pixels[row, column], kind="stable")
    x, y = _tops(pixels, column[order], row[order])
    kept = _apart(x, y, minor / 2)
    x, y = x[kept], y[kept]
    found = measure(pixels, x, y, beam, noise=np.ascontiguousarray(rms), background=np.ascontiguousarray(level))
    within = above >= island_sigma
    islands, count = label(within, structure=np.ones((3, 3), int))
    number = islands[np.rint(y).astype(int), np.rint(x).astype(int)].astype(np.int64)
    labels = islands[within]
    sums = np.bincount(labels, weights=(pixels - level)[within], minlength=count + 1)
    sizes = np.bincount(labels, minlength=count + 1)
    good = np.isfinite(found.flux) & (found.flux >= detection_sigma * found.rms / 2)
    order = np.flatnonzero(good)[np.argsort(-found.flux[good], kind="stable")]
    return Found(
        x=x[order],
        y=y[order],
        flux=found.flux[order],
        error=found.error[order],
        rms=found.rms[order],
        island=number[order],
        island_flux=sums[number[order]] / float(areas(beam)),
        island_pixels=sizes[number[order]].astype(np.int64),
        flags=found.flags[order],
    )


def _maxima(above: Pixels, least: float) -> tuple[Any, Any]:
    """Rows and columns of pixels that are not below `least`, nor any of their eight neighbours; none at the border."""
    row, column = np.nonzero(above[1:-1, 1:-1] >= least)
    row, column = row + 1, column + 1
    highest = np.full(len(row), -np.inf)
    for dy, dx in product((-1, 0, 1), repeat=2):
        if dy or dx:
            highest = np.maximum(highest, above[row + dy, column + dx])
    top = above[row, column] >= highest
    return row[top], column[top]


def background_and_noise(pixels: Pixels, side: int) -> tuple[Pixels, Pixels]:
    """Median and robust scatter of cells of `side` pixels, linear between their middles; NaN where none has any."""
    from scipy.ndimage import map_coordinates

    ny, nx = pixels.shape
    rows, columns = (max(1, round(length / side)) for length in (ny, nx))
    level, scatter = np.full((2, rows, columns), np.nan)
    edges_y, edges_x = np.linspace(0, ny, rows + 1).astype(int), np.linspace(0, nx, columns + 1).astype(int)
    every = max(1, side // _MESH_SAMPLES)
    cell_statistics(np.ascontiguousarray(pixels), edges_y, edges_x, every, level, scatter)
    y = np.clip((np.arange(ny) + 0.5) * rows / ny - 0.5, 0, rows - 1)
    x = np.clip((np.arange(nx) + 0.5) * columns / nx - 0.5, 0, columns - 1)
    made = []
    for mesh in (level, scatter):
        whole = _filled(mesh)
        part = map_coordinates(whole, [np.repeat(y, columns), np.tile(np.arange(columns), ny)], order=1)
        lines = part.reshape(ny, columns)
        left = np.minimum(x.astype(int), max(columns - 2, 0))
        right = np.minimum(left + 1, columns - 1)
        share = (x - left).astype(np.float32)
        made.append((lines[:, left] * (1 - share) + lines[:, right] * share).astype(np.float32))
    return made[0], made[1]


def _filled(mesh: Floats) -> Floats:
    """A mesh whose cells without a value have that of the nearest one."""
    from scipy.ndimage import distance_transform_edt

    empty = np.isnan(mesh)
    if not empty.any() or empty.all():
        return mesh
    nearest = distance_transform_edt(empty, return_distances=False, return_indices=True)
    filled: Floats = mesh[tuple(nearest)]
    return filled


def _tops(pixels: Pixels, column: Any, row: Any) -> tuple[Floats, Floats]:
    """Tops of parabolas through the logarithms, or values, of three pixels along each axis.

    The logarithm of a Gaussian is a parabola: of a point source without noise the place is exact.
    """
    places = []
    for dy, dx in ((0, 1), (1, 0)):
        before, at, after = (pixels[row + n * dy, column + n * dx].astype(float) for n in (-1, 0, 1))
        positive = (before > 0) & (after > 0)
        before, at, after = (
            np.where(positive, np.log(np.where(positive, each, 1)), each) for each in (before, at, after)
        )
        bend = before - 2 * at + after
        places.append(np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1), 0.0))
    shift = [np.clip(np.nan_to_num(each), -0.5, 0.5) for each in places]
    return column + shift[0], row + shift[1]


def _apart(x: Floats, y: Floats, least: float) -> NDArray[np.bool_]:
    """Which are not nearer than `least` pixels to one before."""
    from scipy.spatial import cKDTree

    kept = np.ones(len(x), bool)
    if len(x):
        for one, other in sorted(cKDTree(np.stack([x, y], axis=1)).query_pairs(least)):
            if kept[one]:
                kept[other] = False
    return kept
