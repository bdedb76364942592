"""Where directions stand over a telescope: hour angle and declination as observed, without refraction.

Times are seconds of UTC since MJD 0.  How the Earth turned is taken from the tables that are installed (IERS Bulletin A
of astropy-iers-data), however old: nothing is downloaded, and times beyond their ends are warned of.  ERFA is called
directly, since astropy's own frames ask settings of the whole process whether to download newer tables.
"""

from __future__ import annotations

import warnings
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import erfa
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_MJD_0 = 2_400_000.5
_MJD_ORDINAL = date(1858, 11, 17).toordinal()
_DAY = 86_400.0
SIDEREAL_DAY_S = 86_164.0905
"""Mean seconds of UTC from one transit of a star to the next."""


class Site(Protocol):
    """A place on Earth, above the ellipsoid of WGS 84: a `Telescope` is one."""

    @property
    def latitude_deg(self) -> float: ...
    @property
    def longitude_deg(self) -> float:
        """East."""

    @property
    def height_m(self) -> float: ...


class _Orientation(NamedTuple):
    """By days (MJD): UT1 - UTC in seconds, and the pole in radians."""

    days: Floats
    ut1_utc_s: Floats
    x_rad: Floats
    y_rad: Floats


@lru_cache(maxsize=1)
def _orientation() -> _Orientation:
    from astropy_iers_data import IERS_A_FILE

    rows = []
    for line in Path(IERS_A_FILE).read_text(encoding="ascii").splitlines():
        columns = line[7:15], line[58:68], line[18:27], line[37:46]
        if all(map(str.strip, columns)):
            rows.append([float(each) for each in columns])
    days, ut1_utc, x, y = np.array(rows).T
    return _Orientation(days, ut1_utc, np.radians(x / 3600), np.radians(y / 3600))


def _ut1_utc_s(days: Floats) -> Floats:
    """UT1 - UTC; beyond the ends of the table what stands there, see `_check_known`."""
    known = _orientation()
    inside = np.clip(days, known.days[0], known.days[-1])
    index = np.clip(np.searchsorted(known.days, inside, side="right"), 1, len(known.days) - 1)
    low, high = known.ut1_utc_s[index - 1], known.ut1_utc_s[index]
    part = (inside - known.days[index - 1]) / (known.days[index] - known.days[index - 1])
    value: Floats = low + part * (high - low - np.round(high - low))  # but for a leap second between them
    return value


@lru_cache(maxsize=1)
def _leap_days() -> Floats:
    """The days (MJD) that end with a leap second."""
    leaps = erfa.leap_seconds.get()
    return np.array([erfa.cal2jd(each["year"], each["month"], 1)[1] - 1 for each in leaps[leaps["year"] > 1971]])


def _erfa_days(days: Floats) -> Floats:
    """Days as ERFA counts UTC: one that ends with a leap second is one day long, with seconds that are shorter."""
    whole = np.floor(days)
    value: Floats = np.where(np.isin(whole, _leap_days()), whole + (days - whole) * _DAY / (_DAY + 1), days)
    return value


def utc_s(julian_days: ArrayLike) -> Floats:
    """Seconds of UTC since MJD 0, as CASA counts, of Julian days of UTC, as astropy and ERFA count them."""
    days = np.asarray(julian_days, np.float64) - _MJD_0
    whole = np.floor(days)
    long = np.isin(whole, _leap_days())
    value: Floats = _DAY * whole + (days - whole) * np.where(long, _DAY + 1, _DAY)
    return value


def _astrometry(time_s: ArrayLike, site: Site) -> tuple[Any, Floats]:
    """What ERFA has to know of each time, and the equation of the origins, radians."""
    known = _orientation()
    days = np.asarray(time_s, np.float64) / _DAY
    _check_known(days, known.days)
    astrometry, origins, _ = erfa.ufunc.apco13(  # erfa.apco13 warns of years that are far ahead
        _MJD_0,
        _erfa_days(days),
        _ut1_utc_s(days),
        np.radians(site.longitude_deg),
        np.radians(site.latitude_deg),
        site.height_m,
        np.interp(days, known.days, known.x_rad),
        np.interp(days, known.days, known.y_rad),
        0.0,  # no air, no refraction
        0.0,
        0.0,
        1.0,
    )
    return astrometry, origins


