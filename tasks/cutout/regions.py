"""Regions of the sky: circles, boxes in right ascension and declination, convex polygons.

Edges of circles are small circles, edges of boxes meridians and parallels, edges of polygons arcs of great circles.
Each region contains its edge, which is known to a few 1e-15 radians.  Angles in degrees, ICRS.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.sphere import (
    ROUNDING,
    Booleans,
    Floats,
    as_positions,
    edge_normals,
    positions_of,
    unit_vectors,
)

MARGIN = 1e-9
"""Degrees by which bounds are wider than the region, so that no rounding puts a contained position outside."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Ranges that no position of a region is outside of; what is within them may still be outside the region."""

    ra: tuple[tuple[float, float], ...]
    """One range, or two where the region crosses right ascension 0: low and high, both from 0 to 360."""
    dec: tuple[float, float]

    def contains(self, ra: Floats, dec: Floats) -> Booleans:
        """Of arrays of right ascensions from 0 to 360 and declinations: which are within."""
        within = np.zeros(np.broadcast(ra, dec).shape, bool)
        for low, high in self.ra:
            within |= (ra >= low) & (ra <= high)
        return within & (dec >= self.dec[0]) & (dec <= self.dec[1])


class Region(Protocol):
    """What a query is restricted to."""

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> Booleans:
        """(n,) of positions: which are in the region.  Raises InvalidPositionError."""
        ...

    def bounds(self) -> Bounds: ...

    def to_sphgeom(self) -> Any:
        """The region as lsst.sphgeom's, for a Butler's queries."""
        ...


@dataclass(frozen=True, slots=True)
class Circle:
    """All positions at most `radius` degrees from the centre.  Raises DataIdValidationError."""

    ra: float
    dec: float
    radius: float

    def __post_init__(self) -> None:
        as_positions(self.ra, self.dec)
        if not 0 <= self.radius <= 180:
            raise DataIdValidationError(f"radius is {self.radius:g}; it must be degrees from 0 to 180")

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> Booleans:
        vectors = unit_vectors(as_positions(ra, dec))
        centre = unit_vectors(np.array([self.ra, self.dec]))
        # the chord keeps its digits at small distances, its counterpart to the far side at large ones
        near = np.linalg.norm(vectors - centre, axis=1)
        if self.radius <= 90:
            return np.asarray(near <= 2 * math.sin(math.radians(self.radius) / 2) + ROUNDING)
        far = np.linalg.norm(vectors + centre, axis=1)
        return np.asarray(far >= 2 * math.cos(math.radians(self.radius) / 2) - ROUNDING)

    def bounds(self) -> Bounds:
        low, high = self.dec - self.radius - MARGIN, self.dec + self.radius + MARGIN
        if low <= -90 or high >= 90:  # a pole is in it, or so near that rounding may say so
            return Bounds(((0.0, 360.0),), (max(low, -90.0), min(high, 90.0)))
        ratio = math.sin(math.radians(self.radius)) / math.cos(math.radians(self.dec))
        half = math.degrees(math.asin(min(1.0, ratio)))
        # near a pole the arc sine loses half of its digits
        half += MARGIN + math.degrees(math.sqrt(ROUNDING)) * (ratio > 0.999)
        return Bounds(_turns(self.ra - half, self.ra + half), (low, high))

    def to_sphgeom(self) -> Any:
        from lsst.sphgeom import Angle, LonLat, UnitVector3d
        from lsst.sphgeom import Circle as SphgeomCircle

        return SphgeomCircle(UnitVector3d(LonLat.fromDegrees(self.ra, self.dec)), Angle.fromDegrees(self.radius))


@dataclass(frozen=True, slots=True)
class RaDecBox:
    """From `ra_min` eastwards to `ra_max`, over 0h if that is the smaller, between two declinations.

    From 0 to 360 it is all right ascensions.  Raises DataIdValidationError.
    """

    ra_min: float
    ra_max: float
    dec_min: float
    dec_max: float

    def __post_init__(self) -> None:
        as_positions([self.ra_min, self.ra_max], [self.dec_min, self.dec_max])
        if self.dec_min > self.dec_max:
            raise DataIdValidationError(
                f"dec_min is {self.dec_min:g}, more than dec_max, {self.dec_max:g}", advice="exchange them"
            )

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> Booleans:
        positions = as_positions(ra, dec)
        ras, decs = positions[:, 0], positions[:, 1]
        if self.ra_min <= self.ra_max:
            within = (ras >= self.ra_min) & (ras <= self.ra_max)
            # 360 is 0
            within |= (ras == 360) & (self.ra_min == 0)
            within |= (ras == 0) & (self.ra_max == 360)
        else:
            within = (ras >= self.ra_min) | (ras <= self.ra_max)
        within |= np.abs(decs) == 90  # at a pole every right ascension is the same place
        return within & (decs >= self.dec_min) & (decs <= self.dec_max)

    def bounds(self) -> Bounds:
        dec = max(self.dec_min - MARGIN, -90.0), min(self.dec_max + MARGIN, 90.0)
        if self.dec_min == -90 or self.dec_max == 90:  # the pole is in it, whatever right ascension it is given with
            return Bounds(((0.0, 360.0),), dec)
        span = self.ra_max - self.ra_min + (360 if self.ra_max < self.ra_min else 0)
        return Bounds(_turns(self.ra_min - MARGIN, self.ra_min + span + MARGIN), dec)

    def to_sphgeom(self) -> Any:
        from lsst.sphgeom import AngleInterval, Box, NormalizedAngleInterval

        everywhere = self.ra_max - self.ra_min >= 360
        return Box(
            NormalizedAngleInterval.full()
            if everywhere
            else NormalizedAngleInterval.fromDegrees(self.ra_min, self.ra_max),
            AngleInterval.fromDegrees(self.dec_min, self.dec_max),
        )


