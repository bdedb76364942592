"""Workers that pack: slots and resources together, shared tokens over processes, what a machine offers."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import live
import psycopg
import pytest

from absurd import AbsurdClient, TaskSpec, executor
from absurd.config import Settings, load_settings
from absurd.errors import ConfigurationError, InvalidOptionError
from absurd.executor import registry
from absurd.workers import AbsurdWorker
from absurd.workers.host import offers as found_here
from absurd.workers.host.offers import GIB, gpus, offers, scratch_gib

Connection = psycopg.Connection[Any]
Until = Callable[..., None]
WORKER = """
import asyncio, sys
from absurd import RetryLater, executor
from absurd.config import load_settings
from absurd.workers import AbsurdWorker

@executor("resources.hold", runs_in="loop")
async def hold(ctx, params):
    with open(params["log"], "a") as log:  # one write each, appended whole
        log.write(f"+{ctx.task_id}\\n")
    await asyncio.sleep(params.get("seconds", 0))
    with open(params["log"], "a") as log:
        log.write(f"-{ctx.task_id}\\n")
    if params.get("again") and ctx.attempt == 1:  # reported apart from a claim: others are told before
        raise RetryLater(0)

settings = load_settings(worker_poll_interval=60.0, worker_lease=2.0, worker_heartbeat_interval=0.5)
asyncio.run(AbsurdWorker(settings=settings, executors=[hold], concurrency=4, prefetch=None).run())
"""

at_work: dict[Any, dict[str, float]] = {}
most: dict[str, float] = {}
gate = asyncio.Event()


@executor("resources.work", needs={"cpu": 1, "memory_gib": 0.25})
async def work(ctx: Any, params: dict[str, Any]) -> None:
    """Note what all that run at this moment need together."""
    at_work[ctx.task_id] = params
    for name in {name for each in at_work.values() for name in each}:
        most[name] = max(most.get(name, 0), sum(each.get(name, 0) for each in at_work.values()))
    await asyncio.sleep(0.002)
    del at_work[ctx.task_id]


@executor("resources.wait")
async def wait(ctx: Any, params: dict[str, Any]) -> None:
    """Until the gate is open."""
    await gate.wait()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A poll so long that no test passes by it."""
    at_work.clear()
    most.clear()
    gate.clear()
    return replace(settings, worker_poll_interval=60.0)


def spec(priority: int = 0, **needs: float) -> TaskSpec:
    return TaskSpec(work, needs, needs=needs, priority=priority)


async def test_a_worker_packs_without_a_poll(settings: Settings, client: AbsurdClient) -> None:
    """Never more than it has, and all of it while there is work: what ends lets the next in, in whatever queue."""
    specs = [spec(cpu=cpu, memory_gib=memory) for _ in range(15) for cpu, memory in ((1, 3), (2, 1), (4, 1), (3, 2))]
    for n, each in enumerate(specs):
        each.queue = ("default", "other")[n % 2]
    async with live.working(
        settings, executors=[work], queues=["default", "other"], concurrency=8, offers={"cpu": 4, "memory_gib": 6}
    ):
        for task in await client.spawn_many(specs):
            await client.wait(task, timeout=120)

    assert most["cpu"] == 4
    assert 3 <= most["memory_gib"] <= 6


async def test_a_large_task_starts_behind_a_stream_of_small_ones(settings: Settings, client: AbsurdClient) -> None:
    """Small tasks of a higher priority come without end; the large one starts after its reservation time."""
    deadline = time.monotonic() + 120
    settings = replace(settings, worker_reserve_after=0.3)
    large = await client.spawn(work, {"cpu": 2}, needs={"cpu": 2}, priority=-1)
    async with live.working(settings, executors=[work], concurrency=4, offers={"cpu": 2}):
        while (await client.get_states([large]))[large] != "completed":
            if (await client.get_queue_stats("default")).pending < 50:
                await client.spawn_many([spec(cpu=1) for _ in range(50)])
            assert most.get("cpu", 0) <= 2
            assert time.monotonic() < deadline, "it is starved"
        assert (await client.get_queue_stats("default")).pending > 0, "there was always something else to do"


