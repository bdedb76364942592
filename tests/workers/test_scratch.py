"""Scratch folders: there for a run that asks, gone when it has ended, however that was."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live import soon, working
from places import Place
from structlog.testing import capture_logs

from absurd import AbsurdClient, TaskState, scratch
from absurd.config import Settings
from absurd.errors import NoScratchError
from absurd.outcome import Completed, Failed
from absurd.scratch import ScratchSpace, remove, sweep
from absurd.workers import slots
from absurd.workers.child import process
from absurd.workers.runs import room

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


@pytest.mark.parametrize("where", ["loop", "thread", "process"])
async def test_a_scratch_disk_that_cannot_be_used_spends_no_attempt(place: Place, tmp_path: Path, where: str) -> None:
    """Who asks for a folder is put off, and the disk is named; who asks for none runs, in a process too."""
    (tmp_path / "file").touch()
    space = place.port.scratch = ScratchSpace(tmp_path / "file" / "scratch")

    assert await place.value("slots.pid")
    for _ in range(2):
        assert room.put_off() == await place.run(f"hostile.scratch.{where}", params(tmp_path))
    assert f"{tmp_path}/file/scratch: Not a directory" == space.problem
    (tmp_path / "file").unlink()
    assert isinstance(await place.run(f"hostile.scratch.{where}", params(tmp_path, "return")), Completed)
    assert space.problem is None


def test_a_full_disk_leaves_no_half_made_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the process is made under another name first; nobody would sweep that."""

    def full(_self: Path, _target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    space = ScratchSpace(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", full)
        with pytest.raises(NoScratchError, match="No space left on device"):
            space.make("run")

    assert [] == [*tmp_path.iterdir()]
    assert space.make("run").is_dir()
    assert space.close()


async def test_processes_start_where_every_folder_for_temporary_files_is_full(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python finds none then, and says so by an error; a run that needs none is none the wiser."""
    (tmp_path / "sitecustomize.py").write_text("import tempfile\ntempfile._get_default_tempdir = lambda: 1 / 0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    assert await place.value("slots.pid")


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Have each look at a disk hang until the test has ended, as NFS without its server does; gives the looks."""
    goes_on, asked = threading.Event(), list[str]()

    def hang(path: Path) -> None:
        asked.append(threading.current_thread().name)
        goes_on.wait()
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(os, "statvfs", hang)
    monkeypatch.setattr(room, "DISK_SECONDS", 0.2)
    yield asked
    goes_on.set()


async def test_a_scratch_disk_that_hangs_holds_up_nothing(place: Place, hanging: list[str]) -> None:
    """It is asked once, in a thread that nobody waits for; who needs it is put off, who does not runs."""
    with capture_logs() as logs:
        needing = await asyncio.gather(*(place.run("slots.pid", needs={"scratch_gib": 0.1}) for _ in range(3)))
        assert room.put_off() == await place.run("hostile.scratch.process", {})
        assert await place.value("slots.pid")

    assert [room.put_off()] * 3 == needing
    assert ["absurd-disk"] * 2 == hanging, "one for what is free, one for a folder"
    assert {"scratch_unknown"} == {each["event"] for each in logs if each["log_level"] == "warning"}
    assert (place.port.scratch.problem or "").endswith("no answer for 0.2 s")


async def test_closing_waits_for_no_process_that_is_being_launched(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its modules may take minutes to import; it is ended as soon as it is there."""
    (tmp_path / "sitecustomize.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    place.slots._children.warm(1)
    await asyncio.sleep(0)  # its launch has begun

    await asyncio.wait_for(place.slots.close(), 30)

    assert not place.slots._children._all


async def test_closing_waits_for_no_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the sweep, nor for a folder that cannot be removed now: the next worker does."""
    goes_on, sweeping = threading.Event(), threading.Event()

    def hang(*_: object) -> list[Path]:
        sweeping.set()
        goes_on.wait()
        return []

    monkeypatch.setattr(slots, "sweep", hang)
    monkeypatch.setattr(scratch, "remove", hang)
    monkeypatch.setattr(slots, "CLOSE_SECONDS", 0.1)
    place.port.scratch.make("run")
    place.slots.open([])
    await asyncio.to_thread(sweeping.wait)
    try:
        with capture_logs() as logs:
            await asyncio.wait_for(place.slots.close(), 30)
    finally:
        goes_on.set()

    assert [("scratch_left", str(place.port.scratch.root))] == [(each["event"], each["folder"]) for each in logs]


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


def test_runs_that_start_at_once_share_one_folder_of_the_process(tmp_path: Path) -> None:
    """Else those that lost the race would stay behind when the worker ends."""
    space = ScratchSpace(tmp_path)
    together = threading.Barrier(8)

    def start() -> None:
        together.wait()
        space.folder()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert [space.folder()] == [*tmp_path.iterdir()]
    assert space.close()
    assert [] == [*tmp_path.iterdir()]


def test_a_scratch_disk_without_locks_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network's file system: nothing there is taken for a dead worker's."""

    def refuse(_descriptor: int) -> bool:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(scratch, "try_lock", refuse)
    space = ScratchSpace(tmp_path)
    made = space.make("run")

    assert [] == sweep(tmp_path)
    assert made.is_dir()
    assert space.close()
    assert [] == [*tmp_path.iterdir()]


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


async def full_disks(client: AbsurdClient) -> str:
    problems = {each["code"]: each["message"] for each in (await client.get_status())["problems"]}
    return str(problems["scratch_full"])


@pytest.mark.parametrize("why", ["needs", "setting"])
async def test_a_run_is_put_off_where_there_is_no_room(
    settings: Settings, client: AbsurdClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Before it starts, without an attempt spent; `task why` and `status` tell it; with room it runs (B25)."""
    monkeypatch.setattr(room, "NO_ROOM_SECONDS", 3600.0)
    needs = {"scratch_gib": 1e9} if why == "needs" else None
    settings = replace(
        settings,
        imports=("slot_executors",),
        worker_scratch=tmp_path,
        worker_heartbeat_interval=0.2,
        worker_min_free_gib=1e9 if why == "setting" else 0.0,
    )
    task_id = await client.spawn("slots.suspect.thread", {"path": "/dev/null/x"}, needs=needs, max_attempts=1)

    async with working(settings, offers={"scratch_gib": 2e9}):
        async with asyncio.timeout(30):
            while (task := await client.get_task(task_id)).state is not TaskState.SLEEPING:
                await asyncio.sleep(0.01)
        told = await client.task_why(task_id)
        async with asyncio.timeout(30):
            while str(tmp_path) not in (message := await full_disks(client)):  # told by the worker's next beat
                await asyncio.sleep(0.05)

    assert (task.reason, [run.state for run in task.runs]) == ("no_scratch", ["suspended"])
    assert "had no room for it" in told
    assert message.startswith("1 task put off")
    assert f"cannot be used: {tmp_path}: " in message


async def test_what_room_there_is_may_be_unknown(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the run is started; a disk that is full is put off each time, and not asked for in between."""
    place.port.scratch = ScratchSpace(tmp_path / "missing")
    assert await place.value("slots.pid", needs={"scratch_gib": 1e9})
    (tmp_path / "missing").mkdir(exist_ok=True)
    outcome: Any = await place.run("slots.pid", needs={"scratch_gib": 1e9})

    assert room.put_off() == outcome
