"""``absurd top``, driven by its keys: what is pressed takes effect in the database."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, RichLog, Static

from absurd import AbsurdClient, RunContext, executor, inspection
from absurd.cli import absurd
from absurd.cli.run import call
from absurd.cli.top_screen import Top
from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.testing import drain


@executor("top.break", runs_in="thread")
def break_(ctx: RunContext, params: dict[str, str]) -> None:
    """Write a line and fail."""
    ctx.log.warning("cannot see the sky")
    raise ValueError("clouds")


def screen(settings: Settings) -> Top:
    assert settings.database_url is not None
    return Top(AsyncDatabase(settings.database_url), every=0.2)


async def until(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        await pilot.pause(0.05)


def keys(app: Top, table: str) -> list[str | None]:
    return [each.value for each in app.query_one(f"#{table}", DataTable).rows]


def told(app: Top) -> str:
    return str(app.query_one("#told", Static).render())


async def test_pause_cancel_retry_and_drain_take_effect_in_the_database(settings: Settings) -> None:
    """Each from its key, on the row under the cursor; cancelling asks first, and what is refused is said."""
    async with AbsurdClient(settings=settings) as client:
        doomed = await client.spawn(break_, {}, queue="sky", max_attempts=1)
        await drain("sky", settings, executors=[break_])
        waiting = await client.spawn(break_, {}, queue="sky")
        assert settings.database_url is not None
        with psycopg.connect(settings.database_url, autocommit=True) as connection:
            sql = "select absurd.register_worker('w', 'h', 1, array['sky'], 1, '{}', '{}', 30)"
            worker = (connection.execute(sql).fetchone() or [0])[0]
        app = screen(settings)
        async with app.run_test(size=(140, 44)) as pilot:

            async def stand(task: UUID, state: str) -> None:
                while (await client.get_task(task)).state != state:
                    await asyncio.sleep(0.05)

            await pilot.press("f")
            await until(pilot, lambda: keys(app, "tasks") == [str(waiting)])
            await pilot.press("p")
            await until(pilot, lambda: "queue sky is paused" in told(app))
            assert [True] == [each["paused"] for each in await client.run(inspection.list_queues())]
            await pilot.press("p")
            await until(pilot, lambda: "queue sky goes on" in told(app))
            assert [False] == [each["paused"] for each in await client.run(inspection.list_queues())]

            await pilot.press("r")
            await until(pilot, lambda: "pending" in told(app))
            await pilot.press("c", "n")
            assert "pending" == (await client.get_task(waiting)).state
            await pilot.press("c", "y")
            async with asyncio.timeout(60):
                await stand(waiting, "cancelled")

            await pilot.press("f", "f", "f")
            await until(pilot, lambda: keys(app, "tasks") == [str(doomed)])
            await pilot.press("l")
            await until(pilot, lambda: any("cannot see the sky" in line.text for line in app.query_one(RichLog).lines))
            await pilot.press("r")
            async with asyncio.timeout(60):
                await stand(doomed, "pending")

            app.query_one("#workers", DataTable).move_cursor(row=keys(app, "workers").index(str(worker)))
            await pilot.press("d")
            await until(pilot, lambda: f"worker {worker} claims nothing more" in told(app))
            draining = {each["id"]: each["draining"] for each in await client.run(inspection.list_workers())}
            assert draining[worker]


def test_json_is_one_look_without_a_screen(
    database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be seen, for programs; and without the extra the command that installs it is told."""
    assert 0 == call(absurd, "absurd", ["--database-url", database_url, "top", "--json"])
    assert {"queues", "workers", "problems", "tasks"} <= json.loads(capsys.readouterr().out).keys()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert 2 == call(absurd, "absurd", ["--database-url", database_url, "top"])
    assert "absurd[tui]" in capsys.readouterr().err


async def test_it_shows_what_happens_and_keeps_its_place(settings: Settings) -> None:
    """New tasks come in above the one under the cursor, which stays; names cannot steer the terminal."""
    async with AbsurdClient(settings=settings) as client:
        first = await client.spawn("a.b", {}, queue="sky", tags=["[bold]\x1b[31mred"])
        app = screen(settings)
        async with app.run_test(size=(140, 44)) as pilot:
            await pilot.press("f")
            await until(pilot, lambda: keys(app, "tasks") == [str(first)])
            later = await client.spawn("a.b", {}, queue="sky")

            await until(pilot, lambda: keys(app, "tasks") == [str(later), str(first)])

            table = app.query_one("#tasks", DataTable)
            assert 1 == table.cursor_row
            assert "[bold] [31mred" == str(table.get_row(str(first))[-1])
            assert "no worker serves it" in str(table.border_subtitle)
