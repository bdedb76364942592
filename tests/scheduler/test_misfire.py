"""What is made up for and what is skipped, of all that was due while nobody fired it."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from proof import amount, seed_of

from absurd.scheduler import misfire
from absurd.scheduler.cron import parse
from absurd.scheduler.misfire import Policy, Settlement, settle
from absurd.scheduler.trigger import CronTrigger, IntervalTrigger, Trigger
from absurd.schedules import Due

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)
DAY = 86400.0
HOURLY = IntervalTrigger(timedelta(hours=1), NOON)


def at(minutes: float) -> datetime:
    """So many minutes after noon."""
    return NOON + timedelta(minutes=minutes)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


@dataclass(frozen=True)
class Listed:
    """Due at given times; counts how often it was asked."""

    times: list[datetime]
    asked: list[datetime] = field(default_factory=list)

    def after(self, instant: datetime) -> datetime | None:
        self.asked.append(instant)
        index = bisect_right(self.times, instant)
        return self.times[index] if index < len(self.times) else None


@dataclass(frozen=True)
class Counting:
    """Another trigger, with the number of questions it was asked."""

    trigger: Trigger
    asked: list[datetime] = field(default_factory=list)

    def after(self, instant: datetime) -> datetime | None:
        self.asked.append(instant)
        return self.trigger.after(instant)


def fired(found: Settlement) -> list[datetime]:
    return [each.at for each in found.due if not each.skipped]


def all_settled(
    trigger: Trigger, policy: Policy, since: datetime, now: datetime, end: datetime | None = None
) -> Iterator[Settlement]:
    """Settlements one after the other, until nothing is due."""
    while True:
        found = settle(trigger, policy, since, now, end)
        yield found
        if found.next is None or found.next > now:
            return
        assert found.settled > since
        since = found.settled


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("skip", [Due(at(180), "misfire", 3)]),
        ("once", [Due(at(120), "misfire", 2), Due(at(180))]),
        ("last 2", [Due(at(60), "misfire"), Due(at(120)), Due(at(180))]),
        ("last 3", [Due(at(60)), Due(at(120)), Due(at(180))]),
        ("last 4", [Due(at(60)), Due(at(120)), Due(at(180))]),
        ("all", [Due(at(60)), Due(at(120)), Due(at(180))]),
    ],
)
def test_what_each_policy_makes_up_for(policy: str, expected: list[Due]) -> None:
    """Of three missed hours each policy makes up for as many as it says, the latest; one row stands for the others."""
    found = settle(HOURLY, Policy.read(policy, 60, DAY), at(0), at(182), None)

    assert found == Settlement(expected, at(180), at(240))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("skip", [Due(at(120), "misfire", 2), Due(at(180))]),
        ("once", [Due(at(120), "misfire", 2), Due(at(180))]),
        ("last 1", [Due(at(60), "misfire"), Due(at(120)), Due(at(180))]),
        ("all", [Due(at(60)), Due(at(120)), Due(at(180))]),
    ],
)
def test_what_is_in_time_is_fired_by_any_policy(policy: str, expected: list[Due]) -> None:
    """What is no later than the grace is not missed; with `once` nothing else is made up for then."""
    found = settle(HOURLY, Policy.read(policy, 60, DAY), at(0), at(181), None)

    assert found == Settlement(expected, at(180), at(240))


def test_what_is_due_now_is_due() -> None:
    """A time is due from the very instant on, and not before."""
    policy = Policy.read("skip", 0, 0)

    assert settle(HOURLY, policy, at(0), at(60), None) == Settlement([Due(at(60))], at(60), at(120))
    assert settle(HOURLY, policy, at(0), at(60) - seconds(1e-6), None) == Settlement([], at(0), at(60))
    assert settle(HOURLY, policy, at(0), at(60) + seconds(1e-6), None).due == [Due(at(60), "misfire")]


def test_a_clock_that_was_set_back_fires_nothing() -> None:
    """What is settled stays so where the clock is earlier than that."""
    assert settle(HOURLY, Policy.read("all", 60, DAY), at(180), at(0), None) == Settlement([], at(180), at(240))


def test_nothing_is_made_up_for_beyond_the_look_back() -> None:
    """What is later than the look-back is skipped, whatever the policy; to the instant."""
    told = [Due(at(60), "misfire"), Due(at(120)), Due(at(180))]

    assert settle(HOURLY, Policy.read("all", 0, 3600), at(0), at(180), None).due == [Due(at(60), "misfire"), *told[1:]]
    late = at(180) + seconds(1e-6)
    assert settle(HOURLY, Policy.read("all", 0, 3600), at(0), late, None).due == [Due(at(120), "misfire", 2), told[2]]
    assert settle(HOURLY, Policy.read("last 5", 0, 3600), at(0), late, None).due == [
        Due(at(120), "misfire", 2),
        told[2],
    ]


def test_the_grace_reaches_beyond_a_shorter_look_back() -> None:
    """What is not missed is fired, however short the look-back."""
    assert settle(HOURLY, Policy.read("skip", 7200, 0), at(0), at(180), None).due == [
        Due(at(60)),
        Due(at(120)),
        Due(at(180)),
    ]


def test_nothing_is_due_after_the_end() -> None:
    """The end of a schedule is the last instant at which it may be due; then it is due never again."""
    policy = Policy.read("all", 60, DAY)

    assert settle(HOURLY, policy, at(0), at(600), at(120)) == Settlement([Due(at(60)), Due(at(120))], at(120), None)
    assert settle(HOURLY, policy, at(120), at(600), at(120)) == Settlement([], at(120), None)
    assert settle(HOURLY, policy, at(0), at(90), at(119)) == Settlement([Due(at(60))], at(60), None)
    assert settle(HOURLY, Policy.read("skip", 0, DAY), at(0), at(600), at(130)) == Settlement(
        [Due(at(120), "misfire", 2)], at(120), None
    )


def test_a_four_hourly_schedule_after_a_day() -> None:
    """Last run 25 hours ago, it makes up for six with `all`, and for none with `skip` (B92)."""
    trigger = CronTrigger(parse("0 */4 * * *"), ZoneInfo("UTC"))
    since, now = NOON, NOON + timedelta(hours=25)

    assert len(fired(settle(trigger, Policy.read("all", 60, 2 * DAY), since, now, None))) == 6
    assert fired(settle(trigger, Policy.read("skip", 60, 2 * DAY), since, now, None)) == []


def test_a_new_schedule_is_not_due_for_the_past() -> None:
    """Settled when it is made, it is due for nothing before that, whatever its policy (B94)."""
    assert settle(HOURLY, Policy.read("all", DAY, DAY), at(90), at(90), None) == Settlement([], at(90), at(120))


def test_a_long_list_is_fired_in_parts() -> None:
    """No transaction spawns more than it should; each part begins where the one before ended."""
    policy = Policy.read("last 2500", 60, 10 * DAY)
    minutely = IntervalTrigger(timedelta(minutes=1), NOON)
    parts = list(all_settled(minutely, policy, NOON, at(5000) + seconds(61)))

    assert [len(fired(each)) for each in parts] == [1000, 1000, 501]
    assert parts[0].due[0] == Due(at(2500), "misfire", misfire.COUNTED)  # at least so many
    assert [moment for part in parts for moment in fired(part)] == [at(n) for n in range(2501, 5002)]
    assert parts[-1].next == at(5002)


@pytest.mark.parametrize("policy", ["skip", "once", "last 20", "all"])
@pytest.mark.parametrize("text", ["* * * * * *", "* * 3 * * *", "* * 0-11 1 1 *"])
def test_ten_years_are_not_gone_through(policy: str, text: str) -> None:
    """After years without a scheduler what to do is found in few steps, for a schedule of each second as well."""
    trigger = Counting(CronTrigger(parse(text), ZoneInfo("UTC")))
    since, now = datetime(2027, 1, 1, tzinfo=UTC), datetime(2037, 1, 1, 12, tzinfo=UTC)
    look_back = 43200 if policy == "all" else 10 * 366 * DAY

    found = settle(trigger, Policy.read(policy, 0, look_back), since, now, None)

    assert len(trigger.asked) < 6000
    assert (found.due[0].skipped, found.due[0].missed) == ("misfire", misfire.COUNTED)
    assert trigger.after(found.due[0].at) == (fired(found)[0] if fired(found) else found.next)


def test_policies_agree_with_going_through_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any times due each is once in time, made up for, or skipped, as a look at each of them says."""
    monkeypatch.setattr(misfire, "MOST", 7)
    source = random.Random(seed_of("misfire"))
    for _ in range(amount(1500, 100_000)):
        times = sorted(
            {at(source.choice((1, 1, 60)) * source.randrange(600) / 10) for _ in range(source.randrange(60))}
        )
        since, now = sorted(at(source.randrange(-60, 4000)) for _ in range(2))
        end = source.choice((None, None, at(source.randrange(4000))))
        grace, look_back = source.choice((0, 1, 60, 600, 9000)), source.choice((0, 60, 3600, 86400))
        text = source.choice(("skip", "once", "all", f"last {source.randrange(1, 20)}"))

        passed = [each for each in times if since < each <= now and (end is None or each <= end)]
        in_time = [each for each in passed if now - each <= seconds(grace)]
        missed = [each for each in passed if now - each > seconds(grace)]
        made_up = [each for each in missed if now - each <= seconds(look_back)]
        keep = {"skip": 0, "once": 0 if in_time else 1, "all": 1000}.get(text) if text[0] != "l" else int(text[5:])
        made_up = made_up[len(made_up) - keep :] if keep is not None and keep < len(made_up) else made_up

        parts = list(all_settled(Listed(times), Policy.read(text, grace, look_back), since, now, end))

        told = f"{text}, grace {grace}, look back {look_back}, {since} to {now}, end {end}: {times}"
        rows = [each for part in parts for each in part.due]
        assert [each.at for each in rows if not each.skipped] == made_up + in_time, told
        skipped = missed[: len(missed) - len(made_up)]
        assert [each for each in rows if each.skipped] == [Due(each, "misfire", len(skipped)) for each in skipped[-1:]]
        assert all(len(fired(part)) <= 7 for part in parts), told
        assert [each.at for each in rows] == sorted(each.at for each in rows), told
        later = [each for each in times if each > max(now, since) and (end is None or each <= end)]
        assert parts[-1].next == (later[0] if later else None), told
        assert parts[-1].settled == (passed[-1] if passed else since), told
