"""Suspects that cannot run apart, and processes that do not start: few are tried, and nothing is lost for it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import types
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import slot_executors
from live import soon
from memory_port import MemoryPort, claim_of

from absurd import SyncAbsurdClient, TaskSpec
from absurd.config import Settings, load_settings
from absurd.errors import ConfigurationError
from absurd.executor import Executor, registry
from absurd.model import Claim
from absurd.outcome import Completed, Failed, Outcome, Suspended
from absurd.workers import AbsurdWorker
from absurd.workers.child import apart, process, starting
from absurd.workers.child.process import ChildNotReadyError
from absurd.workers.runs.origin import IMPORTING
from absurd.workers.slots import Slots

PROGRAM = """
import argparse, asyncio, os
with open("imported", "a") as file:
    file.write(f"{os.getpid()}\\n")
parser = argparse.ArgumentParser()
parser.add_argument("until", choices=["drain"])
until = parser.parse_args().until
from absurd import executor
from absurd.workers import AbsurdWorker

@executor("own.hold")
async def hold(ctx, params):
    with open("ran", "a") as file:
        file.write(f"{os.getpid()}\\n")
    while not os.path.exists("release"):
        await asyncio.sleep(0.01)
    return os.getpid()

asyncio.run(AbsurdWorker(queues=["default"], concurrency=50).run(until))
"""


def make_slots(home: Path, *modules: str, concurrency: int = 50) -> Slots:
    settings = load_settings(environ={}, home=home)
    return Slots(concurrency=concurrency, settings=settings, modules=modules, port=MemoryPort())


@pytest.fixture
async def slots(tmp_path: Path) -> AsyncIterator[Slots]:
    made = make_slots(tmp_path, slot_executors.__name__)
    yield made
    await made.close()


async def run(slots: Slots, claim: Claim) -> Outcome | None:
    return await slots.run(claim, registry.require(claim.name))


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def test_suspects_of_a_program_that_no_process_can_import_run_in_their_worker(
    settings: Settings, tmp_path: Path, until: Callable[[Callable[[], object]], None]
) -> None:
    """Forty that a killed worker leaves: the next completes them, and few processes have tried to import the program.

    It works as soon as it is imported, and reads its arguments, which are not those of the process that imports it.
    """
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {
        "ABSURD_DATABASE_URL": settings.database_url or "",
        "ABSURD_HOME": str(tmp_path / "home"),
    }
    command = [sys.executable, "program.py", "drain"]
    with SyncAbsurdClient(settings=settings) as client:
        ids = client.spawn_many([TaskSpec("own.hold", {"n": n}, max_attempts=2) for n in range(40)])
        with subprocess.Popen(command, cwd=tmp_path, env=environment) as first:
            until(lambda: len(lines(tmp_path / "ran")) == 40)
            first.kill()
        (tmp_path / "release").touch()
        with subprocess.Popen(command, cwd=tmp_path, env=environment) as second:
            assert 0 == second.wait(timeout=120)
        tasks = [client.get_task(each) for each in ids]

    assert Counter({("completed", second.pid): 40}) == Counter((task.state.value, task.result) for task in tasks)
    assert len(lines(tmp_path / "imported")) <= 2 + apart.PLACES


async def test_an_executor_inside_a_function_of_the_program_is_not_looked_for(slots: Slots) -> None:
    """No process is started, and the program not run a second time: nobody would find it there."""

    async def inside(ctx: Any, params: Any) -> int:
        return os.getpid()

    inside.__module__ = "__main__"
    executor = Executor("inside", inside, runs_in="loop")
    outcomes = await asyncio.gather(*(slots.run(claim_of("inside", suspect=True), executor) for _ in range(20)))

    assert {Completed(str(os.getpid()))} == set(outcomes)
    assert not slots._children._all


@pytest.mark.parametrize(
    ("then", "seconds", "why"),
    [
        ("open(fifo).read()", 1.0, "takes longer than 1 s"),
        ("os._exit(3)", process.START_SECONDS, "exit code 3"),
        ("sys.exit(3)", process.START_SECONDS, "ends the program (exit code 3)"),
    ],
)
async def test_a_module_that_a_process_cannot_import_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str, seconds: float, why: str
) -> None:
    """It hangs or ends its process: suspects run in the worker, which keeps that in mind; runs in processes fail."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "working.py").write_text(
        f"import os, sys\nfifo = {str(tmp_path / 'fifo')!r}\n"
        f"with open({str(tmp_path / 'tried')!r}, 'a') as file: file.write('x\\n')\n{then}\n"
    )
    module = types.ModuleType("working")
    module.__file__ = str(tmp_path / "working.py")
    monkeypatch.setitem(sys.modules, "working", module)

    async def work(ctx: Any, params: Any) -> int:
        return os.getpid()

    work.__module__, work.__qualname__ = "working", "work"
    slots = make_slots(tmp_path)
    for _ in range(2):  # one for the suspects, one for the run after them, started in their own time
        await slots._children._put_back(await slots._children._start(1), 1)
    monkeypatch.setattr(process, "START_SECONDS", seconds)
    suspects = [await slots.run(claim_of("working", suspect=True), Executor("working", work, runs_in="loop"))]
    suspects += await asyncio.gather(
        *(slots.run(claim_of("working", suspect=True), Executor("working", work, runs_in="loop")) for _ in range(20))
    )
    tried = len(lines(tmp_path / "tried"))
    failed = await slots.run(claim_of("working"), Executor("working", work, runs_in="process"))
    await slots.close()

    assert ({Completed(str(os.getpid()))}, 1) == (set(suspects), tried)
    assert isinstance(failed, Failed)
    assert (why in failed.error["message"], failed.delay is not None) == (True, True), failed.error


