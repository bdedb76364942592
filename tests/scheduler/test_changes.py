"""Schedules that are changed while schedulers run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from schedules import START, demo_schedule, fired, reached, running

from absurd import SyncAbsurdClient
from absurd.config import Settings
from absurd.scheduler.daemon import Scheduler
from absurd.testing import FakeClock

Connection = psycopg.Connection[tuple[Any, ...]]


async def test_a_changed_interval_counts_from_its_making_and_is_not_late(
    settings: Settings, connection: Connection, clock: FakeClock
) -> None:
    """Changed by a client between two times due, it fires at the next of those it counts, and no later."""
    demo_schedule(connection, "s", "every 1h")
    connection.execute("insert into executor (name, registered_at) values ('bare.add', now())")
    async with running(Scheduler(settings)):
        await reached(connection, "select next_due is not null from schedule")
        clock.set(START + timedelta(minutes=30))
        with SyncAbsurdClient(settings=settings) as client:
            assert client.set_schedule("s", "every 2h", "bare.add") == "changed"
        await reached(connection, f"select next_due = '{START + timedelta(hours=2)}' from schedule")
        clock.set(START + timedelta(hours=2))
        await reached(connection, "select count(*) = 1 from tick")

    assert fired(connection, "s") == [START + timedelta(hours=2)]


def test_status_tells_that_nobody_has_seen_a_schedule(connection: Connection, clock: FakeClock) -> None:
    """One that no scheduler has reckoned for a minute; one whose trigger is at fault has that told instead."""
    demo_schedule(connection, "s", "every 1h")
    clock.set(START + timedelta(minutes=2))
    codes = "select p ->> 'code', p ->> 'message' from jsonb_array_elements(get_status() -> 'problems') p"

    told: dict[str, str] = dict(connection.execute(codes).fetchall())
    assert told["schedules_overdue"].startswith("schedule s has waited since 2026-03-02 11:30:00")
    connection.execute("select set_next_due(id, version, null, 'at fault') from schedule")
    told = dict(connection.execute(codes).fetchall())
    assert "schedules_overdue" not in told
    assert told["schedule_failed"].endswith("at fault")


@pytest.mark.parametrize(
    ("change", "due"),
    [
        ({"params": {"a": 2}}, [30]),
        ({"misfire": "all"}, [30]),
        ({"ends_at": "2026-03-03T00:00:00Z"}, [30]),
        ({"ends_at": "2026-03-02T11:59:00Z"}, []),
        ({"trigger": "0,10 * * * *"}, [40]),
    ],
)
async def test_a_change_when_something_is_due(
    settings: Settings, connection: Connection, clock: FakeClock, change: dict[str, Any], due: list[int]
) -> None:
    """What is due and not fired yet is not lost by a change, but for one of the trigger or an earlier end."""
    demo_schedule(connection, "s", "0 * * * *")
    connection.execute("select set_next_due(id, 1, %s) from schedule", [START + timedelta(minutes=30)])
    clock.set(START + timedelta(minutes=30, seconds=5))
    demo_schedule(connection, "s", **({"trigger": "0 * * * *"} | change))
    clock.set(START + timedelta(minutes=40))
    async with running(Scheduler(settings)):
        await reached(connection, "select next_due > clock_time() from schedule")

    assert fired(connection, "s") == [START + timedelta(minutes=each) for each in due]


async def test_an_end_put_off_when_it_has_passed_owes_nothing(
    settings: Settings, connection: Connection, clock: FakeClock
) -> None:
    """What was due between the old end and the change is not made up for."""
    demo_schedule(connection, "s", "0 * * * *", ends_at="2026-03-02T11:45:00Z")
    clock.set(START + timedelta(minutes=31))
    demo_schedule(connection, "s", "0 * * * *", ends_at="2026-03-03T00:00:00Z")
    async with running(Scheduler(settings)):
        await reached(connection, "select next_due > clock_time() from schedule")

    assert fired(connection, "s") == []