def _check_known(days: Floats, known: Floats) -> None:
    """Warn of times that the tables do not reach: the Earth is taken to turn on as at their ends."""
    if days.size and (days.min() < known[0] or days.max() > known[-1]):
        first, last = (date.fromordinal(_MJD_ORDINAL + int(each)) for each in (known[0], known[-1]))
        warnings.warn(
            f"how the Earth turns is known from {first} to {last}, and not at all times from MJD {days.min():.0f} to "
            f"{days.max():.0f}: directions are off by 15 arcsec for each second that UT1 has gone by since; "
            "upgrade astropy-iers-data",
            RuntimeWarning,
            stacklevel=4,
        )


def sidereal_rad(time_s: ArrayLike, site: Site) -> Floats:
    """Local apparent sidereal time, 0 to 2 pi: the apparent right ascension that is on the meridian."""
    astrometry, origins = _astrometry(time_s, site)
    value: Floats = np.mod(astrometry["eral"] - origins, 2 * np.pi)
    return value


def observed(ra_rad: ArrayLike, dec_rad: ArrayLike, time_s: ArrayLike, site: Site) -> tuple[Floats, Floats]:
    """Hour angle (-pi to pi) and declination of ICRS directions; all arguments broadcast.

    With precession, nutation, aberration, the bending of light by the sun, and the motion of the pole: they stand in
    the frame in which the antennas do.
    """
    astrometry, _ = _astrometry(time_s, site)
    _, _, hour_angle, declination, _ = erfa.ufunc.atioq(*erfa.ufunc.atciqz(ra_rad, dec_rad, astrometry), astrometry)
    return hour_angle, declination


def icrs(hour_angle_rad: ArrayLike, dec_rad: ArrayLike, time_s: ArrayLike, site: Site) -> tuple[Floats, Floats]:
    """Right ascension (0 to 2 pi) and declination of what is observed there: the way back of `observed`."""
    astrometry, _ = _astrometry(time_s, site)
    intermediate = erfa.ufunc.atoiq(b"H", hour_angle_rad, dec_rad, astrometry)
    ra, dec = erfa.ufunc.aticq(*intermediate, astrometry)
    return np.mod(ra, 2 * np.pi), dec


def transit_s(ra_rad: float, dec_rad: float, near_s: float, site: Site) -> float:
    """When a direction is on the meridian, next to a time: at most half a turn of the Earth away."""
    time = near_s
    for _ in range(3):  # an hour angle grows by one turn in a sidereal day, to some parts in 10^5
        hour_angle, _ = observed(ra_rad, dec_rad, time, site)
        time -= float(hour_angle) / (2 * np.pi) * SIDEREAL_DAY_S
    return time


def meridian_uvw_m(baselines_m: Floats, declination_rad: float, site: Site) -> Floats:
    """u, v, w of baselines (..., 3; geocentric metres) for a phase centre on the meridian: the same at all times.

    w points to it, u to the east and v to the north.
    """
    longitude = np.radians(site.longitude_deg)
    x, y, z = np.moveaxis(np.asarray(baselines_m, np.float64), -1, 0)
    south = np.cos(longitude) * x + np.sin(longitude) * y  # towards where meridian and equator meet
    east = np.cos(longitude) * y - np.sin(longitude) * x
    sine, cosine = np.sin(declination_rad), np.cos(declination_rad)
    return np.stack([east, cosine * z - sine * south, sine * z + cosine * south], axis=-1)


def meridian_cosines(hour_angle_rad: Floats, dec_rad: Floats, declination_rad: float) -> tuple[Floats, Floats, Floats]:
    """Direction cosines l, m and n - 1 of what is observed at hour angles and declinations, from the same phase centre.

    n - 1 keeps its digits near the phase centre.
    """
    sine, cosine = np.sin(declination_rad), np.cos(declination_rad)
    east = -np.cos(dec_rad) * np.sin(hour_angle_rad)
    north = np.sin(dec_rad) * cosine - np.cos(dec_rad) * np.cos(hour_angle_rad) * sine
    # n = cos of the distance; 1 - n = 2 sin^2(distance / 2), by the haversine of both
    haversine = (
        np.sin((dec_rad - declination_rad) / 2) ** 2 + np.cos(dec_rad) * cosine * np.sin(hour_angle_rad / 2) ** 2
    )
    return east, north, -2 * haversine
