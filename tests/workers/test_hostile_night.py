"""A worker with everything at once that runs do to their processes, among tasks that only want to be done."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from live import working
from places import alive

from absurd import AbsurdClient, TaskSpec, TaskState
from absurd.config import Settings
from absurd.workers.child import process
from absurd.workers.host.tree import descendants


async def test_hostile_runs_harm_nobody_else(
    settings: Settings, client: AbsurdClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fails by its own cause, their neighbours complete at the first attempt, no process is left (B39, B41)."""
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 0.5)
    before = set(descendants(os.getpid()))
    pids = {name: str(tmp_path / name) for name in ("bomb", "daemon", "deaf")}
    eat = {"where": "process", "mib": 400, "hold": 60}
    hostile = {
        "child_died SIGSEGV": TaskSpec("hostile.crash", {"how": "segfault"}),
        "child_died SIGABRT": TaskSpec("hostile.crash", {"how": "abort"}),
        "child_died SIGKILL": TaskSpec("slots.die", {"signal": 9}),
        "child_died 3": TaskSpec("slots.die", {"code": 3}),
        "child_died channel": TaskSpec("hostile.write", {"text": "hello"}),
        "out_of_memory": TaskSpec("hostile.eat", eat, needs={"memory_gib": 0.25}),
        "run_timeout SIGKILL": TaskSpec("hostile.deaf", {"started": pids["deaf"]}, timeout=1.0),
        "completed daemon": TaskSpec("hostile.daemon", {"pids": pids["daemon"]}),
        "completed bomb": TaskSpec("hostile.bomb", {"pids": pids["bomb"], "levels": 4}),
    }
    specs = [replace(spec, max_attempts=1) for spec in hostile.values()]
    innocent = [TaskSpec(name, {"path": "/dev/null/x"}) for name in ("slots.pid", "hostile.calm") for _ in range(10)]
    settings = replace(settings, imports=("slot_executors", "hostile_executors"))
    async with working(settings, concurrency=4):
        ids = await client.spawn_many([*innocent, *specs, *innocent])
        async with asyncio.timeout(90):
            tasks = [await _ended(client, each) for each in ids]

    told: dict[str, Any] = {}
    for task in tasks:
        if task.name in ("slots.pid", "hostile.calm"):
            assert (task.state, task.attempts) == (TaskState.COMPLETED, 1), task.error
        elif task.state is TaskState.COMPLETED:
            told[f"completed {task.name.partition('.')[2]}"] = task
        else:
            assert task.error is not None and task.error["peak_memory_gib"] > 0, task.error
            told[_cause(task.error)] = task
    assert set(hostile) == set(told)
    assert before == set(descendants(os.getpid()))
    left = [int(pid) for path in pids.values() for pid in Path(path).read_text().split()]
    assert len(left) == 1 + 1 + 31
    assert not any(map(alive, left))


def _cause(error: dict[str, Any]) -> str:
    if error["code"] == "out_of_memory":
        return "out_of_memory"
    how = "channel" if "channel" in error["message"] else error.get("signal") or error.get("killed_by")
    return f"{error['code']} {how or error['exit_code']}"


async def _ended(client: AbsurdClient, task_id: Any) -> Any:
    while not (task := await client.get_task(task_id)).state.ended:
        await asyncio.sleep(0.02)
    return task
