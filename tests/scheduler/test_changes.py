"""Schedules that are changed while schedulers run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from schedules import demo_schedule, fired, reached, running

from absurd import SyncAbsurdClient
from absurd.config import Settings
from absurd.scheduler.daemon import Scheduler
from absurd.testing import FakeClock

Connection = psycopg.Connection[tuple[Any, ...]]

START = datetime(2026, 3, 2, 11, 30, tzinfo=UTC)


@pytest.fixture
def clock(settings: Settings, connection: Connection) -> Iterator[FakeClock]:
    """The database's clock, standing at `START`, and no schedule."""
    connection.execute("delete from schedule")
    with FakeClock(settings) as made:
        made.freeze(START)
        yield made


async def test_a_changed_interval_counts_from_its_making_and_is_not_late(
    settings: Settings, connection: Connection, clock: FakeClock
) -> None:
    """Changed by a client between two times due, it fires at the next of those it counts, and no later."""
    demo_schedule(connection, "s", "every 1h")
    connection.execute("insert into executor (name, registered_at) values ('demo.add', now())")
    async with running(Scheduler(settings)):
        await reached(connection, "select next_due is not null from schedule")
        clock.set(START + timedelta(minutes=30))
        with SyncAbsurdClient(settings=settings) as client:
            assert client.set_schedule("s", "every 2h", "demo.add") == "changed"
        await reached(connection, f"select next_due = '{START + timedelta(hours=2)}' from schedule")
        clock.set(START + timedelta(hours=2))
        await reached(connection, "select count(*) = 1 from tick")

    assert fired(connection, "s") == [START + timedelta(hours=2)]


def test_status_tells_that_nobody_has_seen_a_schedule(connection: Connection, clock: FakeClock) -> None:
    """One that no scheduler has reckoned for a minute; one whose trigger is at fault has that told instead."""
    demo_schedule(connection, "s", "every 1h")
    clock.set(START + timedelta(minutes=2))
    codes = "select p ->> 'code', p ->> 'message' from jsonb_array_elements(get_status() -> 'problems') p"

    told = dict(connection.execute(codes).fetchall())
    assert told["schedules_overdue"].startswith("schedule s has waited since 2026-03-02 11:30:00")
    connection.execute("select set_next_due(id, version, null, 'at fault') from schedule")
    told = dict(connection.execute(codes).fetchall())
    assert "schedules_overdue" not in told
    assert told["schedule_failed"].endswith("at fault")
