"""The worker's own connection: what is repeated, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from absurd.call import Call, nothing
from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.database_sync import grant_role
from absurd.errors import AuthenticationError
from absurd.workers.link import Link


@pytest.fixture
async def link(settings: Settings) -> AsyncIterator[Link]:
    made = Link(AsyncDatabase(settings.database_url or ""), lambda: True)
    yield made
    await made.close()


async def test_a_statement_that_was_sacrificed_is_made_again(settings: Settings, link: Link) -> None:
    """Cancelled by an administrator, a time-out or as a deadlock's victim, a call is repeated and answered."""
    sleep = Call("select pg_sleep(case when exists (select from canary) then 0 else 60 end)", (), nothing)
    async with await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True) as other:
        await other.execute("create table canary ()")
        running = asyncio.create_task(link.run(sleep))
        query = "select pid from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'"
        async with asyncio.timeout(30):
            while (row := await (await other.execute(query)).fetchone()) is None:
                await asyncio.sleep(0.01)
            await other.execute("insert into canary default values")
            await other.execute("select pg_cancel_backend(%s)", row)
            await running


async def test_a_missing_privilege_is_said_and_not_waited_out(settings: Settings) -> None:
    """A role that may not do the worker's side gets the refusal at once."""
    url = settings.database_url or ""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop role if exists only_reader")
        connection.execute("create role only_reader login")
    grant_role(url, "only_reader", "reader")
    link = Link(AsyncDatabase(url.replace("absurd@", "only_reader@")), lambda: True)
    try:
        async with asyncio.timeout(30):
            with pytest.raises(AuthenticationError):
                await link.run(Call("select {schema}.maintain()", (), nothing))
    finally:
        await link.close()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("drop owned by only_reader")
            connection.execute("drop role only_reader")