async def test_tasks_that_need_nothing_do_not_keep_one_out(settings: Settings, client: AbsurdClient) -> None:
    """Short tasks are claimed ahead by the hundred; one that needs something is not kept waiting behind them all."""
    plain = await client.spawn_many([TaskSpec(work) for _ in range(3000)])
    needy = await client.spawn(work, {"cpu": 1}, needs={"cpu": 1}, priority=1)
    async with live.working(settings, executors=[work], concurrency=2, offers={"cpu": 1}):
        await client.wait(needy, timeout=120)
        assert (await client.get_queue_stats("default")).pending > 1000
        await client.cancel(plain[-1])


async def test_a_given_back_token_wakes_idle_workers(settings: Settings, client: AbsurdClient) -> None:
    """A chain of 40 tasks with one token, on two workers and two queues, needs no poll; nothing overlaps."""
    await client.set_resource("licence", 1)
    specs = [replace(spec(licence=1), queue=("default", "other")[n % 2]) for n in range(40)]
    async with (
        live.working(settings, executors=[work], queues=["default"]),
        live.working(settings, executors=[work], queues=["other"]),
    ):
        for task in await client.spawn_many(specs):
            await client.wait(task, timeout=120)

    assert most["licence"] == 1
    (listed,) = await client.list_resources()
    assert (listed["name"], listed["total"], listed["held"]) == ("licence", 1, 0)
    assert await client.remove_resource("licence")
    assert not await client.remove_resource("licence")


async def test_more_of_a_resource_starts_what_waits_for_it(settings: Settings, client: AbsurdClient) -> None:
    """A new total is told to idle workers as what is given back is."""
    await client.set_resource("licence", 0)
    task = await client.spawn(work, {}, needs={"licence": 1})
    async with live.working(settings, executors=[work]):
        done = await client.spawn(work, {})
        await client.wait(done, timeout=120)
        assert "all workers share 0" in await client.task_why(task)
        await client.set_resource("licence", 1)
        await client.wait(task, timeout=120)


async def test_workers_tell_what_they_hold(settings: Settings, client: AbsurdClient) -> None:
    """Beside what they offer; and a task that waits names the worker, and what is free there."""
    async with live.working(settings, executors=[wait], offers={"cpu": 4}):
        task = await client.spawn(wait, {}, needs={"cpu": 3})
        while (await client.get_states([task]))[task] != "running":
            await asyncio.sleep(0.01)
        (listed,) = await client.list_workers()
        assert listed["offers"]["cpu"] == 4
        assert listed["held"] == {"cpu": 3}
        other = await client.spawn(wait, {}, needs={"cpu": 2})
        assert (await client.task_why(other)).startswith(
            f"It waits for 2 cpu (1 of 4 free on worker {listed['name']})."
        )
        gate.set()
        await client.wait(other, timeout=120)


# Executors ---------------------------------------------------------------------------------------


async def test_the_needs_of_an_executor_are_its_tasks(client: AbsurdClient, connection: Connection) -> None:
    """What a spawn does not name is as the executor says."""
    await client.spawn_many([TaskSpec(work), TaskSpec(work, needs={"memory_gib": 8, "gpu": 1}), TaskSpec("unknown")])

    assert [row[0] for row in connection.execute("select needs from ready order by seq")] == [
        {"cpu": 1, "memory_gib": 0.25}, {"cpu": 1, "memory_gib": 8, "gpu": 1}, None,
    ]  # fmt: skip


@pytest.mark.parametrize("needs", [{"cpu": -1}, {"cpu": "2"}, {"cpu": True}, {"cpu": float("nan")}, {"": 1}])
async def test_wrong_needs_are_refused(client: AbsurdClient, needs: Any) -> None:
    """At the decorator and at the spawn, with the name and the value."""
    with pytest.raises(ConfigurationError, match=r"needs of resources\.wrong"):
        executor("resources.wrong", needs=needs)
    assert "resources.wrong" not in registry
    with pytest.raises(InvalidOptionError):
        await client.spawn(work, {}, needs=needs)


# Offers ------------------------------------------------------------------------------------------


