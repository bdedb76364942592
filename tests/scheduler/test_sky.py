"""Triggers that follow the sky, against astropy itself: its sidereal time and its altitude of the sun."""

from __future__ import annotations

import random
import socket
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import AltAz, EarthLocation, get_sun
from astropy.coordinates.erfa_astrom import ErfaAstromInterpolator, erfa_astrom
from astropy.time import Time
from astropy.utils import iers
from numpy.typing import NDArray
from proof import amount, seed_of

from absurd.errors import InvalidOptionError
from absurd.scheduler import sky
from absurd.scheduler.trigger import EPOCH, Trigger, read_trigger

OVRO = {"longitude": -118.2817, "latitude": 37.2339, "height": 1222.0}
PACHON = {"longitude": -70.7494, "latitude": -30.2446, "height": 2663.0}
SVALBARD = {"longitude": 15.6, "latitude": 78.2}
SECOND = timedelta(seconds=1)
Floats = NDArray[np.float64]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test opens a connection, or asks astropy to."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError(f"the network was asked for: {args}")

    for owner, name in ((socket.socket, "connect"), (socket, "getaddrinfo"), (urllib.request, "urlopen")):
        monkeypatch.setattr(owner, name, refuse)
    with iers.conf.set_temp("auto_download", False), iers.conf.set_temp("auto_max_age", None):
        yield


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def moment(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=float(seconds))


def between(trigger: Trigger, begin: datetime, end: datetime) -> list[datetime]:
    found, due = [], trigger.after(begin)
    while due is not None and due <= end:
        found.append(due)
        due = trigger.after(due)
    return found


def close(ours: list[datetime], theirs: list[datetime]) -> bool:
    """As many, each to a second."""
    return len(ours) == len(theirs) and all(abs(a - b) <= SECOND for a, b in zip(ours, theirs, strict=True))


# What astropy says, and nothing of ours --------------------------------------------------------------


def passages(shown: Callable[[Floats], Floats], grid: Floats, values: Floats, *, rising: bool) -> list[datetime]:
    """Where what is shown passes nought, between the points of a grid and halved down to a tenth of a second."""
    sign = 1 if rising else -1
    at = np.flatnonzero((sign * values[:-1] < 0) & (sign * values[1:] >= 0))
    low, high = grid[at], grid[at + 1]
    while low.size and (high - low).max() > 0.1:
        middle = (low + high) / 2
        before = sign * shown(middle) < 0
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    return [moment(each) for each in high]


def altitudes(seconds: Floats, longitude: float, latitude: float, height: float) -> Floats:
    place = EarthLocation.from_geodetic(longitude * units.deg, latitude * units.deg, height * units.m)
    moments = Time(seconds, format="unix")
    found: Floats = get_sun(moments).transform_to(AltAz(obstime=moments, location=place)).alt.deg
    return found


@cache
def sampled(begin: datetime, end: datetime, *site: float) -> tuple[Floats, Floats]:
    """A grid of two minutes and the altitudes at it, which are only interpolated a little."""
    grid = np.arange(begin.timestamp(), end.timestamp() + 1, 120.0, dtype=np.float64)
    with erfa_astrom.set(ErfaAstromInterpolator(600 * units.s)):
        return grid, altitudes(grid, *site)


def sun_passages(site: dict[str, float], altitude: float, begin: str, end: str, *, rising: bool) -> list[datetime]:
    place = site["longitude"], site["latitude"], site.get("height", 0.0)
    grid, values = sampled(day(begin), day(end), *place)
    return passages(lambda at: altitudes(at, *place) - altitude, grid, values - altitude, rising=rising)


def sidereal_passages(hours: float, longitude: float, begin: datetime, end: datetime) -> list[datetime]:
    def shown(seconds: Floats) -> Floats:
        found = Time(seconds, format="unix").sidereal_time("apparent", longitude * units.deg).hour
        ahead: Floats = (found - hours + 12) % 24 - 12
        return ahead

    grid = np.arange(begin.timestamp(), end.timestamp() + 1, 10800.0, dtype=np.float64)
    values = shown(grid)
    values[np.abs(values) > 6] = np.nan  # where it leaps by a day
    return passages(shown, grid, values, rising=True)


# Sidereal time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("site", "text", "hours"),
    [(OVRO, "03:30", 3.5), (PACHON, "00:00", 0.0), (SVALBARD, "23:59:59.5", 24 - 0.5 / 3600)],
    ids=["north", "south", "polar"],
)
def test_sidereal_times_are_those_of_astropy(site: dict[str, float], text: str, hours: float) -> None:
    """Apparent sidereal time at a site is what astropy gives, to a second, once a sidereal day over a year."""
    trigger = read_trigger(f"lst {text}", site=site)
    begin, end = day("2024-06-01"), day("2025-06-10")

    ours = between(trigger, begin, end)

    assert close(ours, sidereal_passages(hours, site["longitude"], begin, end))
    assert len(ours) in (375, 376)


