"""Cron texts: what they mean, which are refused, and how many steps that takes."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given
from hypothesis import strategies as st

from absurd.errors import InvalidOptionError
from absurd.scheduler.cron import Cron, parse

NEW_YORK = ZoneInfo("America/New_York")
ZULU = ZoneInfo("UTC")


def facts(shared: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((shared / "data/cron" / f"{name}.json").read_text(encoding="utf-8"))
    assert found
    return found


def walk(text: str, start: str, steps: int, zone: ZoneInfo = ZULU) -> list[datetime]:
    """What comes next, in UTC."""
    at, found = datetime.fromisoformat(start), []
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    trigger = parse(text)
    for _ in range(steps):
        due = trigger.after(at, zone)
        assert due is not None
        assert due.tzinfo == UTC
        at = due
        found.append(due)
    return found


def shown(text: str, start: str, steps: int, name: str) -> list[str]:
    """What the clock of a zone shows then."""
    zone = ZoneInfo(name)
    return [f"{each.astimezone(zone):%d %H:%M%z}" for each in walk(text, start, steps, zone)]


def days(text: str, start: str, steps: int) -> list[str]:
    return [f"{each:%m-%d}" for each in walk(text, start, steps)]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """What croniter was asked to step to, as it is."""
    taken: list[datetime] = []

    class Counted(croniter):  # type: ignore[misc]
        def get_next(self, *args: Any, **options: Any) -> Any:
            found = super().get_next(*args, **options)
            taken.append(found)
            return found

    monkeypatch.setattr("croniter.croniter", Counted)
    return taken


def test_what_all_agree_on(shared: Path) -> None:
    """Each next run on which two libraries and an enumeration agree is ours."""
    for each in facts(shared, "next_utc_agreed"):
        expected = [datetime.fromisoformat(at) for at in each["next"]]

        assert walk(each["expr"], each["start"], len(expected), ZoneInfo(each["tz"])) == expected, each


def test_what_libraries_dispute_goes_by_vixies_cron(shared: Path) -> None:
    """Where libraries differ, days go by Vixie's rule: a field that begins with a star limits the other (B103)."""
    for each in facts(shared, "next_utc_disputed"):
        expected = [datetime.fromisoformat(at) for at in each["vixie_brute"]]

        assert walk(each["expr"], each["start"], len(expected)) == expected, each


def test_clock_changes_on_which_libraries_agree(shared: Path) -> None:
    """Across clock changes ours are the runs on which libraries agree; where not, a named time comes once (B101)."""
    for each in facts(shared, "next_dst_observed"):
        expected = [datetime.fromisoformat(at) for at in each["croniter" if each["agree"] else "cronsim"]]

        assert walk(each["expr"], each["start"], len(expected), ZoneInfo(each["tz"])) == expected, each


def test_invalid_texts_are_refused(shared: Path) -> None:
    """Every text that is none is refused, those that a library accepts as well (B97)."""
    for each in facts(shared, "invalid_expressions"):
        with pytest.raises(InvalidOptionError):
            parse(each["expr"])


def test_dates_that_never_come_are_refused_without_a_step(shared: Path, steps: list[datetime]) -> None:
    """A date that no year has is refused when it is read, without looking for it in any (B97)."""
    for each in facts(shared, "never_matching"):
        with pytest.raises(InvalidOptionError, match="never comes"):
            parse(each["expr"])

    assert steps == []


@pytest.mark.parametrize(
    "text", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 */2", "0 0 30,31 feb *", "0 0 31 4 */7", "5 0 0 31 4 *"]
)
def test_a_date_that_never_comes_is_told_with_its_days(text: str) -> None:
    """The refusal holds the text and the days that are too many."""
    with pytest.raises(InvalidOptionError, match=r"never comes: no such month has a day 3\d") as refused:
        parse(text)

    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("60 * * * *", "'60' is no minute of a cron text: it goes from 0 to 59"),
        ("0-99999999 * * * *", "'0-99999999' is no minute of a cron text: it goes from 0 to 59"),
        ("0 0-24 * * *", "'0-24' is no hour of a cron text: it goes from 0 to 23"),
        ("5-1 * * * *", "write 5-59,0-1"),
        ("* 22-2 * * *", "write 22-23,0-2"),
        ("0 0 * nov-feb *", "write nov-12,1-feb"),
        ("0 0 * * fri-mon", "write fri-6,0-mon"),
        ("*/0 * * * *", "a step is 1 or more"),
        ("0 0 L * *", "'L' is no day of month of a cron text: use numbers"),
        ("0 0 15W * *", "'15W' is no day of month"),
        ("0 0 * * fri#2", "'fri#2' is no day of week"),
        ("0 0 ? * *", "'?' is no day of month"),
        ("0 0 * jan-13 *", "'jan-13' is no month of a cron text: it goes from 1 to 12"),
        ("0 0 mon * *", "'mon' is no day of month"),
        ("0 0 * * 1-2-3", "'1-2-3' is no day of week"),
        ("* * * *", "it has minute, hour, day of month, month and day of week, or seconds before these"),
        ("* * * * * * *", "seconds before these"),
        ("@fortnightly", "'@fortnightly' is no cron text: use one of @yearly"),
        ("@reboot", "use one of @yearly"),
        ("* " * 600, "a cron text has 1000 characters at most, this one has 1200"),
    ],
)
def test_a_refusal_holds_the_part_and_the_way_out(text: str, told: str) -> None:
    """What is wrong with a text is told with the part of it, and what to write instead (B97)."""
    with pytest.raises(InvalidOptionError) as refused:
        parse(text)

    assert told in str(refused.value)


