"""Where baselines stand as seen from a phase centre, and the way from one phase centre to another.

u points to the east, v to the north of ICRS and w to the phase centre, all in the frame in which the antennas stand, at
the middle of each integration: with precession, nutation, aberration and the motion of the pole, without refraction.
A baseline is the place of antenna 1 less that of antenna 2, see `Visibilities`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from absurd.tasks.radio.errors import DataError
from absurd.tasks.visibility.visibilities import PhaseCentre

if TYPE_CHECKING:
    from absurd.tasks.visibility.visibilities import Array, Visibilities

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]

_FEW = 100
"""Times of which none is looked up among the others."""
_STEP = 1e-3
"""Radians to either side of a phase centre between which north is taken."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place on Earth, above the ellipsoid of WGS 84: a `Site`."""

    latitude_deg: float
    longitude_deg: float
    height_m: float


def place_of(position_m: ArrayLike) -> Place:
    """Of geocentric x, y, z in metres.  Raises DataError for what is not near the surface of the Earth."""
    import erfa

    position = np.asarray(position_m, np.float64)
    radius = float(np.linalg.norm(position))
    if not 6.3e6 < radius < 6.4e6:
        raise DataError(
            f"the array stands {radius / 1e3:.1f} km from the centre of the Earth",
            advice="positions are geocentric (ITRF), in metres",
        )
    longitude, latitude, height = erfa.gc2gd(1, position)
    return Place(float(np.degrees(latitude)), float(np.degrees(longitude)), float(height))


def axes(ra_rad: ArrayLike, dec_rad: ArrayLike, time_s: ArrayLike, array: Array) -> Floats:
    """Unit vectors along u, v and w, (..., 3, 3; the first of these two is u, v, w), geocentric (ITRF).

    Directions are ICRS, times as in `Visibilities`; they broadcast.
    """
    from absurd.tasks.radio.earth import observed

    place = place_of(array.position_m)
    ra, dec, time = np.broadcast_arrays(*(np.asarray(each, np.float64) for each in (ra_rad, dec_rad, time_s)))
    # Beyond a pole, dec + step is what lies there on the same great circle.
    w, below, above = (
        _vector(*observed(ra, each, time, place), place.longitude_deg) for each in (dec, dec - _STEP, dec + _STEP)
    )
    north = above - below
    north -= w * np.sum(north * w, axis=-1, keepdims=True)
    north /= np.linalg.norm(north, axis=-1, keepdims=True)
    return np.stack([np.cross(north, w), north, w], axis=-2)


def _vector(hour_angle: Floats, declination: Floats, longitude_deg: float) -> Floats:
    angle = np.radians(longitude_deg) - hour_angle
    across = np.cos(declination)
    return np.stack([across * np.cos(angle), across * np.sin(angle), np.sin(declination)], axis=-1)


def uvw_m(
    array: Array,
    antenna1: Integers,
    antenna2: Integers,
    time_s: Floats,
    field: Integers,
    phase_centres: Sequence[PhaseCentre],
) -> Floats:
    """Of rows, (row, 3), metres; times and fields are those of the rows.

    Of pyuvdata's within 0.005 mm in w, and 0.1 mm in u and v, for baselines of 2.7 km.
    """
    times, fields, kind = _kinds(time_s, field)
    ra, dec = (np.array([getattr(phase_centres[each], name) for each in fields]) for name in ("ra_rad", "dec_rad"))
    frames = axes(ra, dec, times, array)
    baselines = array.positions_m[antenna1] - array.positions_m[antenna2]
    turned: Floats = np.einsum("rij,rj->ri", frames[kind], baselines)
    return turned


def _kinds(time_s: Floats, field: Integers) -> tuple[Floats, Integers, NDArray[np.intp]]:
    """The times and fields that there are together, and for each row which of these it has."""
    changes = np.flatnonzero((np.diff(time_s) != 0) | (np.diff(field) != 0)) + 1  # rows that follow are mostly alike
    firsts = np.concatenate([np.zeros(min(1, len(time_s)), np.intp), changes])
    times, fields = time_s[firsts], field[firsts]
    kind: NDArray[np.intp] = np.repeat(np.arange(len(firsts)), np.diff(np.append(firsts, len(time_s))))
    if len(firsts) <= _FEW:
        return times, fields, kind
    pairs = np.empty(len(firsts), [("time", np.float64), ("field", np.int64)])
    pairs["time"], pairs["field"] = times, fields
    kinds, place = np.unique(pairs, return_inverse=True)
    return kinds["time"], kinds["field"], place[kind]


