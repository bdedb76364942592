"""A listener hears, says whether it does, and comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from absurd import notify
from absurd.database import AsyncDatabase
from absurd.notify import Listener


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, for 30 seconds at most."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_notifications_arrive(database_url: str, connection: psycopg.Connection[Any]) -> None:
    """Each subscriber hears its topic, or only its payload, until it leaves; at the start it is told to look."""
    everything: list[str] = []
    mine: list[str] = []
    async with AsyncDatabase(database_url) as database:
        listener = Listener(database, ["ready", "ended"])
        with listener.subscribe("ready", everything.append), listener.subscribe("ended", mine.append, only="b"):
            async with listener:
                assert listener.listening
                assert [""] == everything == mine
                for channel, payload in (("ended", "a"), ("ended", "b"), ("ready", "q1"), ("other", "x")):
                    connection.execute("select pg_notify(%s, %s)", [f"absurd_{channel}", payload])
                await until(lambda: "q1" in everything)

        assert (["", "q1"], ["", "b"]) == (everything, mine)


async def test_lost_connection_comes_back(database_url: str, connection: psycopg.Connection[Any]) -> None:
    """A listener whose connection was ended makes a new one, and tells that something may have been missed."""
    heard: list[str] = []
    async with AsyncDatabase(database_url) as database:
        listener = Listener(database, ["ready"])
        with listener.subscribe("ready", heard.append):
            async with listener:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
                await until(lambda: heard.count("") == 2)
                connection.execute("select pg_notify('absurd_ready', 'again')")
                await until(lambda: "again" in heard)


async def test_deaf_connection_is_found_out(
    database_url: str, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where notifications do not arrive, as behind a pooler, the listener says so and why, and keeps trying."""
    monkeypatch.setattr(notify, "PROBE_TIMEOUT", 0.05)
    async with AsyncDatabase(database_url) as database:
        listener = Listener(database, ["ready"])
        listener.probe_channel = "absurd_elsewhere"
        monkeypatch.setattr(listener, "_notified", lambda *_: None)
        async with listener:
            assert not listener.listening
            assert "pooler" in str(listener.reason)


async def test_listener_starts_without_a_database(database_url: str, server_url: str) -> None:
    """A database that is away when listening begins is no error: the listener is not listening, and says why."""
    async with AsyncDatabase(database_url) as database:
        away = AsyncDatabase("host=/nowhere dbname=x")
        listener = Listener(away, ["ready"])
        async with listener:
            assert not listener.listening
            assert "/nowhere" in str(listener.reason)
        assert database.is_open


@pytest.mark.parametrize("steps", range(6))
async def test_a_listener_stops_whatever_it_hears(database_url: str, steps: int) -> None:
    """Stopped at the very moment its probe arrives, it stops: a cancellation is not lost beside an answer."""
    async with AsyncDatabase(database_url) as database:
        listener = Listener(database, ["ready"])
        listener._notified = lambda *_: None  # type: ignore[method-assign]  # the probe arrives when this test says so
        listener.start()
        await until(lambda: listener._heard._waiters)
        listener._heard.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await listener.stop()
