"""Positions on the sphere: checks, unit vectors, and the gnomonic projection about many centres at once.

Positions are arrays (n, 2) of right ascension and declination in degrees, ICRS; unit vectors are arrays (n, 3).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from absurd.tasks.cutout.errors import DataIdValidationError, InvalidPositionError

Floats: TypeAlias = "NDArray[np.float64]"
Integers: TypeAlias = "NDArray[np.int64]"
Booleans: TypeAlias = "NDArray[np.bool_]"

ROUNDING = 1e-15
"""Radians, 0.2 nanoarcseconds: what the coordinates of a unit vector are rounded by, with some margin."""


def as_positions(ra: ArrayLike, dec: ArrayLike) -> Floats:
    """Right ascensions and declinations in degrees as (n, 2) positions; one of the two may be a single number.

    Raises
    ------
    InvalidPositionError
        A right ascension is not from 0 to 360, or a declination not from -90 to 90; `details["index"]` is the first.
    DataIdValidationError
        There are more of the one than of the other, or they are not numbers.
    """
    try:
        ras, decs = np.broadcast_arrays(np.asarray(ra, float).ravel(), np.asarray(dec, float).ravel())
    except (TypeError, ValueError) as error:
        raise DataIdValidationError(
            f"right ascensions {np.shape(ra)} and declinations {np.shape(dec)} make no positions: {error}"
        ) from error
    positions = np.column_stack([ras, decs])
    check_positions(positions)
    return positions


def check_positions(positions: Floats) -> None:
    """Raise InvalidPositionError, naming the first index, unless 0 <= ra <= 360 and -90 <= dec <= 90 everywhere."""
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise DataIdValidationError(f"positions have the shape {positions.shape}; it must be (n, 2): ra, dec")
    good = (positions[:, 0] >= 0) & (positions[:, 0] <= 360) & (np.abs(positions[:, 1]) <= 90)  # NaN is not
    if good.all():
        return
    index = int(np.argmin(good))
    ra, dec = (float(value) for value in positions[index])
    name, value, low, high = ("dec", dec, -90, 90) if 0 <= ra <= 360 else ("ra", ra, 0, 360)
    advice = f"; that is {ra % 360:g} on the circle" if name == "ra" and np.isfinite(ra) else ""
    told: dict[str, Any] = {"index": index, name: value, "bad": int(np.count_nonzero(~good))}
    raise InvalidPositionError(
        f"position {index}: {name} is {value:g}; it must be a number of degrees from {low} to {high}{advice}", **told
    )


def unit_vectors(positions: Floats) -> Floats:
    """(n, 3) unit vectors of (n, 2) positions."""
    ra, dec = np.radians(positions[..., 0]), np.radians(positions[..., 1])
    cos = np.cos(dec)
    return np.stack([cos * np.cos(ra), cos * np.sin(ra), np.sin(dec)], axis=-1)


def positions_of(vectors: Floats) -> Floats:
    """(n, 2) positions of (n, 3) vectors of any length, right ascension from 0 to below 360."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack([wrapped(np.degrees(np.arctan2(y, x))), np.degrees(np.arctan2(z, np.hypot(x, y)))], axis=-1)


def wrapped(ra: Floats) -> Floats:
    """Right ascension from 0 to below 360; a remainder that rounds to 360 is 0."""
    turned = np.mod(ra, 360.0)
    return np.where(turned >= 360.0, 0.0, turned)


def separation(first: Floats, second: Floats) -> Floats:
    """Angles in degrees between positions (..., 2), exact for small and for large ones."""
    a, b = unit_vectors(first), unit_vectors(second)
    return np.degrees(_angle(a, b))


def project(positions: Floats, centres: Floats) -> Floats:
    """(n, 2) gnomonic coordinates (xi to the east, eta to the north) in radians, about (n, 2) or (2,) centres.

    NaN at 90 degrees from the centre and beyond.  Formula: Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.3.
    """
    offset = np.radians(positions[..., 0] - centres[..., 0])
    dec, dec0 = np.radians(positions[..., 1]), np.radians(centres[..., 1])
    sin, cos, sin0, cos0 = np.sin(dec), np.cos(dec), np.sin(dec0), np.cos(dec0)
    along = cos * np.cos(offset)
    depth = sin * sin0 + along * cos0
    depth = np.where(depth > 0, depth, np.nan)
    return np.stack([cos * np.sin(offset) / depth, (sin * cos0 - along * sin0) / depth], axis=-1)


def deproject(plane: Floats, centres: Floats) -> Floats:
    """(n, 2) positions of gnomonic coordinates in radians about (n, 2) or (2,) centres; the inverse of `project`."""
    xi, eta = plane[..., 0], plane[..., 1]
    dec0 = np.radians(centres[..., 1])
    sin0, cos0 = np.sin(dec0), np.cos(dec0)
    along = cos0 - eta * sin0
    ra = centres[..., 0] + np.degrees(np.arctan2(xi, along))
    return np.stack([wrapped(ra), np.degrees(np.arctan2(sin0 + eta * cos0, np.hypot(along, xi)))], axis=-1)


def edge_normals(corners: Floats) -> Floats:
    """Unit normals (..., k, 3) of the great circles from each corner (..., k, 3) to the next.

    The normals of a convex polygon point to its inside where its corners follow one another counterclockwise as seen
    from outside the sphere: with right ascension growing to the right, first along the south.
    """
    following = np.roll(corners, -1, axis=-2)
    # (b - a) x (b + a) is 2 a x b without the cancellation between near vectors
    normals = np.asarray(np.cross(following + corners, following - corners), np.float64)
    length = _length(normals)[..., None]
    units: Floats = np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)
    return units


def distance_to_polygons(points: Floats, corners: Floats) -> Floats:
    """Angles in degrees from unit vectors (n, 3) to convex polygons (n, k, 3) with counterclockwise corners; 0 inside.

    Exact on the sphere: to the nearest point of the nearest edge, which is an arc of a great circle.
    """
    normals = edge_normals(corners)
    following = np.roll(corners, -1, axis=-2)
    heights = np.einsum("nkc,nc->nk", normals, points)
    # beside an arc, not beyond its ends, where the point is on the inner side of the planes through both ends
    after = np.einsum("nkc,nc->nk", np.cross(normals, corners), points)
    before = np.einsum("nkc,nc->nk", np.cross(following, normals), points)
    to_circle = np.arcsin(np.clip(np.abs(heights), 0, 1))
    to_corner = np.minimum(_angle(points[:, None], corners), _angle(points[:, None], following))
    nearest = np.where((after >= 0) & (before >= 0), to_circle, to_corner).min(axis=1)
    distances: Floats = np.degrees(np.where((heights >= -ROUNDING).all(axis=1), 0.0, nearest))
    return distances


def _angle(a: Floats, b: Floats) -> Floats:
    angle: Floats = 2 * np.arctan2(_length(a - b), _length(a + b))
    return angle


def _length(vectors: Floats) -> Floats:
    length: Floats = np.sqrt(np.einsum("...c,...c->...", vectors, vectors))
    return length
