"""Triggers that follow the sky: sidereal time, and the altitude of the sun; as astropy has them, to a second.

Each time due belongs to a number, of a turn of the Earth or of a day, and is reckoned from that alone: it comes out the
same from wherever one looks, so that nothing is due twice.  Times are rounded to seconds, about as well as UT1 is known
ahead without new data (IERS Bulletin A): less than a second for some years.

What astropy stands on is called directly (ERFA, and the tables that come with astropy-iers-data): its own `Time` and
`AltAz` ask settings of the whole process whether to download newer tables, and warn of years that are far ahead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

from absurd.errors import ConfigurationError, InvalidOptionError
from absurd.scheduler.trigger import EPOCH, Site, Trigger

try:
    import erfa
    import numpy as np
    from astropy_iers_data import IERS_A_FILE
    from numpy.typing import NDArray
except ImportError as error:
    raise ConfigurationError("triggers that follow the sky need astropy: pip install 'absurd[astro]'") from error

Floats = NDArray[np.float64]

SIDEREAL_DAY = 86164.0905
"""Mean seconds of UTC from one passage of the equinox to the next (IAU 2000 Earth rotation and precession)."""
TWILIGHTS = {"astronomical": -18.0, "nautical": -12.0, "civil": -6.0}
HORIZON = -50 / 60
"""Degrees of the sun's centre at rise and set: 34' of refraction and 16' of radius (Astronomical Almanac)."""
LONGEST_SEARCH = 400
"""Days without an event, as in a polar summer, after which a site is said never to have it."""
_TROPIC = 23.45
_STEP = 60.0
"""Seconds.  The sun is asked that often: where it is beyond an altitude for less, it has not passed it."""
_JD_OF_EPOCH, _MJD_OF_EPOCH = 2440587.5, 40587
_ASTRONOMICAL_UNIT = 149597870700.0
_LIGHT, _TURNING = 299792458.0, 7.292115e-5
"""In metres and radians a second."""


