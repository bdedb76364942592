"""The answer to a call is lost after it was committed: whoever made it asks again, and nothing counts twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import recount
from faults import journal_executors  # noqa: F401  registers them
from faults.proxy import Proxy
from live import working

from absurd import AbsurdClient, SyncAbsurdClient
from absurd.config import Settings
from absurd.model import Task


@pytest.fixture
def proxy(database_url: str, tmp_path: Path) -> Iterator[Proxy]:
    made = Proxy(database_url, tmp_path / "proxy")
    yield made
    made.close()


@pytest.fixture
def through(settings: Settings, proxy: Proxy) -> Settings:
    """Settings for the way through the proxy; unprepared, so that each call shows its text."""
    return replace(settings, database_url=proxy.url, prepared_statements=False)


async def test_a_spawn_whose_answer_is_lost_is_one_task(
    through: Settings, proxy: Proxy, connection: psycopg.Connection[Any]
) -> None:
    """Made again by the client itself, a spawn is the same spawn: one task, and its id comes back (B116)."""
    async with AbsurdClient(settings=through) as client:
        proxy.lose_answer("spawn_plain")
        task_id = await client.spawn("journal.add", {"a": 1, "b": 1})

    assert proxy.lost_answers == 1
    assert connection.execute("select array_agg(id) from task").fetchone() == ([task_id],)
    assert recount.faults(connection) == []


def test_a_plain_programs_spawn_whose_answer_is_lost_is_one_task(
    through: Settings, proxy: Proxy, connection: psycopg.Connection[Any]
) -> None:
    """As above, on psycopg."""
    with SyncAbsurdClient(settings=through) as client:
        proxy.lose_answer("spawn_tasks")
        task_id = client.spawn("journal.add", {"a": 1, "b": 1}, key="k")

    assert proxy.lost_answers == 1
    assert connection.execute("select array_agg(id) from task").fetchone() == ([task_id],)


@pytest.mark.parametrize(
    ("call", "nth", "name", "runs"),
    [
        ("claim_runs", 1, "journal.add", ["completed"]),
        ("step", 1, "journal.add", ["completed"]),
        ("complete_runs", 1, "journal.write", ["completed"]),
        ("fail_runs", 1, "journal.fail", ["failed", "completed"]),
        ("suspend_runs", 1, "journal.steps", ["suspended", "suspended", "completed"]),
        ("set_checkpoint", 1, "journal.steps", ["suspended", "suspended", "completed"]),
    ],
)
async def test_a_report_whose_answer_is_lost_counts_once(
    settings: Settings, through: Settings, proxy: Proxy, connection: psycopg.Connection[Any], tmp_path: Path,
    call: str, nth: int, name: str, runs: list[str],
) -> None:  # fmt: skip
    """Claim, completion, failure and suspension reported again change nothing more: each run stands there once."""
    params = {"a": 1, "b": 1, "path": str(tmp_path / "file")}
    async with AbsurdClient(settings=settings) as client:
        await client.emit_event("dawn")
        task_id = await client.spawn(name, params)
        proxy.lose_answer(f".{call}(", nth)
        async with working(through):
            done: Task = await client.wait(task_id, timeout=120)

    assert proxy.lost_answers == 1
    assert [run.state for run in done.runs] == runs
    assert recount.faults(connection) == []