@dataclass(frozen=True, slots=True)
class Polygon:
    """A convex polygon of three or more corners (ra, dec), smaller than half the sky.  Raises DataIdValidationError."""

    corners: tuple[tuple[float, float], ...]
    """In either order round; kept counterclockwise, with right ascension to the right."""

    def __init__(self, corners: Iterable[tuple[float, float]] | Floats) -> None:
        given = [(float(ra), float(dec)) for ra, dec in corners]
        if len(given) < 3:
            raise DataIdValidationError(f"a polygon of {len(given)} corners; three are needed at least")
        vectors = unit_vectors(as_positions([ra for ra, _ in given], [dec for _, dec in given]))
        if _heights(vectors, edge_normals(vectors)).min() < -ROUNDING:
            given.reverse()
            vectors = vectors[::-1]
        heights = _heights(vectors, edge_normals(vectors))
        turns = np.roll(heights, 0)  # (corner, edge)
        beside = np.array([turns[(edge + 2) % len(given), edge] for edge in range(len(given))])
        if heights.min() < -ROUNDING or beside.min() <= ROUNDING or not _turns_once(vectors):
            raise DataIdValidationError(
                f"the polygon of {len(given)} corners is not convex, or two or three of them are in a line",
                advice="give the corners in order, each once, none inside the others; part a concave polygon",
            )
        object.__setattr__(self, "corners", tuple(given))

    @property
    def _vectors(self) -> Floats:
        return unit_vectors(np.array(self.corners))

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> Booleans:
        vectors = unit_vectors(as_positions(ra, dec))
        inside = np.ones(len(vectors), bool)
        for normal in edge_normals(self._vectors):
            inside &= vectors @ normal >= -2 * ROUNDING
        return inside

    def bounds(self) -> Bounds:
        vectors = self._vectors
        normals = edge_normals(vectors)
        following = np.roll(vectors, -1, axis=0)
        decs = [dec for _, dec in self.corners]
        for start, stop, normal in zip(vectors, following, normals, strict=True):
            for sign in (1, -1):  # the northernmost and the southernmost point of the great circle, if on the arc
                top = sign * (np.array([0.0, 0.0, 1.0]) - normal[2] * normal)
                if np.cross(normal, start) @ top > 0 and np.cross(stop, normal) @ top > 0:
                    decs.append(float(positions_of(top)[1]))
        low, high = min(decs) - MARGIN, max(decs) + MARGIN
        poles = self.contains([0.0, 0.0], [-90.0, 90.0])
        ras = np.array([ra for ra, _ in self.corners])
        steps = (np.diff(ras, append=ras[:1]) + 180) % 360 - 180  # along an arc right ascension goes one way, < 180
        if poles.any() or np.abs(steps).max() > 180 - 1e-6:
            return Bounds(
                ((0.0, 360.0),), (-90.0 if poles[0] else max(low, -90.0), 90.0 if poles[1] else min(high, 90.0))
            )
        unrolled = ras[0] + np.concatenate([[0.0], np.cumsum(steps[:-1])])
        margin = MARGIN / max(1e-6, math.cos(math.radians(max(abs(low), abs(high)))))
        return Bounds(_turns(unrolled.min() - margin, unrolled.max() + margin), (max(low, -90.0), min(high, 90.0)))

    def to_sphgeom(self) -> Any:
        from lsst.sphgeom import ConvexPolygon, LonLat, UnitVector3d

        return ConvexPolygon([UnitVector3d(LonLat.fromDegrees(ra, dec)) for ra, dec in self.corners])


def polygon_of(region: Any) -> Polygon:
    """The polygon of lsst.sphgeom's ConvexPolygon, as a Butler's records of tracts and patches hold it."""
    return Polygon(positions_of(np.array([tuple(vertex) for vertex in region.getVertices()])))


def _heights(vectors: Floats, normals: Floats) -> Floats:
    """(corner, edge) sines of the distances, positive on the inner side."""
    return vectors @ normals.T


def _turns_once(vectors: Floats) -> bool:
    """Whether the corners go round once: a star has all of them on the inner side of all edges as well."""
    middle = vectors.sum(axis=0)
    length = np.linalg.norm(middle)
    if length < ROUNDING:
        return False
    middle /= length
    east = np.cross([0.0, 0.0, 1.0] if abs(middle[2]) < 0.9 else [1.0, 0.0, 0.0], middle)
    north = np.cross(middle, east)
    angles = np.arctan2(vectors @ north, vectors @ east)
    steps = np.mod(np.diff(angles, append=angles[:1]), 2 * math.pi)
    return bool(abs(steps.sum() - 2 * math.pi) < 1e-6)


def _turns(low: float, high: float) -> tuple[tuple[float, float], ...]:
    """The range of right ascensions from `low` eastwards to `high`, as one or two ranges from 0 to 360."""
    if high - low >= 360:
        return ((0.0, 360.0),)
    start = low % 360
    stop = start + (high - low)
    if stop < 360:
        # 0 and 360 are the same place
        return ((start, stop), (360.0, 360.0)) if start == 0 else ((start, stop),)
    return ((start, 360.0), (0.0, stop - 360))
