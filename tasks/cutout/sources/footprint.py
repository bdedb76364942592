"""Which of many positions lie on which of many images, or in which of many polygons on the sphere: vectorised."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.quiet import quiet

CHUNK = 4_000_000
"""Pairs of positions and shapes that are compared at once: 32 MB of dot products."""

_SIDE = 9
"""Points along each side of an image by which its extent on the sky is measured."""


def unit_vectors(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) positions (ra, dec in degrees) as (n, 3) points on the unit sphere."""
    ra, dec = np.radians(positions).T
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def pixels_at(wcs: Any, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 2) ICRS positions in degrees as 0-based pixels (x, y), distortions included; NaN where there is no pixel.

    Each is what `geometry.to_pixel` gives for it alone.
    """
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from astropy.wcs import NoConvergence
    from astropy.wcs.utils import skycoord_to_pixel, wcs_to_celestial_frame

    sky = SkyCoord(positions[:, 0], positions[:, 1], unit=u.deg, frame="icrs")
    with quiet():  # of NaN, behind a projection with distortions
        try:
            x, y = skycoord_to_pixel(sky, wcs, origin=0, mode="all")
        except NoConvergence:  # of one is of all: those that converge are told apart
            there = sky.transform_to(wcs_to_celestial_frame(wcs)).spherical
            world = np.stack([there.lon.to_value(u.deg), there.lat.to_value(u.deg)], axis=1)
            x, y = _each_that_converges(wcs, world)
        except ValueError:
            return np.full((len(positions), 2), np.nan)
    pixels = np.stack([x, y], axis=1)
    if wcs.wcs.lng > wcs.wcs.lat:  # astropy gives the pixel along longitude first, also where that is y
        pixels = pixels[:, ::-1]
    return np.where(np.isfinite(pixels).all(axis=1, keepdims=True), pixels, np.nan)


def _each_that_converges(wcs: Any, world: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from astropy.wcs import NoConvergence

    axes = [wcs.wcs.lng, wcs.wcs.lat]
    given = np.empty_like(world)
    given[:, axes] = world
    try:
        found = wcs.all_world2pix(given, 0)
    except NoConvergence as error:
        found = np.array(error.best_solution)
        for failed in (error.divergent, error.slow_conv):
            if failed is not None:
                found[failed] = np.nan
    return found[:, axes[0]], found[:, axes[1]]


def depths(wcs: Any, shape: tuple[int, int], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels from each (n, 2) ICRS position to the nearest edge of an image (ny, nx); negative outside, -inf off it."""
    x, y = pixels_at(wcs, positions).T
    ny, nx = shape
    deep = np.minimum(np.minimum(x + 0.5, y + 0.5), np.minimum(nx - 0.5 - x, ny - 0.5 - y))
    return np.where(np.isnan(deep), -np.inf, deep)


def cap_of(wcs: Any, shape: tuple[int, int]) -> tuple[NDArray[np.float64], float]:
    """A circle on the sky around an image (ny, nx): its centre as a unit vector, and its radius in radians.

    The whole sky (pi) if a part of the image's outline is on no sky, as of maps of the whole sky.
    """
    from astropy.wcs.utils import pixel_to_skycoord

    ny, nx = shape
    x = np.concatenate([np.linspace(-0.5, nx - 0.5, _SIDE)] * 2 + [np.full(_SIDE, -0.5), np.full(_SIDE, nx - 0.5)])
    y = np.concatenate([np.full(_SIDE, -0.5), np.full(_SIDE, ny - 0.5)] + [np.linspace(-0.5, ny - 0.5, _SIDE)] * 2)
    sky = pixel_to_skycoord(np.append(x, (nx - 1) / 2), np.append(y, (ny - 1) / 2), wcs, origin=0, mode="all").icrs
    points = unit_vectors(np.stack([sky.ra.deg, sky.dec.deg], axis=1))
    if not np.isfinite(points).all():
        return np.array([1.0, 0.0, 0.0]), math.pi
    radius = float(np.arccos(np.clip(points[:-1] @ points[-1], -1, 1)).max())
    return points[-1], min(radius * 1.1 + 1e-6, math.pi) if radius < 1 else math.pi


