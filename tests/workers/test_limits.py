"""Workers on limited queues: woken when a place frees, back when a rate lets the next start, taking what fits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import live
import psycopg
import pytest
import recount

from absurd import AbsurdClient, TaskSpec, executor
from absurd.config import Settings
from absurd.workers import AbsurdWorker
from absurd.workers.host.offers import memory_gib, offers
from absurd.workers.pump.calls import Answer, read_claims
from absurd.workers.pump.source import Source, choose

Connection = psycopg.Connection[Any]
overlaps: list[int] = []
at_work: set[Any] = set()


@executor("limits.work")
async def work(ctx: Any, params: dict[str, Any]) -> None:
    """Note how many run at this moment."""
    at_work.add(ctx.task_id)
    overlaps.append(len(at_work))
    await asyncio.sleep(0)
    at_work.remove(ctx.task_id)


@executor("limits.laned", lane="of-its-own")
async def laned(ctx: Any, params: dict[str, Any]) -> None:
    """Its tasks share a lane."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A poll so long that no test passes by it."""
    return replace(settings, worker_poll_interval=60.0)


async def soon(count: Callable[[], Awaitable[int]], wanted: int) -> None:
    """Wait until so many are counted."""
    deadline = time.monotonic() + 120
    while await count() != wanted:
        assert time.monotonic() < deadline, f"{await count()} and not {wanted}"
        await asyncio.sleep(0.01)


def working(settings: Settings, **options: Any) -> AbstractAsyncContextManager[AbsurdWorker]:
    """A worker beside the test, which has the executors above."""
    return live.working(settings, executors=[work, laned], **options)


async def test_idle_workers_are_woken_when_a_place_frees(settings: Settings, client: AbsurdClient) -> None:
    """Two workers on a queue of one: its tasks follow one another without a poll, and never overlap (B15, B18)."""
    await client.create_queue("default")
    await client.limit_queue("default", running=1)
    overlaps.clear()
    async with working(settings), working(settings):
        ids = await client.spawn_many([TaskSpec(work) for _ in range(40)])
        for each in ids:
            await client.wait(each, timeout=120)

    assert overlaps == [1] * 40


async def test_a_worker_comes_again_when_the_rate_says(
    settings: Settings, client: AbsurdClient, connection: Connection
) -> None:
    """With 20 starts a second and a poll of a minute, each 50 ms of the database's clock bring one more."""
    recount.freeze(connection)
    await client.create_queue("default")
    await client.limit_queue("default", rate="20/second")
    overlaps.clear()

    async def completed() -> int:
        return (await client.get_queue_stats("default")).completed

    async with working(settings):
        await client.spawn_many([TaskSpec(work) for _ in range(10)])
        await soon(completed, 2)  # a tenth of a second comes together
        for count in range(3, 11):
            assert len(overlaps) == count - 1
            connection.execute("update _frozen set now = now + interval '50 ms'")
            await soon(completed, count)

    assert len(overlaps) == 10


async def test_a_worker_takes_what_fits_it(settings: Settings, client: AbsurdClient) -> None:
    """A task that needs more than a worker offers is left to one that offers enough, and holds up nobody."""
    big, small = await client.spawn_many([TaskSpec(work, needs={"gpu": 1}), TaskSpec(work, needs={"cpu": 0.5})])
    async with working(settings) as modest:
        assert "gpu" not in modest.offers
        await client.wait(small, timeout=120)
        assert (await client.get_states([big]))[big] == "pending"
        async with working(settings, offers={"gpu": 2}) as strong:
            done = await client.wait(big, timeout=120)

    assert strong.offers["cpu"] == modest.offers["cpu"]
    assert done.runs[0].attempt == 1


async def test_the_lane_of_an_executor_is_its_tasks(client: AbsurdClient, connection: Connection) -> None:
    """A lane of the decorator goes to tasks whose spawn names none."""
    await client.spawn_many([TaskSpec(laned), TaskSpec(laned, lane="other")])

    assert connection.execute("select lane from ready order by seq").fetchall() == [("of-its-own",), ("other",)]


def test_a_source_rests_until_its_time() -> None:
    """A queue that a rate holds back is not looked at before its time, and is once that has come."""
    source, longer = Source("q", 1), Source("r", 1)
    source.rest(1.5)
    longer.rest(3600)

    assert choose([longer, source], source.due - 0.001) is None
    assert choose([longer, source], source.due) is source
    assert source.due < longer.due


def test_claims_say_whether_they_are_suspect() -> None:
    """A claim is suspect if its details say so; one without details is not."""
    from uuid import uuid4

    answer = Answer((), [uuid4(), uuid4()], [1, 2], [0, 0], [1, 2], [1, 1], ["{}", "{}"], [None, '{"suspect": true}'])

    assert [claim.suspect for claim in read_claims(answer, 1, "q", {1: "x"})[0]] == [False, True]


def test_offers_are_what_is_found_and_what_is_told(tmp_path: Path) -> None:
    """Cores and memory are found; what is told goes before; a container's limit is smaller than the machine."""
    assert offers()["cpu"] >= 1
    assert offers({"cpu": 0.5, "gpu": 1})["cpu"] == 0.5
    assert memory_gib(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  16777216 kB\nMemFree: 1 kB\n")
    assert memory_gib(tmp_path) == 16
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    assert memory_gib(tmp_path) == 16
    (group / "memory.max").write_text(f"{4 * 1024**3}\n")
    assert memory_gib(tmp_path) == 4
