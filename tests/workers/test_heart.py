"""The heart of a worker: it keeps what the worker holds while that is held up, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from absurd import SyncAbsurdClient
from absurd.config import Settings, load_settings
from absurd.workers.life import heart as heart_module
from absurd.workers.life.heart import Heart

Until = Callable[[Callable[[], object]], None]

LEASE = 4.8
"""Seconds.  A heart has to load what it beats with, and to connect, before a lease is over."""


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts worker processes with short leases; what is left is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []
    environment = os.environ | {
        "ABSURD_DATABASE_URL": settings.database_url or "",
        "ABSURD_WORKER_LEASE": str(LEASE),
        "ABSURD_WORKER_HEARTBEAT_INTERVAL": "0.2",
        "ABSURD_WORKER_POLL_INTERVAL": "0.1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }

    def launch(*options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "absurd.cli.worker", "--import", "gil_executors", *options]
        process = subprocess.Popen(command, env=environment, cwd="/")
        started.append(process)
        return process

    yield launch
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.fixture
def client(settings: Settings) -> Iterator[SyncAbsurdClient]:
    with SyncAbsurdClient(settings=settings) as opened:
        yield opened


def hearts(worker: int) -> list[int]:
    """The heart processes of a worker, by their parent and program."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == worker and b"heart_process" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def is_there(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def attempts(started: Path) -> list[str]:
    return started.read_text().split() if started.exists() else []


def workers(settings: Settings) -> int:
    """How many are registered."""
    with psycopg.connect(settings.database_url or "", autocommit=True) as connection:
        row = connection.execute("select count(*) from absurd.worker where state = 'running'").fetchone()
        assert row is not None
        return int(row[0])


def problems(settings: Settings) -> dict[str, Any]:
    with psycopg.connect(settings.database_url or "", autocommit=True) as connection:
        row = connection.execute("select absurd.get_status() -> 'problems'").fetchone()
        assert row is not None
        return {each["code"]: each for each in row[0]}


def test_the_gil_held_for_three_leases_costs_no_lease(
    settings: Settings, client: SyncAbsurdClient, start: Callable[..., Any], until: Until, tmp_path: Path
) -> None:
    """In loop and thread, the run completes at its first attempt, beside a worker that would take it over at once."""
    held_up = [start("--queue", name) for name in ("first", "second", "third")]
    tasks = {
        client.spawn(f"gil.{name}", {"started": str(tmp_path / name), "seconds": 3 * LEASE}, queue=queue): name
        for name, queue in {"loop": "first", "thread": "second", "never_awaits": "third"}.items()
    }
    until(lambda: all(attempts(tmp_path / name) for name in tasks.values()))
    start("--queue", "first", "--queue", "second", "--queue", "third")
    until(lambda: "worker_held_up" in problems(settings))
    problem = problems(settings)["worker_held_up"]
    done = {name: client.wait(task_id, timeout=60) for task_id, name in tasks.items()}
    until(lambda: "worker_held_up" not in problems(settings))

    assert "process" in problem["action"]
    for name, task in done.items():
        assert [(run.attempt, run.state) for run in task.runs] == [(1, "completed")], name
        assert attempts(tmp_path / name) == ["1"]
    assert [process.poll() for process in held_up] == [None] * 3


@pytest.mark.parametrize("name", ["gil.loop", "gil.never_awaits"])
def test_a_worker_held_up_past_the_limit_of_its_run_is_given_up(
    settings: Settings, client: SyncAbsurdClient, start: Callable[..., Any], until: Until, tmp_path: Path, name: str
) -> None:
    """Others give it up with the reason told; what it says when it is free again is refused, and it comes back."""
    other = start("--queue", "other")
    until(lambda: workers(settings) == 1)  # is there before anything is held up
    first = start()
    params = {"started": str(tmp_path / "started"), "seconds": 2.5 * LEASE}
    task_id = client.spawn(name, params, timeout=0.3, max_attempts=2)
    until(lambda: [run.state for run in client.get_task(task_id).runs][:1] == ["lost"])
    error = client.get_task(task_id).runs[0].error
    assert error is not None
    assert "held up everything since" in error["message"]

    until(lambda: attempts(tmp_path / "started") == ["1", "2"])
    assert client.get_task(task_id).runs[0].state == "lost", "what it has said later is refused"
    assert (first.poll(), other.poll()) == (None, None)


