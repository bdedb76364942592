"""Triggers that follow the sky: sidereal time, and the altitude of the sun; through astropy, without a network.

Each time due belongs to a number, of a turn of the Earth or of a day, and is reckoned from that alone: it comes out the same
from wherever one looks, so that nothing is due twice.  Times are rounded to seconds, about as well as UT1 is known ahead
without new data (IERS Bulletin A): less than a second for some years.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from absurd.errors import ConfigurationError, InvalidOptionError
from absurd.scheduler.trigger import EPOCH, Site, Trigger

try:
    from astropy import units
    from astropy.coordinates import AltAz, EarthLocation, get_sun
    from astropy.time import Time
    from astropy.utils import iers
except ImportError as error:
    raise ConfigurationError("triggers that follow the sky need astropy: pip install 'absurd[astro]'") from error

_LOCK = threading.RLock()
Floats = NDArray[np.float64]

SIDEREAL_DAY = 86164.0905
"""Mean seconds of UTC from one passage of the equinox to the next (IAU 2000 Earth rotation and precession)."""
TWILIGHTS = {"astronomical": -18.0, "nautical": -12.0, "civil": -6.0}
HORIZON = -50 / 60
"""Altitude in degrees of the sun's centre at rise and set: 34' of refraction and 16' of radius (Astronomical Almanac)."""
LONGEST_SEARCH = 400
"""Days without an event, as in a polar summer, after which a site is said never to have it."""


@dataclass(frozen=True)
class SiderealTrigger:
    """When the apparent sidereal time at a longitude is so many hours."""

    hours: float
    longitude: float

    def after(self, instant: datetime) -> datetime:
        """See `Trigger`."""
        turn = int((instant - EPOCH).total_seconds() // SIDEREAL_DAY) - 1
        while True:
            due = self._due(turn)
            if due > instant:
                return due
            turn += 1

    def _due(self, turn: int) -> datetime:
        moment = EPOCH + timedelta(seconds=turn * SIDEREAL_DAY)
        ahead = (self.hours - self._shown(moment)) % 24  # hours of sidereal time
        for _ in range(3):
            moment += timedelta(seconds=ahead * SIDEREAL_DAY / 24)
            ahead = (self.hours - self._shown(moment) + 12) % 24 - 12
        return _to_second(moment)

    def _shown(self, moment: datetime) -> float:
        with _offline():
            return float(Time(moment).sidereal_time("apparent", self.longitude * units.deg).hour)


@dataclass(frozen=True)
class SunTrigger:
    """When the sun passes an altitude in degrees, going up or down."""

    altitude: float
    rising: bool
    site: tuple[float, float, float]
    """Longitude and latitude in degrees, height in metres."""

    def after(self, instant: datetime) -> datetime | None:
        """See `Trigger`."""
        first = int(((instant - EPOCH).total_seconds() + self.site[0] * 240) // 86400) - 2
        for day in range(first, first + LONGEST_SEARCH):
            for due in self._due(day):
                if due > instant:
                    return due
        return None

    def _due(self, day: int) -> Iterator[datetime]:
        """The passages within a day of mean solar time, found roughly and then by astropy."""
        begin = day * 86400.0 - self.site[0] * 240
        grid = begin + np.arange(-600.0, 86400.0 + 600.1, 600.0)
        rough = _rough_altitude(grid, *self.site[:2]) - self.altitude
        # A tenth of a degree more than its error: a passage that just is not one is told by astropy.
        near = np.flatnonzero((np.abs(rough) < 4.0) | (np.sign(rough) != np.sign(np.roll(rough, -1))))
        if not near.size:
            return
        fine = np.arange(grid[near[0]] - 600.0, grid[near[-1]] + 1200.1, 60.0)
        exact = self._altitudes(fine) - self.altitude
        below, above = (exact[:-1], exact[1:]) if self.rising else (-exact[:-1], -exact[1:])
        for at in np.flatnonzero((below < 0) & (above >= 0)):
            part = exact[at] / (exact[at] - exact[at + 1])
            seconds = float(fine[at] + 60.0 * part)
            if begin <= seconds < begin + 86400.0:
                yield _to_second(EPOCH + timedelta(seconds=seconds))

    def _altitudes(self, seconds: Floats) -> Floats:
        longitude, latitude, height = self.site
        with _offline():
            place = EarthLocation.from_geodetic(longitude * units.deg, latitude * units.deg, height * units.m)
            moments = Time(seconds, format="unix")
            altitudes: Floats = get_sun(moments).transform_to(AltAz(obstime=moments, location=place)).alt.deg
        return altitudes


def read_sky_trigger(word: str, rest: str, text: str, site: Site) -> Trigger:
    """``lst …``, ``twilight …`` or ``sun …`` at a site.  Raises InvalidOptionError with what is wrong."""
    place = float(site["longitude"]), float(site["latitude"]), float(site.get("height", 0.0))
    if word == "lst":
        return SiderealTrigger(_hours(rest, text), place[0])
    return SunTrigger(*_passage(word, rest.split(), text), place)


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


def _rough_altitude(seconds: Floats, longitude: float, latitude: float) -> Floats:
    """Altitude of the sun in degrees, to some hundredths (low-precision formulae of the Astronomical Almanac, section C)."""
    days = seconds / 86400.0 + 2440587.5 - 2451545.0
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


def _to_second(moment: datetime) -> datetime:
    return (moment + timedelta(seconds=0.5)).replace(microsecond=0).astimezone(UTC)


@contextmanager
def _offline() -> Iterator[None]:
    """Within it astropy takes the Earth's rotation from what is installed, however old, and goes on where that ends.

    One thread at a time: what is set for a while is set for all.
    """
    settings = {"auto_download": False, "auto_max_age": None, "iers_degraded_accuracy": "ignore"}
    with _LOCK, ExitStack() as stack:
        for name, value in settings.items():
            stack.enter_context(iers.conf.set_temp(name, value))
        yield