@dataclass(frozen=True)
class SiderealTrigger:
    """When the apparent sidereal time at a longitude is so many hours."""

    hours: float
    longitude: float

    def after(self, instant: datetime) -> datetime:
        """See `Trigger`."""
        first = int((instant - EPOCH).total_seconds() // SIDEREAL_DAY) - 2
        return next(due for due in map(self._due, count(first)) if due > instant)

    def _due(self, turn: int) -> datetime:
        # Counted in even turns from the first one, so that each has its own: real ones are some seconds off.
        phase = (self.hours - _sidereal_hours(0.0, self.longitude)) % 24 / 24
        seconds = (turn + phase) * SIDEREAL_DAY
        for _ in range(2):
            ahead = (self.hours - _sidereal_hours(seconds, self.longitude) + 12) % 24 - 12
            seconds += ahead * SIDEREAL_DAY / 24
        return _to_second(seconds)


@dataclass(frozen=True)
class SunTrigger:
    """When the sun passes an altitude in degrees, going up or down."""

    altitude: float
    rising: bool
    site: tuple[float, float, float]
    """Longitude and latitude in degrees, height in metres."""

    def after(self, instant: datetime) -> datetime | None:
        """See `Trigger`."""
        first = int(((instant - EPOCH).total_seconds() + self.site[0] * 240) // 86400) - 1
        found = (due for day in range(first, first + LONGEST_SEARCH) for due in _passages(self, day))
        return next((due for due in found if due > instant), None)


@lru_cache(maxsize=5000)
def _passages(trigger: SunTrigger, day: int) -> tuple[datetime, ...]:
    """The passages within a day of mean solar time, found roughly and then exactly."""
    # All days are cut from one row of steps, so that none lies between two of them.
    begin, end = (round((each * 86400 - trigger.site[0] * 240) / _STEP) * _STEP for each in (day, day + 1))
    steps = np.arange(begin, end + 0.1, _STEP, dtype=np.float64)
    # The sun moves by a quarter of a degree from one to the next, and is known roughly to some hundredths.
    near = np.abs(_rough_altitude(steps, *trigger.site[:2]) - trigger.altitude) < 0.5
    found = (_exact(trigger, each) for each, _, _ in _crossings(trigger, steps[near], _STEP))
    return tuple(_to_second(each) for each in found if each is not None)


def _exact(trigger: SunTrigger, step: float) -> float | None:
    """The passage within a step; so short a part of the way as is taken last is a straight line."""
    part = _STEP / 6
    for begin, low, high in _crossings(trigger, np.arange(step, step + _STEP + 0.1, part, dtype=np.float64), part):
        return begin + part * low / (low - high)
    return None


def _crossings(trigger: SunTrigger, seconds: Floats, step: float) -> Iterator[tuple[float, float, float]]:
    """After which of them, and up to the next, the altitude is passed; and how far from it the sun is at both."""
    if not seconds.size:
        return
    above = _altitudes(seconds, trigger.site) - trigger.altitude
    before, after = (above[:-1], above[1:]) if trigger.rising else (-above[:-1], -above[1:])
    for at in np.flatnonzero((before < 0) & (after >= 0) & (np.diff(seconds) < 1.5 * step)):
        yield float(seconds[at]), float(above[at]), float(above[at + 1])


def read_sky_trigger(word: str, rest: str, text: str, site: Site) -> Trigger:
    """``lst …``, ``twilight …`` or ``sun …`` at a site.  Raises InvalidOptionError with what is wrong."""
    place = tuple(_number(site, *limits) for limits in _LIMITS)
    if word == "lst":
        return SiderealTrigger(_hours(rest, text), place[0])
    altitude, rising = _passage(word, rest.split(), text)
    highest = 90 - max(0.0, abs(place[1]) - _TROPIC)
    if abs(altitude) > highest:
        raise InvalidOptionError(
            f"{text!r} never comes: at latitude {place[1]:g} the sun is {-highest:.1f} to {highest:.1f} degrees high",
            option="trigger",
        )
    return SunTrigger(altitude, rising, (place[0], place[1], place[2]))


_LIMITS = (("longitude", 360.0), ("latitude", 90.0), ("height", 100000.0))


def _number(site: Site, name: str, most: float) -> float:
    value = site.get(name, 0.0 if name == "height" else None)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -most <= value <= most:
        raise InvalidOptionError(f"{name} of a site is {value!r}: it is a number up to {most:g}", option="site")
    return float(value)


def _hours(rest: str, text: str) -> float:
    found = re.fullmatch(r"(\d{1,2}):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?", rest)
    if not found or int(found[1]) > 23:
        raise InvalidOptionError(f"{text!r} is no trigger: write lst 03:30 or lst 03:30:15", option="trigger")
    return int(found[1]) + int(found[2]) / 60 + float(found[3] or 0) / 3600


def _passage(word: str, rest: list[str], text: str) -> tuple[float, bool]:
    match word, [each.lower() for each in rest]:
        case "twilight", [("astronomical" | "nautical" | "civil") as kind, ("begin" | "end") as edge]:
            return TWILIGHTS[kind], edge == "begin"
        case "sun", [("rise" | "set") as edge]:
            return HORIZON, edge == "rise"
        case "sun", [number, ("rising" | "setting") as way] if re.fullmatch(r"[+-]?\d{1,2}(\.\d+)?", number):
            return float(number), way == "rising"
    raise InvalidOptionError(
        f"{text!r} is no trigger: write twilight astronomical end, sun set, or sun -8.5 setting", option="trigger"
    )


# The Earth and the sun --------------------------------------------------------------------------------


class _Turning(NamedTuple):
    """How the Earth turned: by days (MJD), UT1-UTC in seconds and the pole in radians; leap seconds by their days."""

    days: Floats
    ut1_utc: Floats
    pole: tuple[Floats, Floats]
    leap_days: Floats
    tai_utc: Floats


@lru_cache(maxsize=1)
def _turning() -> _Turning:
    """From what is installed, however old."""
    rows = []
    for line in Path(IERS_A_FILE).read_text(encoding="ascii").splitlines():
        columns = line[7:15], line[58:68], line[18:27], line[37:46]
        if all(map(str.strip, columns)):
            rows.append([float(each) for each in columns])
    days, ut1_utc, x, y = np.array(rows).T
    leaps = erfa.leap_seconds.get()
    leap_days = [erfa.cal2jd(each["year"], each["month"], 1)[1] for each in leaps]
    return _Turning(days, ut1_utc, (np.radians(x / 3600), np.radians(y / 3600)), np.array(leap_days), leaps["tai_utc"])


def _times(seconds: Floats) -> tuple[Floats, Floats]:
    """UT1 and TT in days since 1970, UTC being given in seconds; where the tables end, with what they end with."""
    known = _turning()
    days = seconds / 86400 + _MJD_OF_EPOCH
    inside = np.clip(days, known.days[0], known.days[-1])
    index = np.clip(np.searchsorted(known.days, inside, side="right"), 1, len(known.days) - 1)
    low, high = known.ut1_utc[index - 1], known.ut1_utc[index]
    part = (inside - known.days[index - 1]) / (known.days[index] - known.days[index - 1])
    ut1_utc = low + part * (high - low - np.round(high - low))  # but for a leap second between them
    tai_utc = known.tai_utc[np.maximum(np.searchsorted(known.leap_days, days, side="right") - 1, 0)]
    return (seconds + ut1_utc) / 86400, (seconds + tai_utc + 32.184) / 86400


def _sidereal_hours(seconds: float, longitude: float) -> float:
    ut1, tt = _times(np.array([seconds]))
    return float(np.degrees(erfa.gst06a(_JD_OF_EPOCH, ut1, _JD_OF_EPOCH, tt)[0]) + longitude) / 15


def _altitudes(seconds: Floats, site: tuple[float, float, float]) -> Floats:
    """Geometric altitude in degrees of the sun's centre, by seconds of UTC since 1970."""
    ut1, tt = _times(seconds)
    x, y = (np.interp(seconds / 86400 + _MJD_OF_EPOCH, _turning().days, each) for each in _turning().pole)
    around_sun, moving, _ = erfa.ufunc.epv00(_JD_OF_EPOCH, tt)  # which erfa.epv00 warns of from 2100 on
    away = np.linalg.norm(around_sun["p"], axis=-1)
    speed = moving["v"] * _ASTRONOMICAL_UNIT / 86400 / _LIGHT
    seen = erfa.ab(-around_sun["p"] / away[:, None], speed, away, np.sqrt(1 - (speed**2).sum(axis=-1)))
    sun = erfa.rxp(erfa.c2t00b(_JD_OF_EPOCH, tt, _JD_OF_EPOCH, ut1, x, y), seen * away[:, None] * _ASTRONOMICAL_UNIT)
    longitude, latitude = np.radians(site[:2])
    here = erfa.gd2gc(1, longitude, latitude, site[2])
    up = erfa.s2c(longitude, latitude)
    ahead = sun - here
    direction = ahead / np.linalg.norm(ahead, axis=-1)[:, None]
    direction += np.cross([0.0, 0.0, _TURNING], here) / _LIGHT  # the aberration of the turning site
    altitude: Floats = np.degrees(np.arcsin(direction @ up / np.linalg.norm(direction, axis=-1)))
    return altitude


def _rough_altitude(seconds: Floats, longitude: float, latitude: float) -> Floats:
    """The same to some hundredths of a degree (low-precision formulae of the Astronomical Almanac, section C)."""
    days = seconds / 86400.0 + _JD_OF_EPOCH - 2451545.0
    mean = np.radians(280.460 + 0.9856474 * days)
    anomaly = np.radians(357.528 + 0.9856003 * days)
    ecliptic = mean + np.radians(1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    tilt = np.radians(23.439 - 0.0000004 * days)
    declination = np.arcsin(np.sin(tilt) * np.sin(ecliptic))
    ascension = np.arctan2(np.cos(tilt) * np.sin(ecliptic), np.cos(ecliptic))
    hour_angle = np.radians(280.46061837 + 360.98564736629 * days + longitude) - ascension
    north = np.radians(latitude)
    sine = np.sin(north) * np.sin(declination) + np.cos(north) * np.cos(declination) * np.cos(hour_angle)
    altitude: Floats = np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))
    return altitude


def _to_second(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=round(seconds))