def test_what_a_refusal_tells_to_write_is_right() -> None:
    """A range over the end of a week is refused with the two that mean it, and these are accepted."""
    assert days("0 0 * * 5-6,0-1", "2027-01-01", 6) == ["01-02", "01-03", "01-04", "01-08", "01-09", "01-10"]
    assert days("0 0 * * fri-6,0-mon", "2027-01-01", 6) == ["01-02", "01-03", "01-04", "01-08", "01-09", "01-10"]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@Weekly", "0 0 * * sun"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * 7-7", "0 0 * * SUN"),
        ("0 0 * * 7/2", "0 0 * * 0"),
        ("0 0 * * Sun-Sun", "0 0 * * 0"),
        ("0 0 * * 0-7", "0 0 * * *"),
        ("0 0 * * Fri-Sun", "0 0 * * 0,5,6"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0 0 * * 1/2", "0 0 * * 1,3,5"),
        ("0 0 * * */2", "0 0 * * 0,2,4,6"),
        ("0 0 * JAN-mar *", "0 0 * 1,2,3 *"),
        ("0 0 * Nov/1 *", "0 0 * 11,12 *"),
        ("59 23-23 * * *", "59 23 * * *"),
        ("0-59 0 * * *", "*/1 0 * * *"),
        ("5/15 * * * *", "5,20,35,50 * * * *"),
        ("10-40/10 * * * *", "10,20,30,40 * * * *"),
        ("10-20/99999 * * * *", "10 * * * *"),
        ("1,1,01,001 * * * *", "1 * * * *"),
        ("  0\t0  1 * *\n", "0 0 1 * *"),
        ("0 0 30 2 0-6", "0 0 * 2 *"),
        ("0 0 1-31 * mon", "0 0 * * 0-6"),
    ],
)
def test_texts_that_mean_the_same(text: str, same: str) -> None:
    """Names in any case, 7 for Sunday, steps from a range's low end, ranges of one, and nicknames (B104)."""
    assert walk(text, "2027-01-28T22:58:30", 40) == walk(same, "2027-01-28T22:58:30", 40)


def test_days_and_weekdays() -> None:
    """Where both are limited either will do; where one begins with a star both must match (B103)."""
    assert days("0 0 13 * fri", "2027-01-12T12:00", 6) == ["01-13", "01-15", "01-22", "01-29", "02-05", "02-12"]
    assert days("0 0 */2 * sun", "2027-01-01T12:00", 4) == ["01-03", "01-17", "01-31", "02-07"]
    assert days("0 0 13 * */5", "2027-01-12T12:00", 3) == ["06-13", "08-13", "02-13"]


def test_seconds_stand_in_front() -> None:
    """A sixth field in front holds the seconds; without it they are nought."""
    assert [f"{each:%H:%M:%S}" for each in walk("*/25 59 * * * *", "2027-01-01T00:59:20", 4)] == [
        "00:59:25",
        "00:59:50",
        "01:59:00",
        "01:59:25",
    ]


def test_leap_days_and_their_weekdays() -> None:
    """The 29th of February comes, after eight years about 2100, and on a Sunday after forty."""
    assert [each.year for each in walk("0 0 29 2 *", "2090-01-01", 4)] == [2092, 2096, 2104, 2108]
    assert [each.year for each in walk("0 0 29 2 */7", "2060-01-01", 3)] == [2060, 2088, 2128]


