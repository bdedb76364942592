"""Triggers from text: intervals, instants and Julian dates; what is refused; and that nothing else ever escapes."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from proof import seed_of

from absurd.duration import seconds
from absurd.errors import InvalidOptionError
from absurd.scheduler.trigger import (
    EPOCH,
    LONGEST_TEXT,
    CronTrigger,
    IntervalTrigger,
    OnceTrigger,
    Site,
    Trigger,
    read_trigger,
)

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)
OVRO = {"longitude": -118.2817, "latitude": 37.2339, "height": 1222.0}
JD_OF_EPOCH = Fraction("2440587.5")


def walk(trigger: Trigger, start: datetime, steps: int) -> list[datetime]:
    found: list[datetime] = []
    for _ in range(steps):
        due = trigger.after(found[-1] if found else start)
        assert due is not None
        assert due.tzinfo is UTC
        found.append(due)
    return found


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("every 90", 90),
        ("every 90 s", 90),
        ("EVERY 1h30m", 5400),
        ("every 1h 30 m", 5400),
        ("every\t2d", 172800),
        ("every 1500ms", 1.5),
        ("every 1.1s", 1.1),
        ("every 1w", 604800),
    ],
)
def test_intervals_count_from_their_origin(text: str, every: float) -> None:
    """An interval is due at whole numbers of it from the origin, wherever one looks from; without one, from 1970."""
    origin = NOON + timedelta(microseconds=123456)
    trigger = read_trigger(text, origin=origin)

    expected = [origin + number * timedelta(seconds=every) for number in range(1, 6)]
    assert walk(trigger, origin, 5) == expected
    assert trigger.after(expected[2] - timedelta(microseconds=1)) == expected[2]
    assert trigger.after(origin - timedelta(microseconds=1)) == origin
    assert read_trigger(text).after(EPOCH) == EPOCH + timedelta(seconds=every)


def test_intervals_do_not_drift() -> None:
    """After a century of steps of 1.1 s the next is where multiplying puts it."""
    trigger = read_trigger("every 1.1 s", origin=NOON)
    late = NOON + timedelta(microseconds=1_100_000 * 3_000_000_000)

    assert trigger.after(late) == late + timedelta(seconds=1.1)
    assert trigger.after(late - timedelta(microseconds=1)) == late


def test_one_instant() -> None:
    """It is due once, and afterwards never again; its offset is kept to."""
    trigger = read_trigger("at 2027-01-31T23:30:00.5+02:00")

    assert trigger.after(NOON) == datetime(2027, 1, 31, 21, 30, 0, 500000, tzinfo=UTC)
    assert trigger.after(datetime(2027, 1, 31, 21, 30, 0, 500000, tzinfo=UTC)) is None
    assert read_trigger("at 2027-01-31 21:30Z") == OnceTrigger(datetime(2027, 1, 31, 21, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("every", "origin"),
    [
        ("0.1", None),
        ("0.5", None),
        ("1", "2461000.25"),
        ("0.00001158", None),
        ("0.33333333", "2461000.12345678"),
        ("27.32166", "0.5"),
        ("365.25", "2451545"),
        ("12.00000001", "9999999.99999999"),
    ],
)
def test_julian_dates_are_exact(every: str, origin: str | None) -> None:
    """Julian dates are due at whole numbers of days from the origin to a microsecond, as fractions have it."""
    trigger = read_trigger(f"jd every {every}" + (f" from {origin}" if origin else ""))
    source = random.Random(seed_of("julian"))
    for _ in range(50):
        instant = EPOCH + timedelta(microseconds=source.randrange(230 * 366 * 86400 * 10**6))
        due = trigger.after(instant)
        assert due is not None
        assert instant < due <= instant + timedelta(days=float(every), microseconds=1)
        since = (
            JD_OF_EPOCH + Fraction((due - EPOCH) // timedelta(microseconds=1), 86400 * 10**6) - Fraction(origin or 0)
        )
        assert (since / Fraction(every)).denominator == 1


def test_julian_dates_are_those_of_astropy() -> None:
    """The dates are astropy's, in UTC."""
    from astropy.time import Time

    found = walk(read_trigger("jd every 0.25 from 2461000.125"), NOON, 5)

    assert [round(float(Time(each).jd * 8) % 2, 6) for each in found] == [1.0] * 5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' is no trigger; write 0 3 * * *"),
        (" \n", "is no trigger"),
        ("daily", "'daily' is no cron text"),
        ("every", "'' is not a duration; write 90, 90s"),
        ("every day", "'day' is not a duration"),
        ("every -5s", "'-5s' is not a duration"),
        ("every 1 30 m", "'1 30 m' is not a duration"),
        ("every ٣s", "is not a duration"),
        ("every 0.5s", "'every 0.5s' is no trigger: between two times due lie from one second to a century"),
        ("every 999999w", "from one second to a century"),
        ("every " + "9" * 400, "is not a duration"),
        ("every " + "9" * 90, "from one second to a century"),
        ("at noon", "'at noon' is no trigger: write at 2027-01-31T21:30:00Z"),
        ("at 2027-01-31", "lacks its zone: write at 2027-01-31T00:00:00Z"),
        ("at 2027-02-30T00:00Z", "is no trigger: write at"),
        ("at 0001-01-01T00:00+14:00", "is not within the years 1 to 9999"),
        ("at 9999-12-31T23:59-14:00", "is not within the years 1 to 9999"),
        ("jd every", "write jd every 0.5 from 2461000.25"),
        ("jd every 0", "from one second to a century"),
        ("jd every 0.000001", "from one second to a century"),
        ("jd every 0.123456789", "with 8 decimals at most"),
        ("jd every 1 from now", "write jd every 0.5 from 2461000.25"),
        ("lst 03:30", "'lst 03:30' needs the site that it is for"),
        ("twilight civil end", "needs the site that it is for: its longitude and latitude"),
        ("0 0 30 2 *", "never comes"),
        ("x" * 1001, "a trigger has 1000 characters at most, this one has 1001"),
    ],
)
def test_a_refusal_tells_the_way_out(text: str, told: str) -> None:
    """What is no trigger is refused as an option, with its value and what to write (B97)."""
    with pytest.raises(InvalidOptionError) as refused:
        read_trigger(text)

    assert told in str(refused.value)
    assert refused.value.code == "invalid_option"