def bounds_of(centre: NDArray[np.float64], radius: float) -> tuple[float, float, float, float]:
    """Least and greatest right ascension and declination of a circle of `cap_of`: (ra, dec, ra, dec) in degrees.

    The greatest right ascension is beyond 360 where the circle crosses 0; one that holds a pole has all of them.
    """
    ra = math.degrees(math.atan2(centre[1], centre[0])) % 360
    dec, reach = math.degrees(math.asin(max(-1.0, min(1.0, float(centre[2]))))), math.degrees(radius)
    low, high = max(-90.0, dec - reach), min(90.0, dec + reach)
    if low == -90 or high == 90:
        return 0.0, low, 360.0, high
    half = math.degrees(math.asin(min(1.0, math.sin(radius) / math.cos(math.radians(dec)))))
    west = (ra - half) % 360
    return west, low, west + 2 * half, high


def corners_of(wcs: Any, shape: tuple[int, int]) -> list[float] | None:
    """Right ascension and declination of the four corners of an image (ny, nx), in order; None if one is on no sky."""
    from astropy.wcs.utils import pixel_to_skycoord

    ny, nx = shape
    x, y = np.array([0, nx, nx, 0]) - 0.5, np.array([0, 0, ny, ny]) - 0.5
    sky = pixel_to_skycoord(x, y, wcs, origin=0, mode="all").icrs
    found = np.stack([sky.ra.deg, sky.dec.deg], axis=1).ravel()
    return found.tolist() if np.isfinite(found).all() else None


def near(
    points: NDArray[np.float64], centres: NDArray[np.float64], radii: NDArray[np.float64]
) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """For each circle (unit vectors (m, 3), radii (m,) in radians) that has any, which of the (n, 3) points it has."""
    found: dict[int, list[NDArray[np.intp]]] = {}
    least = np.cos(np.minimum(radii, math.pi)) - 1e-15
    step = max(1, CHUNK // max(1, len(centres)))
    for start in range(0, len(points), step):
        inside = points[start : start + step] @ centres.T >= least
        for circle in np.flatnonzero(inside.any(axis=0)):
            found.setdefault(int(circle), []).append(np.flatnonzero(inside[:, circle]) + start)
    for number in sorted(found):
        yield number, np.concatenate(found[number])


class Polygons:
    """Convex polygons on the sphere, (m) of them, each of unit vectors counter-clockwise seen from outside."""

    def __init__(self, vertices: list[NDArray[np.float64]]) -> None:
        self._edges = [_edges(each) for each in vertices]
        centres = [each.sum(axis=0) / np.linalg.norm(each.sum(axis=0)) for each in vertices]
        self._centres = np.array(centres).reshape(-1, 3)
        self._radii = np.array(
            [
                float(np.arccos(np.clip(each @ centre, -1, 1)).max()) + 1e-9
                for each, centre in zip(vertices, centres, strict=True)
            ]
        )

    def __len__(self) -> int:
        return len(self._edges)

    def holding(self, positions: NDArray[np.float64]) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.float64]]]:
        """For each polygon with any of the (n, 2) positions: which it holds, and sin(angle) to its nearest edge."""
        points = unit_vectors(positions)
        for number, candidates in near(points, self._centres, self._radii):
            deep = (points[candidates] @ self._edges[number].T).min(axis=1)
            inside = deep >= 0
            if inside.any():
                yield number, candidates[inside], deep[inside]

    def deepest(self, positions: NDArray[np.float64]) -> NDArray[np.int64]:
        """For each of (n, 2) positions the polygon it is deepest in, (n,); -1 where none holds it."""
        best = np.full(len(positions), -1, dtype=np.int64)
        depth = np.full(len(positions), -np.inf)
        for number, held, deep in self.holding(positions):
            better = deep > depth[held]
            best[held[better]], depth[held[better]] = number, deep[better]
        return best


def _edges(vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normals of a polygon's edges, pointing inwards."""
    across = np.cross(vertices, np.roll(vertices, -1, axis=0))
    unit: NDArray[np.float64] = across / np.linalg.norm(across, axis=1, keepdims=True)
    return unit