def test_graphics_processors_are_counted(tmp_path: Path) -> None:
    """By their devices, as far as CUDA_VISIBLE_DEVICES lets this process see them."""
    assert gpus(tmp_path, "0") == 0
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
    seen = {"": 0, "0": 1, "1,10": 2, "-1": 0, "0,-1,1": 1, "GPU-5ad3, GPU-77": 2, "0,1,2,3,4": 3, "0,,1": 1}

    assert gpus(tmp_path, None) == 3
    assert {visible: gpus(tmp_path, visible) for visible in seen} == seen


def test_scratch_space_is_what_is_free(tmp_path: Path) -> None:
    """Of the scratch disk, when the worker starts, or of what its folder will lie in; what is told goes before."""
    found = scratch_gib(tmp_path)
    assert found is not None
    assert abs(found - os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize / GIB) < 1
    assert abs((scratch_gib(tmp_path / "absent" / "yet") or 0) - found) < 1
    assert AbsurdWorker(settings=load_settings(environ={}, worker_scratch=Path("/proc"))).offers["scratch_gib"] == 0
    assert offers({"scratch_gib": 5})["scratch_gib"] == 5


def test_a_scratch_disk_that_hangs_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker starts without it."""
    goes_on = threading.Event()

    def hang(_: Path) -> Any:
        goes_on.wait(20)
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(shutil, "disk_usage", hang)
    monkeypatch.setattr(found_here, "DISK_SECONDS", 0.1)
    try:
        assert "scratch_gib" not in offers()
        assert threading.active_count() > 1, "it still waits for an answer"
    finally:
        goes_on.set()


# Processes ---------------------------------------------------------------------------------------


def start(stack: ExitStack, settings: Settings, count: int) -> list[subprocess.Popen[bytes]]:
    """Real worker processes, which are gone afterwards."""
    environment = os.environ | settings.environment()
    workers = [subprocess.Popen([sys.executable, "-c", WORKER], env=environment) for _ in range(count)]
    for each in workers:
        stack.callback(each.wait)
        stack.callback(each.kill)
    return workers


async def test_a_token_is_never_held_twice(
    settings: Settings, client: AbsurdClient, connection: Connection, tmp_path: Path
) -> None:
    """A thousand tasks with a token of 1, on three worker processes that all want it: one after the other."""
    await client.set_resource("licence:casa", 1)
    log = tmp_path / "log"
    with ExitStack() as stack:
        start(stack, settings, 3)
        tasks = await client.spawn_many(
            [
                TaskSpec("resources.hold", {"log": str(log), "again": n % 20 == 0}, needs={"licence:casa": 1})
                for n in range(1000)
            ]
        )
        for task in tasks:
            await client.wait(task, timeout=60)

    lines = log.read_text().split()
    assert lines == [sign + line[1:] for line in lines[::2] for sign in "+-"]
    assert len(lines) == 2 * 1050
    assert {line[1:] for line in lines} == set(map(str, tasks))
    ran = connection.execute("select count(distinct lease_worker(lease_id)) from run").fetchone()
    assert ran is not None
    assert ran[0] > 1


async def test_a_killed_holder_gives_its_token_back(
    settings: Settings, client: AbsurdClient, connection: Connection, tmp_path: Path
) -> None:
    """Kill -9: with its lease the token is free, and the next has it."""
    await client.set_resource("token", 1)
    log = tmp_path / "log"
    with ExitStack() as stack:
        (first,) = start(stack, settings, 1)
        holder = await client.spawn("resources.hold", {"log": str(log), "seconds": 3600}, needs={"token": 1})
        await live.soon(log.exists)
        first.send_signal(signal.SIGKILL)
        first.wait()
        start(stack, settings, 1)
        waits = await client.spawn("resources.hold", {"log": str(log)}, needs={"token": 1}, priority=5)
        await client.wait(waits, timeout=60)
        began = time.monotonic()
        while not (rows := connection.execute("select task_id from holding").fetchall()):
            assert time.monotonic() - began < 30
            await asyncio.sleep(0.01)

    assert rows == [(holder,)]
