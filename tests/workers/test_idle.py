"""A worker and a scheduler that have nothing to do leave the database alone, and miss nothing for that."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from live import soon

from absurd import AbsurdClient, maintenance, notify
from absurd.bench.tap import Tap
from absurd.config import Settings
from absurd.scheduler import ticker
from absurd.scheduler.daemon import Scheduler
from absurd.workers import AbsurdWorker

HOUR = 3600.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Short intervals: what still happens at them would be seen at once."""
    return replace(
        settings,
        worker_poll_interval=0.05,
        worker_heartbeat_interval=0.1,
        worker_lease=30.0,
        imports=("demo_executors",),
    )


@asynccontextmanager
async def resting(settings: Settings) -> AsyncIterator[AbsurdWorker]:
    """A worker that has come to rest."""
    worker = AbsurdWorker(settings=settings)
    runner = asyncio.create_task(worker.run())
    try:
        await soon(lambda: worker._pump is not None and worker._rounds.resting)
        yield worker
    finally:
        await worker.stop(grace=5)
        await runner


async def growth(tap: Tap, statement: str, more: int) -> Counter[str]:
    """What is executed while `statement` is that many times."""
    before = tap.counts()
    await soon(lambda: (tap.counts() - before)[statement] >= more)
    return tap.counts() - before


async def test_an_idle_worker_beats_and_does_nothing_else(settings: Settings, tmp_path: Path) -> None:
    """Rounds, polls and probes of the listener cost no statement of their own: 12 a minute leave no room for them."""
    with Tap(settings.database_url or "", tmp_path / "tap") as tap:
        async with resting(replace(settings, database_url=tap.url)):
            await growth(tap, "beat", 2)
            made = await growth(tap, "beat", 15)

    assert made.total() - made["beat"] <= 2, made


async def test_an_idle_scheduler_looks_and_does_nothing_else(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for what is due, which keeps its lead and probes its listener; rounds are made when one is due."""
    monkeypatch.setattr(ticker, "LONGEST_LOOK", 0.2)
    with Tap(settings.database_url or "", tmp_path / "tap") as tap:
        scheduler = Scheduler(replace(settings, database_url=tap.url))
        runner = asyncio.create_task(scheduler.run())
        await growth(tap, "get_due_schedules", 8)
        made = await growth(tap, "get_due_schedules", 15)
        scheduler.stop()
        await runner

    assert made.total() - made["get_due_schedules"] <= 2, made


async def by_delay(client: AbsurdClient) -> Any:
    return await client.spawn("demo.add", {"a": 1, "b": 1}, delay=0.2)


async def by_edit(client: AbsurdClient) -> Any:
    task_id = await client.spawn("demo.add", {"a": 1, "b": 1}, delay=HOUR)
    await client.edit(task_id, delay=0.2)
    return task_id


@pytest.mark.parametrize("spawn", [by_delay, by_edit])
async def test_what_is_due_soon_wakes_those_who_rest(
    settings: Settings, client: AbsurdClient, monkeypatch: pytest.MonkeyPatch, spawn: Callable[..., Awaitable[Any]]
) -> None:
    """A delay that ends before the next round is heard of: nobody would look for an hour."""
    monkeypatch.setattr(maintenance, "LONGEST_REST", HOUR)
    async with resting(settings):
        done = await client.wait(await spawn(client), timeout=20)

    assert done.result == {"sum": 2}


async def test_what_is_committed_late_is_found_by_those_who_listen_since(
    settings: Settings, connection: psycopg.Connection[Any], client: AbsurdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spawn in somebody's own transaction found nobody to notify; the worker does not rest before that has ended."""
    monkeypatch.setattr(maintenance, "LONGEST_REST", HOUR)
    await client.spawn("demo.add", {"a": 0, "b": 0})  # who names a queue or an executor first locks the name
    with connection.transaction():
        row = connection.execute(
            """select task_id from spawn_task('default', 'demo.add', '{"a": 1, "b": 1}')"""
        ).fetchone()
        assert row is not None
        worker = AbsurdWorker(settings=settings)
        runner = asyncio.create_task(worker.run())
        await soon(lambda: worker._pump is not None and worker._pump.listening)
        await asyncio.sleep(1.0)
    try:
        done = await client.wait(row[0], timeout=20)
        await soon(lambda: worker._rounds.resting)
    finally:
        await worker.stop(grace=5)
        await runner

    assert done.result == {"sum": 2}


async def test_a_deadline_ends_what_waits_while_all_rest(settings: Settings, client: AbsurdClient) -> None:
    """A task that nobody serves is cancelled when its time to start is over, though no round would come before."""
    async with resting(settings):
        task_id = await client.spawn("demo.add", {"a": 1, "b": 1}, queue="unserved", start_within=0.2)
        async with asyncio.timeout(20):
            while not (state := (await client.get_task(task_id)).state).ended:
                await asyncio.sleep(0.02)

    assert state == "cancelled"


async def test_a_worker_that_is_lost_is_missed_by_those_who_rest(
    settings: Settings, connection: psycopg.Connection[Any], client: AbsurdClient
) -> None:
    """The next round comes when its lease ends."""
    async with resting(settings):
        row = connection.execute(
            "select absurd.register_worker('gone', 'elsewhere', 1, '{other}', 1, '{}', '{}', 1.0)"
        ).fetchone()
        assert row is not None
        async with asyncio.timeout(20):
            await client.spawn("demo.add", {"a": 1, "b": 1}, delay=0.1)  # a round that sees it
            while not any(each["id"] == row[0] and each["state"] == "lost" for each in await client.list_workers()):
                await asyncio.sleep(0.05)


async def test_a_worker_whose_notifications_stop_polls_at_once(
    settings: Settings, connection: psycopg.Connection[Any], client: AbsurdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe that a beat sends along does not arrive: it claims by polling, and its row says why."""
    monkeypatch.setattr(notify, "PROBE_TIMEOUT", 0.3)
    async with resting(settings) as worker:
        listener = worker._rounds._listener
        monkeypatch.setattr(listener, "_notified", lambda *_: None)  # of connections to come
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where query ilike 'listen%' and pid <> pg_backend_pid() and datname = current_database()"
        )
        await soon(lambda: not listener.listening)
        done = await client.wait(await client.spawn("demo.add", {"a": 1, "b": 1}), timeout=20)

        def told() -> bool:
            row = connection.execute("select absurd.get_status() -> 'problems'").fetchone()
            assert row is not None
            return any(each["code"] == "worker_polls" for each in row[0])

        await soon(told)

    assert done.result == {"sum": 2}