async def test_processes_that_do_not_start_in_time_are_few_and_the_next_is_tried_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of forty runs, half of them suspects, a few fail and are tried again; the others spend no attempt.

    Nothing is left of what was started, and once it can start all run.
    """
    started, ready = tmp_path / "started", tmp_path / "ready"
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "slow_to_start.py").write_text(
        f"import os\nopen({str(started)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
        f"if not os.path.exists({str(ready)!r}): open({str(tmp_path / 'fifo')!r}).read()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    slots = make_slots(tmp_path, "slow_to_start", slot_executors.__name__)
    now = 0.0
    slots._children.starts.now = lambda: now
    claims = [claim_of("slots.pid") for _ in range(20)]
    claims += [claim_of("slots.suspect.loop", {"path": str(tmp_path / f"{n}")}, suspect=True) for n in range(20)]

    monkeypatch.setattr(process, "START_SECONDS", 1.0)
    outcomes = await asyncio.gather(*(run(slots, each) for each in claims))
    pids = lines(started)
    failed = [each for each in outcomes if isinstance(each, Failed)]
    off = [each for each in outcomes if isinstance(each, Suspended)]
    again = await run(slots, claims[0])
    monkeypatch.setattr(process, "START_SECONDS", 120.0)
    ready.touch()
    now += 1.0
    at_last = await asyncio.gather(*(run(slots, each) for each in claims))
    await slots.close()

    assert (40, len(failed)) == (len(failed) + len(off), starting.AT_ONCE)
    assert len(pids) <= starting.AT_ONCE
    assert {"child_not_ready"} == {each.error["code"] for each in failed}
    assert all(each.delay is not None for each in failed), "an attempt is spent, and there are more"
    assert {Suspended("no_process", delay=1.0)} == {*off, again}
    assert not [each for each in pids if Path(f"/proc/{each}").exists()]
    assert {Completed} == {type(each) for each in at_last}


async def test_no_more_suspects_than_places_run_at_once(
    slots: Slots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are put off, without an attempt, so that those who are none have their slots."""
    monkeypatch.setattr(slots._apart, "_places", asyncio.Semaphore(2))
    monkeypatch.setattr(apart, "PLACE_SECONDS", 0.01)
    started = [tmp_path / f"started-{n}" for n in range(6)]
    jobs = [
        asyncio.ensure_future(
            run(slots, claim_of("slots.suspect.loop", {"path": f"{each}.out", "started": str(each)}, suspect=True))
        )
        for each in started
    ]
    await soon(lambda: sum(each.exists() for each in started) == 2 and sum(job.done() for job in jobs) == 4)

    assert [Suspended("no_process", delay=30.0)] * 4 == [job.result() for job in jobs if job.done()]
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


async def test_the_pause_after_processes_that_do_not_start_grows_and_ends(tmp_path: Path) -> None:
    """It doubles up to a minute, those that failed together count once, and the first that starts ends it."""
    starts = starting.Starts()
    now = 0.0
    starts.now = lambda: now
    pauses = []

    async def fail() -> None:
        async with starts.turn():
            with pytest.raises(ChildNotReadyError), starts.counted(), starts.counted():
                raise ChildNotReadyError("no memory")

    for _ in range(8):
        await fail()
        with pytest.raises(starting.NotNowError) as paused:
            async with starts.turn():
                raise AssertionError("too early")
        pauses.append(paused.value.seconds)
        now += paused.value.seconds
    with starts.counted():
        pass
    await fail()
    with pytest.raises(starting.NotNowError) as paused:
        async with starts.turn():
            raise AssertionError("too early")

    assert ([1, 2, 4, 8, 16, 32, 60, 60], 1.0) == (pauses, paused.value.seconds)


async def test_what_a_child_process_imports_starts_no_worker_anywhere(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither there nor in a process that the import starts: each would have children that import it again."""
    monkeypatch.setenv(IMPORTING, "program")

    with pytest.raises(ConfigurationError, match="importing program starts a worker"):
        await AbsurdWorker(settings=settings).run("burst")
    with SyncAbsurdClient(settings=settings) as client:
        assert [] == client.list_workers()
