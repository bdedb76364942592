"""Which tracts and patches a circle or a convex polygon touches; a patch is its outer box, overlaps included."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.patches import PixelBox
from absurd.tasks.cutout.sky_map import ARCSEC, RingsSkyMap
from absurd.tasks.cutout.sphere import (
    Booleans,
    Floats,
    Integers,
    distance_to_polygons,
    positions_of,
    separation,
    unit_vectors,
)

PAIRS = 1 << 20
"""Pairs of a position and a patch that are looked at together: bounds the memory."""


@dataclass(frozen=True, slots=True)
class Touched:
    """Pairs, ordered by position, tract and patch, in three arrays (m,)."""

    positions: Integers
    """Index of the circle."""
    tracts: Integers
    patches: Integers

    def of(self, position: int) -> list[tuple[int, list[int]]]:
        """The tracts of one circle, each with its patches."""
        start, stop = np.searchsorted(self.positions, [position, position + 1])
        tracts, patches = self.tracts[start:stop], self.patches[start:stop]
        return [(int(tract), patches[tracts == tract].tolist()) for tract in np.unique(tracts)]


def touched_by_circles(sky_map: RingsSkyMap, positions: Floats, radius: float) -> Touched:
    """Every patch at most `radius` degrees from each of (n, 2) positions, on the sphere.

    Raises DataIdValidationError: the radius is not from 0 to 180 degrees.
    """
    if not 0 <= radius <= 180:  # so that NaN does not pass
        raise DataIdValidationError(f"radius is {radius:g}; it must be degrees from 0 to 180", radius=radius)
    boxes = outer_boxes(sky_map)
    found: list[tuple[Integers, Integers, Integers]] = []
    own = sky_map.tract_of(positions)
    order = np.argsort(own, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(own[order])) + 1):
        if not group.size:
            continue
        centre = sky_map.centres[own[group[0]]]
        spread = float(separation(positions[group], centre).max())
        for tract in tracts_near(sky_map, centre, spread + radius):
            corners = corner_vectors(sky_map, tract, boxes)
            middles = corners.sum(axis=1)
            middles /= np.linalg.norm(middles, axis=1)[:, None]
            # from a patch's middle no point of it is further than a corner; the cosine is good to 1e-6 radians at least
            reach = np.arccos(np.clip((corners @ middles[:, :, None]).min(axis=(1, 2)), -1, 1))
            least = np.cos(np.minimum(reach + math.radians(radius) + 1e-6, math.pi))
            for some in _chunks(group, len(boxes)):
                points = unit_vectors(positions[some])
                near = points @ middles.T >= least
                position, patch = np.nonzero(near)
                kept = distance_to_polygons(points[position], corners[patch]) <= radius
                patches = patch[kept]
                found.append((some[position[kept]], np.full(patches.size, tract), patches))
    return ordered(found)


def touched_by_polygon(sky_map: RingsSkyMap, corners: Floats) -> Touched:
    """Every patch that has a point in common with the convex polygon of (k, 2) positions in order; its index is 0.

    Exact on the sphere: in a tract's projection great circles are straight lines, so that two convex polygons are
    apart where a line along an edge of one of them parts them.  Raises DataIdValidationError: the polygon reaches
    further than 60 degrees from its middle.
    """
    vectors = unit_vectors(corners)
    middle = positions_of(vectors.sum(axis=0))
    spread = float(separation(corners, middle).max())
    if spread > 60:
        raise DataIdValidationError(f"the polygon reaches {spread:.0f} degrees from its middle; 60 are allowed")
    boxes = outer_boxes(sky_map)
    found = []
    for tract in tracts_near(sky_map, middle, spread):
        pixels = sky_map.to_pixel(corners, np.asarray(tract))
        if not np.isfinite(pixels).all():
            raise DataIdValidationError(
                f"the polygon is too large for the projection of tract {tract}", advice="ask for its parts", tract=tract
            )
        patches = np.flatnonzero(_meet(pixels, boxes)).astype(np.int64)
        found.append((np.zeros_like(patches), np.full(patches.size, tract), patches))
    return ordered(found)


def touched_by_box(sky_map: RingsSkyMap, tract: int, box: PixelBox) -> Touched:
    """Every patch, of this tract and of others, that has a point in common with a box of the tract's pixels."""
    return touched_by_polygon(sky_map, sky_map.tract(tract).corners(box))


@lru_cache(maxsize=8)
def outer_boxes(sky_map: RingsSkyMap) -> Floats:
    """(m, 4) edges x0, y0, x1, y1 of all patches of a tract, half a pixel around the centres of the outermost."""
    tract = sky_map.tract(0)  # all have the same
    return np.array([tract.outer_box(patch) for patch in range(tract.n_patches)], float) - 0.5


def corner_vectors(sky_map: RingsSkyMap, tract: int, boxes: Floats) -> Floats:
    """(m, 4, 3) unit vectors of the boxes' corners, counterclockwise."""
    pixels = boxes[:, [(2, 1), (0, 1), (0, 3), (2, 3)]]
    return unit_vectors(sky_map.to_sky(pixels.reshape(-1, 2), np.asarray(tract))).reshape(-1, 4, 3)


def tracts_near(sky_map: RingsSkyMap, centre: Floats, distance: float) -> list[int]:
    """Numbers of the tracts that may have a pixel within so many degrees, ascending."""
    edges = outer_boxes(sky_map).reshape(-1, 2)
    furthest = np.abs(edges - np.array(sky_map.reference_pixel)).max(axis=0)
    reach = math.atan(math.hypot(*furthest) * sky_map.pixel_scale * ARCSEC)
    chord = 2 * math.sin(min(math.pi, math.radians(distance) + reach + 1e-9) / 2)
    centres = sky_map.centre_vectors
    near = np.linalg.norm(centres - unit_vectors(centre), axis=1) <= chord
    return [int(tract) for tract in np.flatnonzero(near)]


def _meet(polygon: Floats, boxes: Floats) -> Booleans:
    """(m,) whether a convex polygon (k, 2) and each of the boxes (m, 4) have a point in common."""
    low, high = polygon.min(axis=0), polygon.max(axis=0)
    meet = (boxes[:, :2] <= high).all(axis=1) & (boxes[:, 2:] >= low).all(axis=1)
    edges = np.roll(polygon, -1, axis=0) - polygon
    normals = np.column_stack([-edges[:, 1], edges[:, 0]])
    own = polygon @ normals.T  # (k, edges)
    box_corners = boxes[:, [(0, 1), (2, 1), (0, 3), (2, 3)]] @ normals.T  # (m, 4, edges)
    apart = (box_corners.min(axis=1) > own.max(axis=0)) | (box_corners.max(axis=1) < own.min(axis=0))
    met: Booleans = meet & ~apart.any(axis=1)
    return met


def _chunks(indices: Integers, width: int) -> Iterator[Integers]:
    step = max(1, PAIRS // width)
    for start in range(0, indices.size, step):
        yield indices[start : start + step]


def ordered(found: list[tuple[Integers, Integers, Integers]]) -> Touched:
    """Pairs that were found in parts, each of positions, tracts and patches."""
    if not found:
        nothing = np.empty(0, np.int64)
        return Touched(nothing, nothing, nothing)
    positions, tracts, patches = (np.concatenate(parts).astype(np.int64) for parts in zip(*found, strict=True))
    order = np.lexsort((patches, tracts, positions))
    return Touched(positions[order], tracts[order], patches[order])
