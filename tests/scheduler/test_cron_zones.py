"""Cron on the clocks of zones, against an enumeration of each minute: the clock changes of the whole tz database."""

from __future__ import annotations

import random
import zoneinfo
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from proof import amount, seed_of
from wall_clock import Text, WallClock, changes_of, random_text

from absurd.errors import InvalidOptionError
from absurd.scheduler.cron import Cron, parse

KINDS = {
    "UTC": ("UTC", "2027-01-01", 400),
    "an hour, north": ("America/New_York", "2026-01-01", 730),
    "an hour, south": ("America/Santiago", "2026-01-01", 730),
    "half an hour": ("Australia/Lord_Howe", "2026-01-01", 730),
    "two hours": ("Antarctica/Troll", "2026-01-01", 730),
    "three hours": ("Antarctica/Casey", "2020-01-01", 400),
    "winter time is the other one": ("Europe/Dublin", "2026-01-01", 730),
    "back for Ramadan": ("Africa/Casablanca", "2026-01-01", 730),
    "no midnight": ("America/Sao_Paulo", "2017-06-01", 730),
    "no midnight, and 23:00 twice": ("Africa/Cairo", "2026-01-01", 730),
    "midnight twice": ("America/Havana", "2026-01-01", 400),
    "the day before": ("America/Nuuk", "2026-01-01", 730),
    "three quarters": ("Pacific/Chatham", "2026-01-01", 400),
    "a quarter for good": ("Asia/Kathmandu", "1985-11-01", 120),
    "half an hour for good, and back": ("Asia/Pyongyang", "2015-07-01", 1200),
    "a skipped day": ("Pacific/Apia", "2011-08-01", 400),
    "a skipped New Year": ("Pacific/Kiritimati", "1994-11-01", 120),
    "a skipped day at Kwajalein": ("Pacific/Kwajalein", "1993-07-01", 90),
    "seconds": ("Africa/Monrovia", "1971-12-20", 40),
}


def instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def random_cron(source: random.Random, *, seconds: bool = False) -> tuple[Text, Cron]:
    """One that comes; those that never do are refused on the way."""
    while not (text := random_text(source, seconds=seconds)).comes:
        with pytest.raises(InvalidOptionError, match="never comes"):
            parse(text.text)
    return text, parse(text.text)


def compare(source: random.Random, zone: ZoneInfo, clock: WallClock, text: Text, cron: Cron) -> None:
    """Equal from the beginning on, about some changes, and from anywhere."""
    due = clock.due(text).tolist()
    first, last = int(clock.instants[0]), int(clock.instants[-1])
    changes = source.sample(clock.changes, min(len(clock.changes), 4))
    near = [at + by for at in changes for by in (-7200, -3601, -1, 0, 1, 1799, 3600, source.randint(-9000, 9000))]
    anywhere = [source.randint(first, last) for _ in range(6)]
    for start, steps in [(first, 10), *((at, 1) for at in anywhere), *((at, 2) for at in near if first <= at <= last)]:
        at = instant(start)
        index = bisect_right(due, start)
        for expected in [*map(instant, due[index : index + steps]), None][:steps]:
            found = cron.after(at, zone)
            told = f"{text.text!r} in {zone} after {at}: {found}, not {expected}"
            if expected is None:
                assert found is None or found > instant(last), told
                break
            assert found == expected, told
            at = expected


def span(begin: str, days: int) -> tuple[datetime, datetime]:
    start = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    return start, start + timedelta(days=days)


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_in_a_zone_of_each_kind(kind: str) -> None:
    """Random texts are due at the very instants, over years, that a walk through all minutes gives (B101, B102)."""
    name, begin, days = KINDS[kind]
    source = random.Random(seed_of(f"cron in {name}"))
    zone = ZoneInfo(name)
    clock = WallClock(zone, *span(begin, days))
    assert clock.changes or name == "UTC"

    for _ in range(amount(12, 500)):
        compare(source, zone, clock, *random_cron(source))


@pytest.mark.parametrize("name", ["America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Monrovia"])
def test_texts_with_seconds(name: str) -> None:
    """With six fields each second counts, about each change as well."""
    source = random.Random(seed_of(f"cron seconds in {name}"))
    zone = ZoneInfo(name)
    for change in changes_of(zone, *span("1971-06-01", 365 if name == "Africa/Monrovia" else 365 * 42))[
        -amount(3, 50) :
    ]:
        clock = WallClock(zone, change - timedelta(hours=3), change + timedelta(hours=3), grain=1)
        for _ in range(amount(8, 100)):
            compare(source, zone, clock, *random_cron(source, seconds=True))


def test_all_zones() -> None:
    """The rule holds for changes of all zones of the tz database from 1970 to 2040: usually for some of them."""
    source = random.Random(seed_of("cron in all zones"))
    names = sorted(zoneinfo.available_timezones())
    for name in source.sample(names, min(amount(12, 10_000), len(names))):
        zone = ZoneInfo(name)
        changes = changes_of(zone, *span("1970-01-05", 70 * 365))
        for change in source.sample(changes, min(amount(3, 10_000), len(changes))):
            clock = WallClock(zone, change - timedelta(days=4), change + timedelta(days=3))
            for _ in range(4):
                compare(source, zone, clock, *random_cron(source))
