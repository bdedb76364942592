"""Alerts as schedulers see to them: measured, told to real receivers, and told once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from receiver import Receiver, receiving
from schedules import reached, running
from structlog.testing import capture_logs

from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.errors import DatabaseUnavailableError
from absurd.resolve import resolve_database
from absurd.scheduler.alerter import Alerter
from absurd.scheduler.daemon import Scheduler
from absurd.testing import FakeClock

Connection = psycopg.Connection[tuple[Any, ...]]


def set_alert(connection: Connection, **rule: Any) -> None:
    rule = {"measure": "queue_depth", "threshold": 0, "queue": "default", "targets": ["night"]} | rule
    connection.execute("select set_alert('backlog', %s)", [json.dumps(rule)])


def spawn(connection: Connection) -> Any:
    return connection.execute("select task_id from spawn_task('default', 'bare.add', '{}', null)").fetchone()[0]  # type: ignore[index]


def targets(settings: Settings, receiver: Receiver, **given: Any) -> Settings:
    return replace(settings, alert_targets={"night": f"{receiver.url}/hooks/geheim"}, alert_interval=0.1, **given)


@asynccontextmanager
async def alerter(settings: Settings, holder: str = "h") -> AsyncIterator[Alerter]:
    async with AsyncDatabase(resolve_database(settings), schema=settings.schema) as database:
        yield Alerter(database, holder, settings)


async def test_people_are_told_once_by_whichever_scheduler(settings: Settings, connection: Connection) -> None:
    """Of two that run, and of others after them: one message that it fires, none while silent, one that it is over."""
    set_alert(connection)
    with receiving() as receiver:
        given = targets(settings, receiver)
        task = spawn(connection)
        async with running(Scheduler(given), Scheduler(given)):
            await reached(connection, "select count(*) = 1 from alert_notice where sent_at is not null")
        async with running(Scheduler(given)):
            await reached(connection, "select count(*) = 1 from leader where role = 'alerts'")
            await reached(
                connection, "select measured_at > (select max(sent_at) from alert_notice) + interval '0.2 s' from alert"
            )
            connection.execute("select cancel_task(%s)", [task])
            await reached(connection, "select count(*) = 2 from alert_notice where sent_at is not null")
            connection.execute("select silence_alert('backlog', 60)")
            spawn(connection)
            await reached(connection, "select count(*) = 3 from alert_event")
        assert connection.execute("select count(*) from leader where role = 'alerts'").fetchone() == (0,)

    assert ["firing", "recovered"] == [each["state"] for each in receiver.got]
    assert 2 == len({each["idempotency-key"] for each in receiver.headers})
    assert {"alert", "at", "id", "measure", "message", "severity", "state", "threshold", "value"} == set(
        receiver.got[0]
    )


async def test_what_does_not_arrive_is_told_and_tried_again(
    settings: Settings, connection: Connection, clock: FakeClock
) -> None:
    """With the same key, until it arrives; no row and no line of the log holds the address."""
    set_alert(connection, targets=["night", "nobody"])
    spawn(connection)
    with receiving() as receiver, capture_logs() as logs:
        receiver.answers = [503]
        async with alerter(targets(settings, receiver)) as made:
            assert 0.1 == await made.round()
            clock.advance(9)
            await made.round()
            assert 1 == len(receiver.got)
            clock.advance(1)
            await made.round()
            await made.round()

    assert 2 == len(receiver.got)
    assert receiver.headers[0] == receiver.headers[1]
    told = [(each["event"], each["target"], each["attempt"]) for each in logs if "target" in each]
    assert {("alert_sent", "night", 2), ("alert_not_sent", "night", 1), ("alert_not_sent", "nobody", 2)} <= set(told)
    (error,) = {each["error"] for each in logs if each.get("target") == "nobody"}
    assert "names no nobody" in error
    assert "geheim" not in str(logs)
    for table in ("alert", "alert_event", "alert_notice"):
        assert connection.execute(f"select count(*) from {table} t where t::text ~ 'geheim'").fetchone() == (0,)
    connection.execute("update alert_notice set attempt = 19 where target = 'nobody'")
    clock.advance(1000)
    with capture_logs() as logs:
        async with alerter(settings) as made:
            await made.round()
    assert ["alert_given_up"] == [each["event"] for each in logs if each.get("target") == "nobody"]


async def test_what_was_sent_is_noted_once_the_database_answers(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went away between the two: the message is not sent again."""
    set_alert(connection)
    spawn(connection)
    with receiving() as receiver:
        async with alerter(targets(settings, receiver)) as made:
            note = made._note
            calls = 0

            async def away() -> list[float]:
                nonlocal calls
                calls += 1
                if calls == 2:
                    raise DatabaseUnavailableError("it went away")
                return await note()

            monkeypatch.setattr(made, "_note", away)
            with pytest.raises(DatabaseUnavailableError):
                await made.round()
            assert connection.execute("select count(*) from alert_notice where sent_at is null").fetchone() == (1,)
            connection.execute("update alert_notice set due_at = due_at - interval '1 h'")
            await made.round()

    assert 1 == len(receiver.got)


async def test_disks_of_the_schedulers_machine_are_measured(settings: Settings, connection: Connection) -> None:
    """From the round after the one that tells the folder; one that is not there is not known."""
    set_alert(connection, measure="disk_free", threshold=1, folder="/", queue=None)
    async with alerter(settings) as made:
        assert 0.0 == await made.round()
        await made.round()
        (value,) = connection.execute("select value from alert").fetchone() or (None,)
        assert 0 < value <= 1
        set_alert(connection, measure="disk_free", threshold=1, folder="/not/there", queue=None)
        await made.round()
        assert (None, "firing") == connection.execute("select value, state from alert").fetchone()
