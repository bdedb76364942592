"""Scratch folders: there for a run that asks, gone when it has ended, however that was."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live import soon, working
from places import Place

from absurd import AbsurdClient, TaskState
from absurd.config import Settings
from absurd.outcome import Completed, Failed, Suspended
from absurd.scratch import ScratchSpace, remove, sweep
from absurd.workers import process, slots

Until = Callable[[Callable[[], object]], None]


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 0.3)
    made = Place(tmp_path)
    yield made
    await made.slots.close()


def params(folder: Path, then: str = "") -> dict[str, str]:
    (folder / "kept").mkdir(exist_ok=True)
    (folder / "kept" / "file").write_text("mine")
    return {"kept": str(folder / "kept"), "started": str(folder / "started"), "then": then}


CASES = [
    *((where, then) for where in ("loop", "thread", "process") for then in ("return", "raise")),
    ("process", "die"),
    ("process", "hang"),
    ("process", "leave"),
]


@pytest.mark.parametrize(("where", "then"), CASES)
async def test_a_scratch_folder_goes_with_its_run(place: Place, tmp_path: Path, where: str, then: str) -> None:
    """It lies on the scratch disk, is the run's alone, and nothing that a link in it leads to is touched."""
    timeout = 1.0 if then == "hang" else None
    outcome = await place.run(f"hostile.scratch.{where}", params(tmp_path, then), timeout=timeout)

    folder = Path((tmp_path / "started").read_text().strip())
    assert isinstance(outcome, Completed if then in ("return", "leave") else Failed)
    assert tmp_path / "scratch" == folder.parents[1]
    assert not folder.exists()
    assert "mine" == (tmp_path / "kept" / "file").read_text()
    assert 0o700 == folder.parent.stat().st_mode & 0o777
    await place.slots.close()
    assert [] == list((tmp_path / "scratch").iterdir())


async def test_temporary_files_go_to_the_scratch_folder_of_a_run_that_needs_one(place: Place) -> None:
    """Those of programs that it calls, too; and not of the next run."""
    before = await place.value("hostile.temporary")
    here, program, folder = await place.value("hostile.temporary", needs={"scratch_gib": 0.001})

    assert here == program == folder
    assert before == await place.value("hostile.temporary")
    assert "" == before[2]


def test_what_a_dead_worker_left_is_removed_and_nobody_elses(tmp_path: Path) -> None:
    """A folder that is locked has an owner who lives; one that is no folder, or has another name, is not ours."""
    live = ScratchSpace(tmp_path)
    kept = live.make("run")
    dead = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from absurd.scratch import *; print(ScratchSpace(Path({str(tmp_path)!r})).make('run'))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    left = Path(dead.stdout.strip())
    (left / "file").write_text("data")
    (tmp_path / "absurd-scratch-file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "absurd-scratch-link").symlink_to(tmp_path / "other")

    assert [left.parent] == sweep(tmp_path)
    assert kept.is_dir()
    assert (tmp_path / "other").is_dir()
    assert live.close()
    assert not kept.exists()


def test_a_folder_that_cannot_be_removed_is_told(tmp_path: Path) -> None:
    """And one that was never there is gone."""
    assert remove(tmp_path / "never")
    with (tmp_path / "file").open("w"):
        assert not remove(tmp_path / "file")


async def test_the_next_worker_removes_what_a_killed_one_has_left(
    settings: Settings, client: AbsurdClient, tmp_path: Path
) -> None:
    """A worker that was killed with -9 in the middle of a run cannot tidy up; its successor on the machine does."""
    environment = (
        os.environ
        | settings.environment()
        | {
            "ABSURD_WORKER_SCRATCH": str(tmp_path / "scratch"),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
    )
    command = [sys.executable, "-m", "absurd.cli.worker", "--import", "hostile_executors"]
    await client.spawn("hostile.scratch.process", params(tmp_path, "hang"))
    worker = await asyncio.create_subprocess_exec(*command, env=environment, cwd="/")
    await soon((tmp_path / "started").exists)
    os.kill(worker.pid, signal.SIGKILL)
    await worker.wait()
    (left,) = (tmp_path / "scratch").glob(f"absurd-scratch-{worker.pid}-*")
    assert [] != list(left.iterdir())

    async with working(replace(settings, worker_scratch=tmp_path / "scratch"), queues=["other"]):
        await soon(lambda: not left.exists())


@pytest.mark.parametrize("why", ["needs", "setting"])
async def test_a_run_is_put_off_where_there_is_no_room(
    settings: Settings, client: AbsurdClient, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Before it starts, without an attempt spent; `task why` and `status` tell it; with room it runs (B25)."""
    monkeypatch.setattr(slots, "NO_ROOM_SECONDS", 3600.0)
    needs = {"scratch_gib": 1e9} if why == "needs" else None
    settings = replace(settings, imports=("slot_executors",), worker_min_free_gib=1e9 if why == "setting" else 0.0)
    task_id = await client.spawn("slots.suspect.thread", {"path": "/dev/null/x"}, needs=needs, max_attempts=1)

    async with working(settings, offers={"scratch_gib": 2e9}):
        async with asyncio.timeout(30):
            while (task := await client.get_task(task_id)).state is not TaskState.SLEEPING:
                await asyncio.sleep(0.01)
        told = await client.task_why(task_id)
        problems = {each["code"]: each for each in (await client.get_status())["problems"]}

    assert (task.reason, [run.state for run in task.runs]) == ("no_scratch", ["suspended"])
    assert "had no room for it" in told
    assert "1 task put off" in problems["scratch_full"]["message"]


async def test_what_room_there_is_may_be_unknown(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the run is started; a disk that is full is put off each time, and not asked for in between."""
    place.port.scratch = ScratchSpace(tmp_path / "missing")
    assert await place.value("slots.pid", needs={"scratch_gib": 1e9})
    (tmp_path / "missing").mkdir(exist_ok=True)
    outcome: Any = await place.run("slots.pid", needs={"scratch_gib": 1e9})

    assert Suspended("no_scratch", delay=slots.NO_ROOM_SECONDS) == outcome