@pytest.mark.parametrize(
    "zone", ["", "Mars/Phobos", "America", "../etc/passwd", "/etc/localtime", "A\0B", "x" * 5000, "\ud800"]
)
def test_an_unknown_zone_is_refused(zone: str) -> None:
    """A zone that is none is refused with its name, whatever it holds (B96)."""
    with pytest.raises(InvalidOptionError, match="is no time zone; write America/Los_Angeles") as refused:
        read_trigger("@daily", zone=zone)

    assert repr(zone) in str(refused.value)


def test_each_schedule_has_its_zone() -> None:
    """The same text is due at another instant in another zone (B96)."""
    assert read_trigger("0 3 * * *", zone="America/Los_Angeles").after(NOON) == datetime(2027, 1, 2, 11, tzinfo=UTC)
    assert read_trigger("0 3 * * *", zone="Asia/Kathmandu").after(NOON) == datetime(2027, 1, 1, 21, 15, tzinfo=UTC)
    assert read_trigger("0 3 * * *").after(NOON) == datetime(2027, 1, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "kind"), [("@daily", CronTrigger), ("Every 5m", IntervalTrigger), ("JD Every 1", IntervalTrigger)]
)
def test_words_go_in_any_case(text: str, kind: type) -> None:
    """The word that a trigger begins with is known in any case."""
    assert isinstance(read_trigger(text), kind)


PIECES = st.sampled_from(
    [
        *("every", "at", "jd", "lst", "sun", "twilight", "from", "rise", "set", "rising", "setting", "begin", "end"),
        *(
            "civil",
            "nautical",
            "astronomical",
            "@daily",
            "*",
            "*/5",
            "1-3",
            "mon",
            "0",
            "7",
            "59",
            "0.5",
            "-8.5",
            "+90",
        ),
        *("99.9", "1h30m", "90s", "03:30", "23:59:59.9", "2461000.25", "2027-01-31T21:30:00Z", "9999-12-31T23:59:59Z"),
        *("nan", "inf", "1e9"),
    ]
)
TEXTS = st.one_of(
    st.text(), st.lists(PIECES, max_size=7).map(" ".join), st.tuples(PIECES, st.text(max_size=20)).map(" ".join)
)
INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda each: each.replace(tzinfo=UTC))  # noqa: DTZ001
SITES = st.none() | st.fixed_dictionaries(
    {"longitude": st.floats(-360, 360), "latitude": st.floats(-90, 90), "height": st.floats(-1000, 10000)}
)


@settings(deadline=None)  # a year of days at a pole
@given(text=TEXTS, instant=INSTANTS, site=SITES)
@example(text="sun rise", instant=datetime(2199, 12, 31, tzinfo=UTC), site=OVRO)
@example(text="lst 03:30", instant=datetime(2199, 12, 31, tzinfo=UTC), site=OVRO)
@example(text="sun rise", instant=EPOCH, site={"longitude": 0.0, "latitude": 90.0})
@example(text="at 9999-12-31T23:59:59Z", instant=NOON, site=None)
@example(text="every " + "9" * (LONGEST_TEXT - 6), instant=NOON, site=None)
def test_any_text_is_a_trigger_or_refused(text: str, instant: datetime, site: Site | None) -> None:
    """Whatever the text, it is refused as an option or says when it is due, later and in UTC, from 1970 to 2200."""
    try:
        trigger = read_trigger(text, site=site, zone="America/New_York", origin=NOON)
    except InvalidOptionError:
        return
    due = trigger.after(instant)
    assert due is None or (due > instant and due.tzinfo is UTC)


@given(st.text() | st.text(alphabet="0123456789.smhdwin \t"))
def test_any_span_is_read_or_refused(text: str) -> None:
    """Whatever the text of a span, it is a number of seconds that is not negative, or refused as an option."""
    try:
        found = seconds(text)
    except InvalidOptionError:
        return
    assert 0 <= found < float("inf")


def test_the_end_of_the_calendar() -> None:
    """Where the calendar ends an interval is due no more."""
    assert read_trigger("every 1d").after(datetime(9999, 12, 31, 12, tzinfo=UTC)) is None
