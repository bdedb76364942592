"""What a scheduler does when firing goes wrong, or another that should have fired does not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from schedules import START, demo_schedule, fired, reached, running

from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.resolve import resolve_database
from absurd.scheduler import ticker
from absurd.scheduler.daemon import Scheduler
from absurd.scheduler.ticker import STANDBY, Ticker
from absurd.testing import FakeClock

Connection = psycopg.Connection[tuple[Any, ...]]


async def test_a_schedule_that_the_database_refuses_stops_no_other(
    settings: Settings, connection: Connection, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever error comes of firing one, at its head or among them: the others fire, again and again (B100)."""
    monkeypatch.setattr(ticker, "LONGEST_LOOK", 1.5)
    for number in range(10):
        demo_schedule(connection, f"s{number}", "*/30 * * * *")
    connection.execute(
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'refused by a trigger of the test'; end $$"
    )
    connection.execute(
        "create trigger refuse before update of settled_at on schedule for each row"
        " when (new.name = 's0' and new.settled_at > old.settled_at) execute function refuse()"
    )
    async with running(Scheduler(settings)):
        await reached(connection, "select bool_and(next_due is not null) from schedule")
        for hour in (1, 2):
            clock.set(START + timedelta(minutes=30 * hour))
            await reached(connection, f"select count(*) = {9 * hour} from tick where task_id is not null")
        connection.execute("drop function refuse() cascade")
        await reached(connection, "select settled_at > created_at from schedule where name = 's0'")

    assert len(fired(connection, "s9")) == 2


async def test_who_stands_by_looks_again_for_what_nobody_fired(
    settings: Settings, connection: Connection, clock: FakeClock
) -> None:
    """What is due is left to the leader for a second, not for as long as nothing else is due."""
    demo_schedule(connection, "s", "0 * * * *")
    async with AsyncDatabase(resolve_database(settings), schema=settings.schema) as database:
        standby = Ticker(database, "standby")
        await standby.round()
        connection.execute("update leader set holder = 'vanished', until = %s", [START + timedelta(minutes=30.4)])
        clock.set(START + timedelta(minutes=30, seconds=0.5))
        assert 0 < await standby.round() <= STANDBY
        assert fired(connection, "s") == []
        clock.set(START + timedelta(minutes=30, seconds=1.5))
        await standby.round()

    assert fired(connection, "s") == [START + timedelta(minutes=30)]
    assert [1.5, 1] == [each.value for each in standby.lateness.samples() if each.suffix in ("_sum", "_count")]
