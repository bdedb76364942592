"""How runs end in a real worker: deadlines, memory that runs out, snoozes, and the pauses between attempts."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from memory_port import claim_of

from absurd import AbsurdClient, RetryPolicy, Snooze, SyncAbsurdClient, TaskFailed, TaskState, executor
from absurd.config import Settings
from absurd.workers import AbsurdWorker
from absurd.workers.runs.wire import dump_claim

Connection = psycopg.Connection[Any]
Until = Callable[[Callable[[], object]], None]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The executors of the tests are found by import, by child processes too."""
    return replace(settings, imports=("slot_executors",))


@executor("ends.snooze")
async def snooze(ctx: Any, params: Any) -> str:
    """Snooze three times, then return."""
    path = Path(params["path"])
    with path.open("a") as file:
        file.write(f"{ctx.attempt} ")
    if len(path.read_text().split()) <= 3:
        raise Snooze(0.1)
    return "awake"


@executor("ends.fail")
async def fail(ctx: Any, params: Any) -> None:
    """Fail."""
    raise ValueError("no")


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_the_end_of_its_time_cancels_a_running_task_with_all_it_has_started(
    settings: Settings, client: AbsurdClient, connection: Connection, tmp_path: Path
) -> None:
    """A task at work beyond `finish_within` is cancelled, and nothing of its process group or sessions goes on."""
    pids = tmp_path / "pids"
    worker = AbsurdWorker(settings=settings)
    runner = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        params = {"pids": str(pids), "then": "hang"}  # deaf to SIGTERM
        task_id = await client.spawn("slots.family", params, finish_within=3600, retry={"max_attempts": 5})
        while not (pids.exists() and len(pids.read_text().split()) == 4):
            await asyncio.sleep(0.01)
        family = [int(each) for each in pids.read_text().split()]
        assert not any(map(gone, family))
        connection.execute("update deadline set due_at = clock_time()")  # the hour is over
        connection.execute("select _tell_due(clock_time())")
        while not all(map(gone, family)):
            await asyncio.sleep(0.01)
        await worker.stop(grace=5)
        await runner

    task = await client.get_task(task_id)
    assert task.state is TaskState.CANCELLED
    assert task.reason is not None and task.reason.startswith("deadline")
    (run,) = task.runs
    assert (run.attempt, run.state) == (1, "cancelled")
    assert run.error is not None and run.error["code"] == "deadline"


