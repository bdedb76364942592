"""Which tracts and patches a box in right ascension and declination touches; its edges are meridians and parallels."""

from __future__ import annotations

import math

import numpy as np

from absurd.tasks.cutout.coverage import Touched, corner_vectors, ordered, outer_boxes, tracts_near
from absurd.tasks.cutout.regions import RaDecBox
from absurd.tasks.cutout.sky_map import RingsSkyMap
from absurd.tasks.cutout.sphere import ROUNDING, Booleans, Floats, edge_normals, positions_of, separation, unit_vectors


def touched_by_ra_dec_box(sky_map: RingsSkyMap, region: RaDecBox) -> Touched:
    """Every patch that has a point in common with a box, on the sphere, over 0h and the poles too; its index is 0."""
    boxes = outer_boxes(sky_map)
    span = (region.ra_max - region.ra_min) % 360 or region.ra_max - region.ra_min
    middle = np.array([(region.ra_min + span / 2) % 360, (region.dec_min + region.dec_max) / 2])
    # of a box of less than half a turn no point is further from the middle than a corner
    reach = 180.0 if span >= 180 else float(separation(_corners(region), middle).max())
    found = []
    for tract in tracts_near(sky_map, middle, reach):
        patches = np.flatnonzero(_meet(corner_vectors(sky_map, tract, boxes), region)).astype(np.int64)
        found.append((np.zeros_like(patches), np.full(patches.size, tract), patches))
    return ordered(found)


def _corners(region: RaDecBox) -> Floats:
    return np.array([(ra, dec) for ra in (region.ra_min, region.ra_max) for dec in (region.dec_min, region.dec_max)])


def _meet(corners: Floats, region: RaDecBox) -> Booleans:
    """(m,) whether convex polygons (m, 4, 3), counterclockwise, and the box have a point in common.

    So it is where a corner of one is in the other, or where their edges cross.
    """
    normals = edge_normals(corners)
    own = positions_of(corners.reshape(-1, 3))
    met: Booleans = np.asarray(region.contains(*own.T).reshape(-1, 4).any(axis=1))
    inside = np.einsum("mkc,jc->mjk", normals, unit_vectors(_corners(region))) >= -ROUNDING
    met |= np.asarray(inside.all(axis=2).any(axis=1))
    for dec in (region.dec_min, region.dec_max):
        for points in _on_parallel(normals, dec):
            ras = positions_of(points)[..., 0]
            within = region.contains(np.where(np.isfinite(ras), ras, 0.0).ravel(), np.full(ras.size, dec))
            met |= np.asarray((_on_arc(points, corners, normals) & within.reshape(ras.shape)).any(axis=1))
    if region.ra_max - region.ra_min < 360:
        for ra in (region.ra_min, region.ra_max):
            points = _on_meridian(normals, ra)
            decs = positions_of(points)[..., 1]
            crossed = (decs >= region.dec_min) & (decs <= region.dec_max)
            met |= np.asarray((_on_arc(points, corners, normals) & crossed).any(axis=1))
    return met


def _on_parallel(normals: Floats, dec: float) -> tuple[Floats, Floats]:
    """Where great circles (..., 3), by their normals, cross a parallel: two points each, NaN where they do not."""
    height = np.sqrt(np.clip(1 - normals[..., 2:] ** 2, 0, None))
    with np.errstate(invalid="ignore", divide="ignore"):
        top = (np.array([0.0, 0.0, 1.0]) - normals[..., 2:] * normals) / height
        ratio = math.sin(math.radians(dec)) / height
        aside = np.sqrt(1 - ratio**2) * np.cross(normals, top)
    return ratio * top + aside, ratio * top - aside


def _on_meridian(normals: Floats, ra: float) -> Floats:
    """Where great circles cross the half circle of a right ascension from pole to pole."""
    sin, cos = math.sin(math.radians(ra)), math.cos(math.radians(ra))
    points = np.cross(normals, np.array([-sin, cos, 0.0]))
    with np.errstate(invalid="ignore", divide="ignore"):
        points /= np.linalg.norm(points, axis=-1, keepdims=True)
    return np.where(points @ np.array([cos, sin, 0.0]) < 0, -1.0, 1.0)[..., None] * points


def _on_arc(points: Floats, corners: Floats, normals: Floats) -> Booleans:
    """(m, 4) whether points of the great circles of edges lie between their ends; NaN does not."""
    after = np.einsum("mkc,mkc->mk", np.cross(normals, corners), points)
    before = np.einsum("mkc,mkc->mk", np.cross(np.roll(corners, -1, axis=1), normals), points)
    between: Booleans = (after >= -ROUNDING) & (before >= -ROUNDING)
    return between