def test_instants_with_parts_of_a_second() -> None:
    """What is due is a whole second, and later than an instant just before it or on it."""
    assert walk("* * * * * *", "2027-01-01T00:00:00.000001", 1)[0] == datetime(2027, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert walk("* * * * * *", "2027-01-01T00:00:00.999999", 1)[0] == datetime(2027, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert walk("* * * * *", "2026-11-01T05:59:59.999999", 1, NEW_YORK)[0] == datetime(2026, 11, 1, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "start", "zone"),
    [
        ("* * * * * *", "2011-12-30T09:59:59", "Pacific/Apia"),
        ("* 0-59 0-23 * * *", "2011-12-30T09:59:59", "Pacific/Apia"),
        ("* 0-59 1 * * *", "2026-11-01T06:00:00", "America/New_York"),
        ("59 59 1-2 * * *", "2026-11-01T06:00:00", "America/New_York"),
        ("0 0 * * *", "2018-11-03T12:00:00", "America/Sao_Paulo"),
        ("*/30 2 * * *", "2027-03-14T06:00:00", "America/New_York"),
    ],
)
def test_a_clock_change_takes_few_steps(text: str, start: str, zone: str, steps: list[datetime]) -> None:
    """What a clock skips or repeats, a day of seconds even, is not gone through one by one (B102)."""
    walk(text, start, 1, ZoneInfo(zone))

    assert len(steps) <= 4


def test_a_midnight_that_does_not_exist() -> None:
    """Daily at midnight is due when the clock has jumped over it, and at midnight on the days about it (B102)."""
    assert shown("@daily", "2018-11-03T01:00:00+00:00", 3, "America/Sao_Paulo") == [
        "03 00:00-0300",
        "04 01:00-0200",
        "05 00:00-0200",
    ]


def test_a_day_that_is_left_out() -> None:
    """Noon of a day that a country skipped is due when it skipped it; by the wall clock there was none (B102)."""
    jump = ["29 12:00-1000", "31 00:00+1400", "31 12:00+1400"]
    assert shown("30 11 * * *", "2011-12-29T23:00:00+00:00", 2, "Pacific/Apia") == ["31 00:00+1400", "31 11:30+1400"]
    assert shown("0 12 * * *", "2011-12-29T12:00:00+00:00", 3, "Pacific/Apia") == jump
    assert shown("0 */12 * * *", "2011-12-29T12:00:00+00:00", 3, "Pacific/Apia") == jump
    assert shown("30 */12 * * *", "2011-12-29T23:00:00+00:00", 1, "Pacific/Apia") == ["31 00:30+1400"]


def test_hours_that_are_skipped_and_repeated() -> None:
    """A named time that is skipped is due at the jump, a repeated one once; by the wall, as it shows (B101)."""
    assert shown("30 2 * * *", "2027-03-13T12:00", 2, "America/New_York") == ["14 03:00-0400", "15 02:30-0400"]
    assert shown("30 1 * * *", "2026-10-31T12:00", 2, "America/New_York") == ["01 01:30-0400", "02 01:30-0500"]
    assert shown("30 */2 * * *", "2027-03-14T05:00", 2, "America/New_York") == ["14 00:30-0500", "14 04:30-0400"]
    assert shown("30 * * * *", "2026-11-01T05:00", 2, "America/New_York") == ["01 01:30-0400", "01 01:30-0500"]
    assert shown("*/20 1 * * *", "2026-11-01T05:30", 4, "America/New_York") == [
        "01 01:40-0400",
        "01 01:00-0500",
        "01 01:20-0500",
        "01 01:40-0500",
    ]
    assert shown("0 2 * * *", "2026-04-04T00:00", 2, "Australia/Lord_Howe") == ["05 02:00+1030", "06 02:00+1030"]
    assert shown("15 2 * * *", "2026-10-03T00:00", 2, "Australia/Lord_Howe") == ["04 02:30+1100", "05 02:15+1100"]


@given(st.text() | st.text(alphabet="0123456789*/-,@ junmotesfr?LW#\t"))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever is written, it is refused as an option, or a cron text that comes: nothing else escapes."""
    try:
        found = parse(text)
    except InvalidOptionError:
        return
    assert isinstance(found, Cron)
    assert found.after(datetime(2027, 1, 1, tzinfo=UTC), NEW_YORK) is not None


def test_the_end_of_the_calendar() -> None:
    """Where the calendar ends nothing is due any more, and nothing breaks."""
    assert parse("0 0 1 1 *").after(datetime(9999, 6, 1, tzinfo=UTC), ZULU) is None
    assert parse("* * * * *").after(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), NEW_YORK) is None
    source = random.Random(1)
    for _ in range(50):
        at = datetime.fromtimestamp(source.randrange(253402300799 - 3 * 86400, 253402300799), UTC)
        for zone in (NEW_YORK, ZoneInfo("Pacific/Kiritimati")):
            due = parse(source.choice(["0 0 29 2 *", "* * * * *", "30 1 * * *"])).after(at, zone)
            assert due is None or due > at