async def test_a_process_that_runs_out_of_memory_fails_and_is_given_more(
    settings: Settings, client: AbsurdClient
) -> None:
    """A real MemoryError under a real limit is told as such, and the rule for it gives the next attempt more memory."""
    rule = {"out_of_memory": True, "delay": 0, "memory_factor": 2}
    task_id = await client.spawn(
        "slots.hungry", {"limit": 1 << 30}, needs={"memory_gib": 2}, retry={"max_attempts": 2, "rules": [rule]}
    )
    await AbsurdWorker(settings=settings).run("drain")

    task = await client.get_task(task_id)
    assert (task.state, task.result) == (TaskState.COMPLETED, "fed")
    assert task.runs[0].error is not None
    error = task.runs[0].error
    assert (error["type"], error["code"], error["out_of_memory"]) == ("MemoryError", "out_of_memory", True)
    assert (error["memory_limit_gib"], 0.5 < error["peak_memory_gib"] < 2) == (2, True)
    async with await psycopg.AsyncConnection.connect(settings.database_url or "") as connection:
        row = await (await connection.execute("select needs from absurd.task")).fetchone()
    assert row == ({"memory_gib": 4},)


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A control group with 400 MB of memory, where this user may make one."""
    hierarchy = Path("/sys/fs/cgroup/memory")
    root, limit = (hierarchy, "memory.limit_in_bytes") if hierarchy.is_dir() else (hierarchy.parent, "memory.max")
    group = root / f"absurd-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text("400000000")
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    deadline = time.monotonic() + 10
    while (group / "cgroup.procs").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    group.rmdir()


def test_the_kernel_kills_a_process_for_want_of_memory(settings: Settings, control_group: Path, tmp_path: Path) -> None:
    """Killed by the kernel, the process is told from one that somebody killed, and the rule for it applies."""
    environment = os.environ | {
        "ABSURD_DATABASE_URL": settings.database_url or "",
        "ABSURD_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    enter = f'echo $$ > {control_group}/cgroup.procs && exec "$@"'
    command = [sys.executable, "-m", "absurd.cli.worker", "--import", "slot_executors", "--drain"]
    rule = {"out_of_memory": True, "action": "reject"}
    with SyncAbsurdClient(settings=settings) as client:
        task_id = client.spawn("slots.hungry", {}, retry={"max_attempts": 3, "rules": [rule]})
        subprocess.run(["sh", "-c", enter, "sh", *command], env=environment, check=True, timeout=120, cwd="/")
        with pytest.raises(TaskFailed, match="memory ran out"):
            client.wait(task_id, timeout=10)
        task = client.get_task(task_id)
    assert task.error is not None
    assert (task.error["code"], task.error["signal"], task.error["out_of_memory"]) == ("child_died", "SIGKILL", True)
    assert task.attempts == 1


async def test_a_snooze_spends_no_attempt(settings: Settings, client: AbsurdClient, tmp_path: Path) -> None:
    """A task of one attempt that snoozes three times completes in its first (B49)."""
    task_id = await client.spawn("ends.snooze", {"path": str(tmp_path / "runs")}, max_attempts=1)
    await AbsurdWorker(settings=settings).run("drain")

    task = await client.get_task(task_id)
    assert (task.state, task.result, task.attempts) == (TaskState.COMPLETED, "awake", 1)
    assert [(run.attempt, run.state) for run in task.runs] == [(1, "suspended")] * 3 + [(1, "completed")]
    assert (tmp_path / "runs").read_text().split() == ["1"] * 4


@pytest.mark.parametrize("retry", [None, {"factor": 3}, {"maximum": 60}, {"jitter": 0}, {"max_attempts": 2}])
async def test_a_policy_without_a_base_waits_between_attempts(
    settings: Settings, client: AbsurdClient, retry: dict[str, Any] | None
) -> None:
    """Whatever a policy leaves out, a failed task comes back after a pause that is not zero (B34)."""
    await client.spawn("ends.fail", retry=retry)
    await AbsurdWorker(settings=settings).run("burst")

    async with await psycopg.AsyncConnection.connect(settings.database_url or "") as connection:
        pause = (
            "select extract(epoch from t.wake_at - r.finished_at) from absurd.timer t join absurd.run r using (task_id)"
        )
        rows = await (await connection.execute(pause)).fetchall()
    assert len(rows) == 1
    assert 0.8 <= rows[0][0] <= 1.2


def test_a_process_that_is_cut_short_says_nothing_of_pipes(until: Until, tmp_path: Path) -> None:
    """Stopped in the middle of a message after its worker has gone, it ends without a traceback."""
    started, over = tmp_path / "started", tmp_path / "gone"
    ours, theirs = socket.socketpair()
    watched, lifeline = os.pipe()
    claim = claim_of("slots.halved", {"started": str(started), "gone": str(over)}, suspect=True)
    origin = ["slot_executors", "halved", None]
    greeting = {"path": sys.path, "modules": ["slot_executors"], "retry": RetryPolicy().to_json(), "timeout": None}
    find = {"find": claim.name, "origin": origin}
    for message in (greeting, find, {"claim": dump_claim(claim), "origin": origin}):
        ours.sendall(json.dumps(message).encode() + b"\n")
    command = [sys.executable, "-m", "absurd.workers.child", str(theirs.fileno()), str(watched)]
    with subprocess.Popen(command, pass_fds=[theirs.fileno(), watched], stderr=subprocess.PIPE, text=True) as child:
        theirs.close()
        os.close(watched)
        until(started.exists)
        ours.close()
        over.touch()
        _, said = child.communicate(timeout=60)
    os.close(lifeline)

    assert child.returncode == 128 + 15, said
    assert "BrokenPipe" not in said, said