def test_each_turn_of_the_earth_has_one_time() -> None:
    """Wherever the turns are counted from: with each hour and longitude one a sidereal day, in order, to 2200."""
    source = random.Random(seed_of("turns"))
    # About the sidereal time at the beginning of turns too, from which it wanders away by seconds.
    for number in range(amount(40, 1000)):
        hours, longitude = source.uniform(0, 24), source.uniform(-180, 180)
        if number % 2:
            hours = (sky._sidereal_hours(0.0, longitude) + source.uniform(-4, 4) / 3600) % 24
        minutes, seconds = divmod(hours * 3600, 60)
        text = f"lst {int(minutes) // 60:02}:{int(minutes) % 60:02}:{min(seconds, 59.999):06.3f}"
        trigger = read_trigger(text, site={"longitude": longitude, "latitude": 0.0})
        begin = EPOCH + timedelta(seconds=source.randrange(230 * 365 * 86400))

        found = between(trigger, begin, begin + timedelta(days=30))

        gaps = [(b - a).total_seconds() for a, b in pairwise(found)]
        assert all(86162 <= gap <= 86166 for gap in gaps), (text, longitude, begin)
        assert len(found) in (30, 31)


# The sun ---------------------------------------------------------------------------------------------

SUNS = [
    ("twilight astronomical end", -18.0, False),
    ("twilight astronomical begin", -18.0, True),
    ("twilight nautical end", -12.0, False),
    ("twilight civil begin", -6.0, True),
    ("sun rise", -5 / 6, True),
    ("sun set", -5 / 6, False),
    ("sun -8.5 setting", -8.5, False),
    ("sun 30 rising", 30.0, True),
    ("Sun +0 Rising", 0.0, True),
]


@pytest.mark.parametrize("site", [OVRO, PACHON], ids=["north", "south"])
@pytest.mark.parametrize(("text", "altitude", "rising"), SUNS)
def test_the_sun_is_that_of_astropy(site: dict[str, float], text: str, altitude: float, *, rising: bool) -> None:
    """Twilights, rise, set and any altitude are passed when astropy's sun passes it, to a second, each day."""
    ours = between(read_trigger(text, site=site), day("2025-03-10"), day("2025-03-30"))

    assert close(ours, sun_passages(site, altitude, "2025-03-10", "2025-03-30", rising=rising))
    assert len(ours) in (19, 20, 21)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("2025-02-10", "2025-02-22"),
        ("2025-04-08", "2025-04-24"),
        ("2025-08-18", "2025-09-01"),
        ("2025-10-20", "2025-10-30"),
    ],
)
@pytest.mark.parametrize(("text", "altitude", "rising"), SUNS)
def test_the_sun_at_a_pole(begin: str, end: str, text: str, altitude: float, *, rising: bool) -> None:
    """Where polar night and day begin and end, and the sun grazes the horizon, it is astropy's to a second."""
    ours = between(read_trigger(text, site=SVALBARD), day(begin), day(end))

    assert close(ours, sun_passages(SVALBARD, altitude, begin, end, rising=rising))


def test_polar_night_and_day_are_passed_over() -> None:
    """Where the sun does not rise or set for months the next time is the one after them."""
    rise, end = (read_trigger(text, site=SVALBARD) for text in ("sun rise", "twilight astronomical end"))
    in_winter, in_summer = rise.after(day("2024-11-28")), rise.after(day("2025-05-15"))
    in_light = end.after(day("2025-05-15"))
    assert in_winter is not None
    assert in_summer is not None
    assert in_light is not None

    assert day("2025-02-14") < in_winter < day("2025-02-18")
    assert day("2025-08-22") < in_summer < day("2025-08-27")
    assert day("2025-10-06") < in_light < day("2025-10-12")


def test_once_a_year_at_the_pole() -> None:
    """At the pole itself the sun rises and sets once a year."""
    pole = {"longitude": 0.0, "latitude": 90.0}

    assert [
        each.month for each in between(read_trigger("sun rise", site=pole), day("2025-01-01"), day("2026-12-31"))
    ] == [3, 3]
    assert [
        each.month for each in between(read_trigger("sun set", site=pole), day("2025-01-01"), day("2026-12-31"))
    ] == [9, 9]


