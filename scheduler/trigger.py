"""When a schedule is due next after an instant: pure, whatever the trigger.

A trigger is a text, so that it is the same in SQL, TOML, Python and on the command line:

========================================  =====================================================================
``*/15 2-5 * * mon``, ``@daily``          cron, on the clocks of the schedule's zone: see `absurd.scheduler.cron`
``every 90 s``, ``every 1h30m``           an interval, counted from the schedule's start, or else from its making
``at 2027-01-31T21:30:00Z``               one instant
``lst 03:30``, ``lst 03:30:15``           apparent sidereal time at the schedule's site
``jd every 0.5``                          Julian dates (UTC) a number of days apart, counted from 0; or from one of
                                          them: ``jd every 1 from 2461000.25``
``twilight astronomical end``             the sun 18° below the horizon of the site, going down; ``begin``: going up.
                                          ``nautical`` is 12°, ``civil`` 6°
``sun rise``, ``sun set``                 its upper limb on the horizon, with the usual refraction: centre at -50'
``sun -8.5 setting``, ``sun 30 rising``   its centre at a geometric altitude in degrees
========================================  =====================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from absurd.duration import seconds
from absurd.errors import InvalidOptionError
from absurd.scheduler import cron

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_AFTER_JD_0 = timedelta(days=2440587.5)
SHORTEST, LONGEST = 1.0, 100 * 366 * 86400.0
"""Seconds between two times due."""
LONGEST_TEXT = 1000
_DAY_PARTS = 8
"""Decimals of a day: each is a whole number of microseconds, so that no sum of them is ever rounded."""

Site = Mapping[str, float]
"""``longitude`` and ``latitude`` in degrees, east and north (WGS 84), ``height`` in metres above the ellipsoid."""


class Trigger(Protocol):
    """Says when it is due."""

    def after(self, instant: datetime) -> datetime | None:
        """The first time due after an aware instant, in UTC; None: never again."""


Reader = Callable[[str, str, "Site | None", "datetime | None"], Trigger]


@dataclass(frozen=True)
class CronTrigger:
    """Cron text on the clocks of a zone."""

    cron: cron.Cron
    zone: ZoneInfo

    def after(self, instant: datetime) -> datetime | None:
        """See `Trigger`."""
        return self.cron.after(instant, self.zone)


@dataclass(frozen=True)
class IntervalTrigger:
    """Every so often, counted from an instant, so that nothing adds up."""

    every: timedelta
    origin: datetime

    def after(self, instant: datetime) -> datetime | None:
        """See `Trigger`."""
        try:
            return self.origin + ((instant - self.origin) // self.every + 1) * self.every
        except OverflowError:  # the end of the calendar
            return None


@dataclass(frozen=True)
class OnceTrigger:
    """At one instant."""

    at: datetime

    def after(self, instant: datetime) -> datetime | None:
        """See `Trigger`."""
        return self.at if self.at > instant else None


def read_trigger(text: str, *, zone: str = "UTC", site: Site | None = None, origin: datetime | None = None) -> Trigger:
    """A trigger from its text.  Intervals count from `origin`.

    Raises InvalidOptionError with what is wrong, ConfigurationError if a sky trigger finds no astropy.
    """
    if not isinstance(text, str) or not text.strip():
        raise InvalidOptionError(f"{text!r} is no trigger; write 0 3 * * *, or every 90 s, say", option="trigger")
    if len(text) > LONGEST_TEXT:
        raise InvalidOptionError(
            f"a trigger has {LONGEST_TEXT} characters at most, this one has {len(text)}", option="trigger"
        )
    word, *rest = text.split()
    reader = _READERS.get(word.lower())
    if reader is not None:
        return reader(" ".join(rest), text.strip(), site, origin)
    return CronTrigger(cron.parse(text), read_zone(zone))


@lru_cache(maxsize=1000)
def read_zone(name: str) -> ZoneInfo:
    """A time zone by its name.  Raises InvalidOptionError for what is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidOptionError(f"{name!r} is no time zone; write America/Los_Angeles, say", option="zone") from None


def _every(rest: str, text: str, site: Site | None, origin: datetime | None) -> Trigger:
    return IntervalTrigger(timedelta(seconds=_span(seconds(rest), text)), origin or EPOCH)


def _at(rest: str, text: str, site: Site | None, origin: datetime | None) -> Trigger:
    try:
        at = datetime.fromisoformat(rest)
    except ValueError:
        raise InvalidOptionError(f"{text!r} is no trigger: write at 2027-01-31T21:30:00Z", option="trigger") from None
    if at.utcoffset() is None:
        raise InvalidOptionError(
            f"{text!r} lacks its zone: write at {at.isoformat()}Z, or +02:00 behind it", option="trigger"
        )
    try:
        return OnceTrigger(at.astimezone(UTC))
    except OverflowError:
        raise InvalidOptionError(f"{text!r} is not within the years 1 to 9999", option="trigger") from None


def _julian(rest: str, text: str, site: Site | None, origin: datetime | None) -> Trigger:
    found = _JULIAN.fullmatch(rest.lower())
    if not found:
        raise InvalidOptionError(
            f"{text!r} is no trigger: write jd every 0.5 from 2461000.25, with {_DAY_PARTS} decimals at most",
            option="trigger",
        )
    every = _days(found[1])
    _span(every.total_seconds(), text)
    # From JD 0, which is before the calendars of datetime, the counting comes to the epoch at a remainder.
    since = EPOCH + (_days(found[2] or "0") - _EPOCH_AFTER_JD_0) % every
    return IntervalTrigger(every, since)


def _sky(word: str) -> Reader:
    def read(rest: str, text: str, site: Site | None, origin: datetime | None) -> Trigger:
        if site is None:
            raise InvalidOptionError(
                f"{text!r} needs the site that it is for: its longitude and latitude", option="site"
            )
        from absurd.scheduler.sky import read_sky_trigger  # astropy takes a second to load

        return read_sky_trigger(word, rest, text, site)

    return read


def _days(text: str) -> timedelta:
    whole, _, part = text.partition(".")
    microseconds = int(part.ljust(_DAY_PARTS, "0")) * 86400 * 10**6 // 10**_DAY_PARTS
    return timedelta(days=int(whole), microseconds=microseconds)


def _span(every: float, text: str) -> float:
    if not SHORTEST <= every <= LONGEST:
        raise InvalidOptionError(
            f"{text!r} is no trigger: between two times due lie from one second to a century", option="trigger"
        )
    return every


_JULIAN_DAYS = rf"([0-9]{{1,7}}(?:\.[0-9]{{1,{_DAY_PARTS}}})?)"
_JULIAN = re.compile(rf"every {_JULIAN_DAYS}(?: from {_JULIAN_DAYS})?")
_READERS: dict[str, Reader] = {
    "every": _every,
    "at": _at,
    "jd": _julian,
    **{w: _sky(w) for w in ("lst", "sun", "twilight")},
}
