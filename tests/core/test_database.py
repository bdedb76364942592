"""Connections of the asyncio database: one is kept at hand, none is kept too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from absurd import database as module
from absurd.call import Call, one_value
from absurd.database import AsyncDatabase

Connection = psycopg.Connection[Any]


async def pid(database: AsyncDatabase) -> int:
    return int(await database.run(Call("select pg_backend_pid() as pid", (), one_value("pid"))))


async def test_calls_one_after_the_other_share_a_connection(database_url: str, connection: Connection) -> None:
    """Calls at once have others, as many as the pool may hold, and all can be closed."""
    async with AsyncDatabase(database_url, max_connections=3) as database:
        pids = {await pid(database) for _ in range(5)}
        together = await asyncio.gather(*(pid(database) for _ in range(20)))

        assert len(pids) == 1
        assert pids <= set(together)
        assert len(set(together)) <= 3
    others = "select count(*) from pg_stat_activity where datname = current_database() and pid = any(%s)"
    assert connection.execute(others, [together]).fetchone() == (0,)


async def test_one_that_was_idle_for_long_is_not_trusted(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been dropped on the way without a sign; a new one is made."""
    async with AsyncDatabase(database_url) as database:
        first = await pid(database)
        monkeypatch.setattr(module, "SPARE_SECONDS", 0.0)

        assert await pid(database) != first


async def test_one_that_was_ended_meanwhile_is_replaced(database_url: str, connection: Connection) -> None:
    """The next call finds another, though the server has closed the one at hand."""
    async with AsyncDatabase(database_url) as database:
        first = await pid(database)
        connection.execute("select pg_terminate_backend(%s)", [first])

        assert await pid(database) != first


async def test_one_whose_call_was_cancelled_is_free_again(database_url: str) -> None:
    """What was cancelled is over on the server too before its connection is used for something else."""
    async with AsyncDatabase(database_url, max_connections=1) as database:
        first = await pid(database)
        sleeping = asyncio.ensure_future(database.fetch("select pg_sleep(60)::text as slept"))
        await asyncio.sleep(0)
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping

        async with asyncio.timeout(30):
            assert await pid(database) > 0
        assert first > 0


async def test_one_at_hand_is_kept_from_nobody_who_waits(database_url: str) -> None:
    """Calls at once that share one connection take turns: none waits while it lies idle."""
    async with AsyncDatabase(database_url, max_connections=1) as database, asyncio.timeout(30):
        together = await asyncio.gather(*(pid(database) for _ in range(5)))

        assert len(set(together)) == 1


async def test_one_whose_end_was_heard_of_is_replaced(database_url: str, connection: Connection) -> None:
    """What cannot be made twice is made on another connection, for nothing was sent on the first."""
    async with AsyncDatabase(database_url) as database:
        first = await pid(database)
        connection.execute("select pg_terminate_backend(%s, 30000)", [first])
        await (await database.connect()).close()  # meanwhile the loop hears of it

        async with database.transaction() as session:
            assert (await session.fetch("select pg_backend_pid() as pid"))[0]["pid"] != first


async def test_one_that_has_ended_within_its_session_is_not_kept(database_url: str) -> None:
    """A session may end well though its connection was lost after the last call."""
    async with AsyncDatabase(database_url) as database:
        async with database.session() as session:
            session.connection.terminate()

        assert await database.fetch("select 1 as one")


async def test_a_close_that_is_cancelled_leaves_nothing_open(
    database_url: str, connection: Connection, until: Callable[[Callable[[], object]], None]
) -> None:
    """Even if it was only about to give the one at hand back."""
    database = AsyncDatabase(database_url)
    await database.open()
    first = await pid(database)
    closing = asyncio.ensure_future(database.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing

    until(lambda: connection.execute("select 1 from pg_stat_activity where pid = %s", [first]).fetchone() is None)