@pytest.mark.parametrize("site", [OVRO, SVALBARD, {"longitude": 179.99, "latitude": 66.6}])
@pytest.mark.parametrize("text", ["sun rise", "sun set", "twilight nautical end", "lst 18:40:30"])
def test_the_same_from_anywhere(site: dict[str, float], text: str) -> None:
    """Whatever instant one looks from, the next time is the one that a walk from the beginning of the year finds."""
    source = random.Random(seed_of(f"anywhere {text}"))
    trigger = read_trigger(text, site=site)
    walked = between(trigger, day("2025-01-01"), day("2026-03-01"))
    assert walked == sorted(set(walked))

    sky._passages.cache_clear()
    ends = [each + by for each in source.sample(walked[:-1], 10) for by in (-SECOND, timedelta(0), SECOND)]
    for instant in [*ends, *(day("2025-01-01") + source.random() * timedelta(days=390) for _ in range(30))]:
        expected = next(each for each in walked if each > instant)
        assert read_trigger(text, site=site).after(instant) == expected


# The rest --------------------------------------------------------------------------------------------


def test_no_setting_of_astropy_is_touched() -> None:
    """With many threads that reckon at once the settings are the same while they do and afterwards."""
    before = iers.conf.auto_download, iers.conf.auto_max_age, iers.conf.iers_degraded_accuracy
    texts = [text for text, _, _ in SUNS] + ["lst 03:30", "lst 17:00"]

    def reckon(number: int) -> tuple[datetime | None, bool]:
        trigger = read_trigger(texts[number % len(texts)], site=PACHON)
        found = trigger.after(day("2025-01-01") + timedelta(days=number // len(texts)))
        now = iers.conf.auto_download, iers.conf.auto_max_age, iers.conf.iers_degraded_accuracy
        return found, now == before

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(reckon, range(66)))

    assert together == [reckon(number) for number in range(66)]
    assert all(same for _, same in together)
    assert (iers.conf.auto_download, iers.conf.auto_max_age, iers.conf.iers_degraded_accuracy) == before


@pytest.mark.parametrize("year", [1970, 1972, 1999, 2016, 2035, 2099, 2150, 2199])
def test_years_that_no_table_knows(year: int) -> None:
    """Where tables of the Earth's rotation end, and far ahead, it goes on without a warning."""
    for text in ("lst 03:30", "sun set", "twilight civil end"):
        found = between(
            read_trigger(text, site=OVRO), datetime(year, 12, 30, tzinfo=UTC), datetime(year + 1, 1, 4, tzinfo=UTC)
        )
        assert len(found) in (4, 5, 6)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lst", "'lst' is no trigger: write lst 03:30 or lst 03:30:15"),
        ("lst 24:00", "write lst 03:30 or lst 03:30:15"),
        ("lst 03:60", "write lst 03:30"),
        ("lst 3.5", "write lst 03:30"),
        ("sun", "write twilight astronomical end, sun set, or sun -8.5 setting"),
        ("sun shine", "write twilight astronomical end"),
        ("sun 91 rising", "never comes: at latitude 37.2339 the sun is -76.2 to 76.2 degrees high"),
        ("sun 80 rising", "'sun 80 rising' never comes"),
        ("sun -77 setting", "never comes"),
        ("sun nan rising", "write twilight"),
        ("twilight", "write twilight astronomical end"),
        ("twilight end civil", "write twilight astronomical end"),
        ("twilight civil end now", "write twilight astronomical end"),
    ],
)
def test_a_refusal_tells_the_way_out(text: str, told: str) -> None:
    """What is no trigger, or at its site is never due, is refused as an option."""
    with pytest.raises(InvalidOptionError) as refused:
        read_trigger(text, site=OVRO)

    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("site", "told"),
    [
        ({}, "longitude of a site is None"),
        ({"longitude": 1.0}, "latitude of a site is None"),
        ({"longitude": 1.0, "latitude": 90.5}, "latitude of a site is 90.5: it is a number up to 90"),
        ({"longitude": float("nan"), "latitude": 1.0}, "longitude of a site is nan"),
        ({"longitude": "12", "latitude": 1.0}, "longitude of a site is '12'"),
        ({"longitude": True, "latitude": 1.0}, "longitude of a site is True"),
        ({"longitude": 1, "latitude": 1, "height": float("inf")}, "height of a site is inf"),
    ],
)
def test_a_site_that_is_none_is_refused(site: dict[str, Any], told: str) -> None:
    """A site lacks nothing and lies on the Earth, else it is refused with what is wrong."""
    with pytest.raises(InvalidOptionError) as refused:
        read_trigger("sun set", site=site)

    assert told in str(refused.value)