def test_a_thread_that_was_left_behind_does_not_keep_its_worker_for_ever(
    client: SyncAbsurdClient, start: Callable[..., Any], until: Until, tmp_path: Path
) -> None:
    """It holds the GIL when no run with a limit is at work any more: what others do there is taken over after all."""
    first = start("--concurrency", "2")
    apart = client.spawn("gil.apart", {"seconds": 60})
    client.spawn("gil.left_behind", {"started": str(tmp_path / "started"), "seconds": 60}, timeout=0.3, max_attempts=1)
    until(lambda: attempts(tmp_path / "started"))
    start("--queue", "other")
    until(lambda: client.get_task(apart).runs[0].state == "lost")

    error = client.get_task(apart).runs[0].error
    assert error is not None
    assert "held up everything since" in error["message"]
    assert first.poll() is None


def test_a_stopped_worker_is_not_kept_alive(
    client: SyncAbsurdClient, start: Callable[..., Any], until: Until, tmp_path: Path
) -> None:
    """Its heart goes on, and gives no sign of life for it: others take over, and learn since when it was silent."""
    first = start()
    task_id = client.spawn("gil.never_awaits", {"started": str(tmp_path / "started"), "seconds": 2.0})
    until(lambda: attempts(tmp_path / "started"))
    os.kill(first.pid, signal.SIGSTOP)
    (heart,) = hearts(first.pid)
    start()
    until(lambda: attempts(tmp_path / "started") == ["1", "2"])
    task = client.wait(task_id, timeout=120)

    assert is_there(heart)
    assert task.runs[0].error is not None
    assert "silent since" in task.runs[0].error["message"]


def test_a_heart_dies_with_its_worker_and_is_replaced_when_it_dies(start: Callable[..., Any], until: Until) -> None:
    """Kill -9 of the heart starts another, kill -9 of the worker and its end by SIGTERM leave none behind."""
    first = start()
    until(lambda: hearts(first.pid))
    (old,) = hearts(first.pid)
    os.kill(old, signal.SIGKILL)
    until(lambda: hearts(first.pid) not in ([], [old]))
    (new,) = hearts(first.pid)
    first.kill()
    until(lambda: not is_there(new))

    second = start()
    until(lambda: hearts(second.pid))
    (other,) = hearts(second.pid)
    arguments = Path(f"/proc/{other}/cmdline").read_bytes()
    second.terminate()
    assert second.wait(timeout=30) == 0
    until(lambda: not is_there(other))
    assert b"postgres" not in arguments, "the address may hold a password"


def test_a_heart_that_dies_at_once_is_not_started_without_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, until: Until
) -> None:
    """However often the worker gives a sign of life: the next but one has to wait for the end of a pause."""
    started = tmp_path / "started"
    (tmp_path / "program.py").write_text(f"open({str(started)!r}, 'a').write('x\\n')\n")
    monkeypatch.setattr(heart_module, "_PROGRAM", tmp_path / "program.py")
    monkeypatch.setattr(heart_module, "FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(heart_module, "LONGEST_PAUSE", 3600.0)
    heart = Heart("", load_settings(environ={}, home=tmp_path), worker_id=1, interval=5.0)
    heart.start()
    for count in (1, 2):
        until(lambda count=count: len(attempts(started)) == count)  # type: ignore[misc]
        process = heart._process
        if process is not None:  # else the signs of life before were given after its end
            process.wait()
        for _ in range(20):
            heart.tell(0.0)
    heart.stop()

    assert ["x", "x"] == attempts(started)
