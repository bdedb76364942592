"""Cron by brute force, for tests: what the clock of a zone shows at each step of a span, and when a text is due.

Nothing here is the scheduler's.  The clock is only ever asked what it shows at an instant, which has one answer; texts
are made together with what they mean, so that none is read.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import gcd
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

DAY = 86400
_RANGES = {"second": (0, 59), "minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_LIKELY = {"second": (0, 30, 59), "minute": (0, 1, 15, 30, 45, 59), "hour": (0, 1, 2, 3, 23)}
"""Where clocks are changed."""

Instants = NDArray[np.int64]
"""In seconds since 1970."""


@dataclass(frozen=True)
class Text:
    """A cron text with what it means."""

    text: str
    fields: dict[str, frozenset[int]]
    either_day: bool
    by_the_wall: bool

    @property
    def comes(self) -> bool:
        """Whether any year has such a date."""
        days, months = self.fields["day"], self.fields["month"]
        return self.either_day or any(day <= _LENGTHS[month - 1] for day in days for month in months)

    def has_day(self, day: date) -> bool:
        """Whether it means something on a date."""
        in_days, on_weekday = day.day in self.fields["day"], day.isoweekday() % 7 in self.fields["weekday"]
        fits = in_days or on_weekday if self.either_day else in_days and on_weekday
        return fits and day.month in self.fields["month"]

    def times(self) -> NDArray[np.bool_]:
        """Which seconds of a day it means."""
        hour, minute, second = (
            np.isin(np.arange(size), list(self.fields[name]))
            for name, size in (("hour", 24), ("minute", 60), ("second", 60))
        )
        return (hour[:, None, None] & minute[None, :, None] & second[None, None, :]).reshape(-1)


def random_text(source: random.Random, *, seconds: bool = False) -> Text:
    """Any kind of text, and often one of times about which clocks are changed."""
    stars = {
        "second": 0.3, "minute": 0.3, "hour": 0.4, "day": 0.7, "month": 0.8, "weekday": 0.7,
    }  # fmt: skip
    parts, fields = [], {"second": frozenset({0})}
    for name in _RANGES:
        if name == "second" and not seconds:
            continue
        part, fields[name] = _random_field(source, name, stars[name])
        parts.append(part)
    minute, hour, day, _, weekday = parts[-5:]
    return Text(
        text=" ".join(parts),
        fields=fields,
        either_day=day[0] != "*" and weekday[0] != "*",
        by_the_wall=minute[0] == "*" or hour[0] == "*",
    )


def _random_field(source: random.Random, name: str, star: float) -> tuple[str, frozenset[int]]:
    low, high = _RANGES[name]
    if source.random() < star:
        return "*", frozenset(range(low, high + 1))
    made = [_random_part(source, name, low, high) for _ in range(source.choice((1, 1, 1, 2, 3)))]
    return ",".join(text for text, _ in made), frozenset().union(*(values for _, values in made))


def _random_part(source: random.Random, name: str, low: int, high: int) -> tuple[str, frozenset[int]]:
    first, last = sorted(source.randint(low, high) for _ in range(2))
    step = source.choice((1, 2, 3, 5, 7, 10, 15, 30, 100))
    stepped = frozenset(value for value in range(first, high + 1) if (value - first) % step == 0)
    match source.randrange(10):
        case 0:
            return f"*/{step}", frozenset(value for value in range(low, high + 1) if (value - low) % step == 0)
        case 1:
            return f"{_word(source, name, first)}/{step}", stepped
        case 2:
            return f"{_word(source, name, first)}-{last}", frozenset(range(first, last + 1))
        case 3:
            return f"{first}-{_word(source, name, last)}/{step}", stepped & frozenset(range(last + 1))
        case 4 if name == "weekday":  # to the Sunday at its end
            return f"{_word(source, name, first or 1)}-{source.choice(('7', 'Sun'))}", frozenset(
                {*range(first or 1, 7), 0}
            )
        case 5 if name == "weekday":  # nothing else of a week begins there
            return source.choice(("7-7", "7/2", "sun-sun", "0-0")), frozenset({0})
    value = source.choice(_LIKELY.get(name, range(low, high + 1)))
    if name == "weekday" and value == 0 and source.random() < 0.5:
        return "7", frozenset({0})
    return _word(source, name, value), frozenset({value})


def _word(source: random.Random, name: str, value: int) -> str:
    names = {"month": ["", *_MONTHS], "weekday": _DAYS}.get(name)
    if names is None or source.random() < 0.5:
        return source.choice((str(value), f"{value:02}"))
    return source.choice((names[value], names[value].upper(), names[value].title()))


class WallClock:
    """What the clock of a zone shows from one instant up to another, at each `grain` seconds."""

    def __init__(self, zone: ZoneInfo, begin: datetime, end: datetime, grain: int = 0) -> None:
        self.changes, offsets = _changes(zone, int(begin.timestamp()), int(end.timestamp()))
        # Whole minutes are on the way, whatever the offsets.
        self.grain = grain or gcd(60, *offsets)
        self.instants: Instants = np.arange(begin.timestamp(), end.timestamp(), self.grain, dtype=np.int64)
        index = np.searchsorted(np.array(self.changes, dtype=np.int64), self.instants, side="right")
        self.shown: Instants = self.instants + np.array(offsets, dtype=np.int64)[index]
        self._first_day = int(self.shown.min()) // DAY
        last = int(self.shown.max()) // DAY
        self._dates = [date(1970, 1, 1) + timedelta(days=day) for day in range(self._first_day, last + 1)]
        highest = np.maximum.accumulate(self.shown)
        self._before = np.concatenate([self.shown[:1] - self.grain, highest[:-1]])

    def due(self, text: Text) -> Instants:
        """All instants of the span at which `text` is due, by the rule in words.

        By the wall: whenever the clock shows it.  Named: each time when the clock first reaches or passes it.
        """
        days, times = np.array([text.has_day(day) for day in self._dates]), text.times()
        meant = self._meant(self.shown, days, times)
        if not text.by_the_wall:
            meant &= self.shown > self._before
            for jump in np.flatnonzero(self.shown > self._before + self.grain):
                passed = np.arange(self._before[jump] + 1, self.shown[jump] + 1)
                meant[jump] = self._meant(passed, days, times).any()
        return self.instants[meant]

    def _meant(self, shown: Instants, days: NDArray[np.bool_], times: NDArray[np.bool_]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = times[shown % DAY] & days[shown // DAY - self._first_day]
        return found


def changes_of(zone: ZoneInfo, begin: datetime, end: datetime) -> list[datetime]:
    """The instants at which the clock is changed."""
    return [datetime.fromtimestamp(at, UTC) for at in _changes(zone, int(begin.timestamp()), int(end.timestamp()))[0]]


def _changes(zone: ZoneInfo, begin: int, end: int) -> tuple[list[int], list[int]]:
    """When the offset from UTC changes, and the offsets before, between and after."""
    at, offsets = [], [_offset(zone, begin)]
    for low in range(begin, end, 6 * 3600):
        high = min(low + 6 * 3600, end)
        if _offset(zone, high) != offsets[-1]:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(zone, middle) == offsets[-1] else (low, middle)  # noqa: PLW2901
            at.append(high)
            offsets.append(_offset(zone, high))
    return at, offsets


def _offset(zone: ZoneInfo, instant: int) -> int:
    offset = datetime.fromtimestamp(instant, zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())
