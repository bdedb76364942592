"""Cron text to instants: pure, and by one rule.

**The text** has five fields (minute, hour, day of month, month, day of week), or six with seconds in front.  A field is
a list of values, ranges and steps: ``*``, ``5``, ``1-5``, ``*/15``, ``10-40/10``, ``5/15`` (from 5 on).  Months and
days of the week also go by their English names in any case; 0 and 7 are Sunday.  ``@hourly``, ``@daily``,
``@midnight``, ``@weekly``, ``@monthly``, ``@yearly`` and ``@annually`` stand for what they say.

**Days**: where day of month and day of week are both limited, either makes a day match; where one of them begins with a
star (``*/2`` too), both must (Vixie's cron, crontab(5)).

**Clock changes** (crontab(5) of Debian, "only jobs that run at a particular time are affected"):

- Where neither minute nor hour begins with a star, the text names times of day.  A time that the clock skips happens
  when the clock has jumped; one that comes twice happens the first time.
- Otherwise the text names what a clock on the wall shows, and each instant at which it shows that matches: nothing of a
  skipped hour, and a repeated hour twice.

croniter steps from match to match on a clock without changes.  It is given plain lists of numbers, because of ranges
and stars it makes something else (release 7.0.0 takes ``23-23`` for a star, and ``5-1`` for a range).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from absurd.errors import InvalidOptionError

LONGEST = 1000
"""Characters of a text."""

_NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_SECOND = timedelta(seconds=1)
_YEARS = 50
"""Between two matches: the 29th of February on a given weekday may keep away for 40."""


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def values(self, text: str) -> frozenset[int]:
        """What the text of a field stands for.  Raises InvalidOptionError with the part that makes no sense."""
        return frozenset(value for part in text.split(",") for value in self._part(part))

    def _part(self, part: str) -> range:
        span, slash, step_text = part.partition("/")
        step = self._number(step_text, part) if slash else 1
        if step < 1:
            raise self._error(part, "a step is 1 or more")
        if span == "*":
            return range(self.low, self._last() + 1, step)
        first, dash, last = span.partition("-")
        low = self._value(first, part)
        if not dash:
            return range(low, max(low, self._last() if slash else low) + 1, step)
        high = self._value(last, part)
        if self.name == "day of week" and last.lower() == "sun" and low > 0:
            high = 7  # the end of a week that begins before it
        if low > high:
            raise self._error(part, f"the range ends before it begins; write {first}-{self._last()},{self.low}-{last}")
        return range(low, high + 1, step)

    def _value(self, text: str, part: str) -> int:
        if text.lower() in self.names:
            return self.names.index(text.lower()) + self.low
        value = self._number(text, part)
        if not self.low <= value <= self.high:
            raise self._error(part, f"it goes from {self.low} to {self.high}")
        return value

    def _last(self) -> int:
        return 6 if self.name == "day of week" else self.high

    def _number(self, text: str, part: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise self._error(part, "use numbers, names, '*', '-', '/' and ','; L, W, # and ? are not known")
        return int(text)

    def _error(self, part: str, why: str) -> InvalidOptionError:
        return InvalidOptionError(f"{part!r} is no {self.name} of a cron text: {why}")


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS),
)


@dataclass(frozen=True)
class Cron:
    """A cron text that makes sense; see `parse`."""

    text: str
    _plain: str
    """Lists of numbers, seconds last, for croniter."""
    _either_day: bool
    _by_the_wall: bool

    def after(self, instant: datetime, zone: ZoneInfo) -> datetime | None:
        """The first instant after `instant` (aware) at which it is due in `zone`, in UTC; None: never again."""
        try:
            wall = instant.astimezone(zone)
            found = self._later(instant, wall, zone), self._again(wall, zone)
        except OverflowError:  # the end of the calendar
            return None
        return min((each for each in found if each), default=None)

    def _later(self, instant: datetime, wall: datetime, zone: ZoneInfo) -> datetime | None:
        """Of the matches that the clock is yet to show, the first that lies after `instant`."""
        shown = wall.replace(tzinfo=None, fold=0)
        if wall.fold and not self._by_the_wall:  # what it shows again is past, however much that is
            shown = _end_of_repeat(wall) - _SECOND
        matches = self._matches(shown)
        while (match := next(matches, None)) is not None:
            jump = _end_of_gap(match, zone)
            if jump is not None and self._by_the_wall:  # nor is a day that was left out gone through
                matches = self._matches(jump.astimezone(zone).replace(tzinfo=None, fold=0) - _SECOND)
                continue
            for due in [jump] if jump else self._instants(match, zone):
                if due > instant:
                    return due
        return None

    def _again(self, wall: datetime, zone: ZoneInfo) -> datetime | None:
        """What the clock has shown already and will show once more, because it will be put back."""
        shown = wall.replace(tzinfo=None, fold=0)
        if not self._by_the_wall or wall.fold or not _is_twice(shown, zone):
            return None
        begin = shown - (wall.utcoffset() - wall.replace(fold=1).utcoffset())  # type: ignore[operator]
        for match in self._matches(begin - _SECOND):
            if match > shown:
                return None
            if _is_twice(match, zone):
                return match.replace(tzinfo=zone, fold=1).astimezone(UTC)
        return None

    def _instants(self, match: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """When the clock shows `match`."""
        yield match.replace(tzinfo=zone).astimezone(UTC)
        if self._by_the_wall and _is_twice(match, zone):
            yield match.replace(tzinfo=zone, fold=1).astimezone(UTC)

    def _matches(self, after: datetime) -> Iterator[datetime]:
        from croniter import CroniterBadDateError, croniter  # every client loads this module, few use it

        stepper = croniter(self._plain, after, day_or=self._either_day, max_years_between_matches=_YEARS)
        while True:
            try:
                yield stepper.get_next(datetime)
            except (CroniterBadDateError, ValueError):  # past what calendars hold
                return


def parse(text: str) -> Cron:
    """Read a cron text.  Raises InvalidOptionError with what is wrong: a part, or that no year has such a date."""
    if len(text) > LONGEST:
        raise InvalidOptionError(f"a cron text has {LONGEST} characters at most, this one has {len(text)}")
    given = text.strip()
    if given.startswith("@"):
        if given.lower() not in _NICKNAMES:
            raise InvalidOptionError(f"{given!r} is no cron text: use one of {', '.join(_NICKNAMES)}, or five fields")
        given = _NICKNAMES[given.lower()]
    parts = given.split()
    if len(parts) == 5:
        parts.insert(0, "0")
    if len(parts) != 6:
        raise InvalidOptionError(
            f"{text!r} is no cron text: it has minute, hour, day of month, month and day of week,"
            " or seconds before these"
        )
    second, minute, hour, day, month, weekday = (f.values(p) for f, p in zip(_FIELDS, parts, strict=True))
    weekday = frozenset(value % 7 for value in weekday)
    star = [part.startswith("*") for part in parts]
    either = not star[3] and not star[5]
    if not either and not any(value <= _LENGTHS[m - 1] for m in month for value in day):
        raise InvalidOptionError(f"{text!r} never comes: no such month has a day {', '.join(map(str, sorted(day)))}")
    if either and (len(day) == 31 or len(weekday) == 7):
        day, weekday = frozenset(range(1, 32)), frozenset(range(7))
    plain = (minute, hour, day, month, weekday, second)
    return Cron(
        text=text.strip(),
        _plain=" ".join(_list(values, full) for values, full in zip(plain, (60, 24, 31, 12, 7, 60), strict=True)),
        _either_day=either,
        _by_the_wall=star[1] or star[2],
    )


def _list(values: frozenset[int], full: int) -> str:
    return "*" if len(values) == full else ",".join(map(str, sorted(values)))


def _is_twice(shown: datetime, zone: ZoneInfo) -> bool:
    """Whether the clock shows it twice, being put back in between."""
    first, second = (shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return first < second


def _end_of_gap(shown: datetime, zone: ZoneInfo) -> datetime | None:
    """The instant, in UTC, at which the clock jumps over what it never shows; None if it does show that."""
    # By the offset from before the gap a skipped time lies behind the jump, by the one from after it ahead of it.
    high, low = (shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return _change(low, high, zone) if low < high else None


def _end_of_repeat(again: datetime) -> datetime:
    """What the clock would have shown when it was put back; `again` is what it shows for the second time."""
    zone, second = again.tzinfo, again.replace(microsecond=0)
    first = second.replace(fold=0)
    change = _change(first.astimezone(UTC), second.astimezone(UTC), zone)
    return change.replace(tzinfo=None) + first.utcoffset()  # type: ignore[operator]


def _change(low: datetime, high: datetime, zone: tzinfo | None) -> datetime:
    """The first second after `low`, and up to `high`, at which the clock has been changed."""
    before = low.astimezone(zone).utcoffset()
    while high - low > _SECOND:
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high
