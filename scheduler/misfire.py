"""What to do about all the times at which a schedule was due since it was settled: pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from absurd.scheduler.trigger import Trigger
from absurd.schedules import Due

MOST = 1000
"""Tasks that one transaction spawns."""


@dataclass(frozen=True)
class Policy:
    """What is made up for, of what was due while nobody fired it.

    What is no later than `grace` is not missed at all.  Of the rest `last` are made up for (None: all), none if they are
    older than `look_back`; with `once` none either if something that is not missed comes after them: one run is enough.
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


def settle(trigger: Trigger, policy: Policy, since: datetime, now: datetime, end: datetime | None) -> Settlement:
    """Settle what was due after `since` up to `now`; nothing is due after `end`.

    At most `MOST` are spawned at once; what remains is then due next.
    """
    in_time, made_up, missed, skipped_at = [], deque[datetime](), 0, None
    settled = since
    # Not one by one through what is too old anyway.
    old = max(since, now - policy.look_back - policy.grace)
    following = _after(trigger, since, end)
    if following is not None and following <= old:
        missed, skipped_at, settled = 1, following, following
        following = _after(trigger, old, end)
    while following is not None and following <= now and len(in_time) + len(made_up) < MOST:
        settled = following
        if following >= now - policy.grace:
            in_time.append(following)
        else:
            made_up.append(following)
            if policy.last is not None and len(made_up) > policy.last:
                missed, skipped_at = missed + 1, made_up.popleft()
        following = _after(trigger, settled, end)
    if policy.once and in_time and made_up:
        missed, skipped_at = missed + 1, made_up.popleft()
    due = [Due(at) for at in (*made_up, *in_time)]
    if skipped_at is not None:
        due.insert(0, Due(skipped_at, "misfire", missed))
    return Settlement(due, settled, following)


def _after(trigger: Trigger, instant: datetime, end: datetime | None) -> datetime | None:
    found = trigger.after(instant)
    return None if found is None or (end is not None and found > end) else found
