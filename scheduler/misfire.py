"""What to do about all the times at which a schedule was due since it was settled: pure.

However many those are, few are gone through: what is skipped is found from its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

from absurd.scheduler.trigger import Trigger
from absurd.schedules import Due

MOST = 1000
"""Tasks that one transaction spawns."""
COUNTED = 1000
"""Times skipped at once are counted up to so many; from there on it is said that they are at least as many."""
_MOMENT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Policy:
    """What is made up for, of what was due while nobody fired it.

    What is no later than `grace` is not missed at all.  Of the rest the `last` are made up for (None: all), none if
    they are later than `look_back`; with `once` none either if something that is not missed comes after them: one run
    is enough.
    """

    last: int | None
    once: bool
    grace: timedelta
    look_back: timedelta

    @classmethod
    def read(cls, misfire: str, grace: float, look_back: float) -> Policy:
        """From ``skip``, ``once``, ``all`` or ``last N``, and seconds."""
        last = {"skip": 0, "once": 1, "all": None}[misfire] if misfire[:4] != "last" else int(misfire[5:])
        return cls(last, misfire == "once", timedelta(seconds=grace), timedelta(seconds=look_back))


class Settlement(NamedTuple):
    """What to fire and to skip, in order; all that was due up to `settled` is done with then; `next` is due next."""

    due: list[Due]
    settled: datetime
    next: datetime | None


@dataclass(frozen=True)
class _Times:
    """When a trigger is due, up to the end of its schedule."""

    trigger: Trigger
    end: datetime | None

    def after(self, instant: datetime) -> datetime | None:
        found = self.trigger.after(instant)
        return None if found is None or (self.end is not None and found > self.end) else found

    def between(self, low: datetime, high: datetime) -> Iterator[datetime]:
        """After `low` and up to `high`."""
        found = self.after(low)
        while found is not None and found <= high:
            yield found
            found = self.after(found)

    def latest(self, number: int, low: datetime, high: datetime) -> list[datetime]:
        """The last so many of those between, without going through the others."""
        span, enough = timedelta(seconds=1), 2 * number + 10
        begin, later = high, high
        while begin > low and not self._more_than(number, begin, high):
            begin, later, span = max(low, high - span), begin, span * 2
        while self._more_than(enough, begin, high):  # there are crowds of them, and they begin late
            middle = begin + (later - begin) / 2
            begin, later = (middle, later) if self._more_than(number, middle, high) else (begin, middle)
        return list(deque(self.between(begin, high), maxlen=number))

    def _more_than(self, number: int, low: datetime, high: datetime) -> bool:
        return len(list(islice(self.between(low, high), number + 1))) > number


def settle(trigger: Trigger, policy: Policy, since: datetime, now: datetime, end: datetime | None) -> Settlement:
    """Settle what was due after `since` up to `now`; nothing is due after `end`.

    At most `MOST` are spawned at once; what remains is then due next.  What is skipped comes before all that is
    spawned, and one row stands for it, at the last of it.
    """
    times = _Times(trigger, end)
    following = times.after(since)
    due, settled = [], since
    if following is not None and following < now - policy.grace:
        begin = _begin(times, policy, since, now)
        if following <= begin:
            skipped = _skip(times, since, begin)
            due, settled, following = [skipped], skipped.at, times.after(begin)
    spawned = 0
    while following is not None and following <= now and spawned < MOST:
        due.append(Due(following))
        settled, following, spawned = following, times.after(following), spawned + 1
    return Settlement(due, settled, following)


def _begin(times: _Times, policy: Policy, since: datetime, now: datetime) -> datetime:
    """What is due up to then is skipped."""
    in_time = max(since, now - policy.grace - _MOMENT)
    begin = max(since, now - max(policy.look_back, policy.grace) - _MOMENT)
    if policy.last == 0 or (policy.once and any(times.between(in_time, now))):
        return in_time
    if policy.last is not None:
        kept = times.latest(policy.last, begin, in_time)
        return kept[0] - _MOMENT if kept else in_time
    return begin


def _skip(times: _Times, since: datetime, begin: datetime) -> Due:
    """One for all that was due from `since` up to `begin`; there is something."""
    skipped = list(islice(times.between(since, begin), COUNTED + 1))
    if len(skipped) > COUNTED:
        return Due(times.latest(1, since, begin)[0], "misfire", COUNTED)
    return Due(skipped[-1], "misfire", len(skipped))