def meridian_centres(
    time_s: ArrayLike, declination_rad: float, array: Array, *, hour_angle_rad: float = 0.0
) -> tuple[PhaseCentre, ...]:
    """What a telescope that stands still points to at each of some times: ``meridian_icrs_t0`` and so on.

    The declination is the apparent one of date, as the telescope is set; the phase centres are ICRS.
    """
    from absurd.tasks.radio.earth import icrs

    times = np.atleast_1d(np.asarray(time_s, np.float64))
    place = place_of(array.position_m)
    ra, dec = icrs(np.full(len(times), hour_angle_rad), np.full(len(times), declination_rad), times, place)
    return tuple(
        PhaseCentre(f"meridian_icrs_t{number}", float(each_ra), float(each_dec))
        for number, (each_ra, each_dec) in enumerate(zip(ra, dec, strict=True))
    )


def phase_to(
    visibilities: Visibilities,
    ra_rad: float,
    dec_rad: float,
    *,
    name: str = "",
    by: Literal["positions", "uvw"] = "positions",
) -> Visibilities:
    """The same visibilities with one phase centre for all rows; flags and weights stay.

    Directions are ICRS.  `by` positions reckons w of the old and the new phase centre anew, from where the antennas
    stand at each time, and so with aberration: that is what the sky does.  `by` uvw turns the coordinates that there
    are; use it where antennas do not stand where these say, as in some simulated data.

    Raises DataError if coordinates and positions differ by more than a hundredth of the baselines: by which of them
    data were phased cannot be known.
    """
    from absurd.tasks.visibility.loops import rotate

    centre = (PhaseCentre(name or f"{np.degrees(ra_rad):.5f}{np.degrees(dec_rad):+.5f}", ra_rad, dec_rad),)
    fields = np.zeros(len(visibilities.time_s), np.int32)
    if by == "uvw":
        old, new = visibilities.uvw_m, _turned(visibilities, ra_rad, dec_rad)
    else:
        old, new = (
            uvw_m(visibilities.array, visibilities.antenna1, visibilities.antenna2, visibilities.time_s, each, centres)
            for each, centres in ((visibilities.field, visibilities.phase_centres), (fields, centre))
        )
        _agree(visibilities.uvw_m, old)
    data = visibilities.data.copy()
    rotate(data, new[:, 2] - old[:, 2], visibilities.frequencies_hz)
    return visibilities.with_(data=data, uvw_m=new, field=fields, phase_centres=centre)


def _agree(told: Floats, reckoned: Floats) -> None:
    longest = float(np.abs(reckoned).max(initial=0.0))
    if not longest:
        return
    apart = float(np.median(np.linalg.norm(told - reckoned, axis=1)))
    if apart > 0.01 * longest:
        raise DataError(
            f"coordinates of baselines are {apart:.3g} m from what positions of antennas give, with baselines of up to "
            f"{longest:.3g} m",
            advice="correct the positions, or phase by the coordinates (by='uvw')",
        )


def _turned(visibilities: Visibilities, ra_rad: float, dec_rad: float) -> Floats:
    """Coordinates for a new phase centre from those for the old one, as if the sky were turned."""
    new = _basis(ra_rad, dec_rad)
    turned = visibilities.uvw_m.copy()
    for number, old in enumerate(visibilities.phase_centres):
        rows = visibilities.field == number
        turned[rows] = visibilities.uvw_m[rows] @ _basis(old.ra_rad, old.dec_rad) @ new.T
    return turned


def _basis(ra: float, dec: float) -> Floats:
    """Unit vectors to the east, the north and a direction: rows, (3, 3)."""
    return np.array(
        [
            [-np.sin(ra), np.cos(ra), 0.0],
            [-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)],
            [np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)],
        ]
    )
