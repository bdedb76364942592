"""A run's memory limit: by a control group or by looking, over all that it has started, and over nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from live import soon
from places import Place, alive
from structlog.testing import capture_logs

from absurd import RetryPolicy
from absurd.config import load_settings
from absurd.errors import ConfigurationError
from absurd.outcome import Suspended
from absurd.workers.child import process
from absurd.workers.host import memory
from absurd.workers.host.cgroups import Groups
from absurd.workers.host.guard import Usage, read_usage

LIMIT = {"memory_gib": 0.25}


@pytest.fixture(params=["watch", "cgroup"])
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    """With each of the ways to limit memory, where this machine has it."""
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 0.3)
    try:
        made = Place(tmp_path, worker_memory_limit=request.param)
    except ConfigurationError as error:
        pytest.skip(error.message)
    yield made
    await made.slots.close()


@pytest.mark.parametrize("where", ["python", "numpy", "process"])
async def test_a_run_beyond_its_memory_limit_is_ended(place: Place, where: str) -> None:
    """The error names the limit and the peak; a run beside it goes on, and the next one has a process (B39)."""
    claim = {"where": where, "mib": 400, "hold": 20}
    error, beside = await asyncio.gather(
        place.failed("hostile.eat", claim, needs=LIMIT),
        place.value("hostile.eat", {"where": "python", "mib": 100}, needs={"memory_gib": 1}),
    )

    assert ("out_of_memory", True, 0.25) == (error["code"], error["out_of_memory"], error["memory_limit_gib"])
    assert "exceeded their memory limit of 0.25 GiB; " in error["message"]
    assert 0.2 < error["peak_memory_gib"] < 0.5
    assert error["cpu_seconds"] > 0
    assert await place.value("slots.pid")
    assert alive(beside)


async def test_a_rule_for_memory_sees_what_the_limit_did(place: Place) -> None:
    """The next attempt comes as the rule says, with more memory."""
    rule = {"out_of_memory": True, "delay": 7, "memory_factor": 2}
    outcome: Any = await place.run(
        "hostile.eat",
        {"where": "process", "mib": 400, "hold": 20},
        needs=LIMIT,
        retry=RetryPolicy(jitter=0).to_json() | {"rules": [rule]},
    )

    assert (7, {"memory_factor": 2}) == (outcome.delay, outcome.amend)


async def test_a_limit_does_not_outlive_its_run(place: Place) -> None:
    """The same process may hold more in the next run; and less again in the one after that."""
    first = await place.value("hostile.eat", {"where": "python", "mib": 100}, needs=LIMIT)
    assert first == await place.value("hostile.eat", {"where": "python", "mib": 400, "hold": 0.3})
    error = await place.failed("hostile.eat", {"where": "python", "mib": 400, "hold": 20}, needs=LIMIT)

    assert "out_of_memory" == error["code"]
    assert not alive(first)


async def test_memory_that_processes_share_counts_once(place: Place) -> None:
    """Forks of a process that holds much do not hold it again."""
    assert 25 == await place.value("hostile.share", {"mib": 100, "forks": 5, "hold": 0.5}, needs=LIMIT)


async def test_within_the_limit_nothing_happens(place: Place) -> None:
    """And the process is used again."""
    assert await place.value("slots.pid") == await place.value("slots.pid", needs={"memory_gib": 4})


async def test_a_failure_tells_what_the_run_has_used(place: Place) -> None:
    """Its own peak, not that of the run before it in the same process."""
    await place.value("hostile.eat", {"where": "python", "mib": 300})
    error = await place.failed("slots.exit")

    assert 0 < error["peak_memory_gib"] < 0.2
    assert 0 <= error["cpu_seconds"] < 1


async def test_a_guard_that_gets_no_time_spends_no_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a slow one the answer is waited for; where none comes the run is put off, and its process is ended."""
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 0.1)
    monkeypatch.setattr(process, "KILL_SECONDS", 0.1)
    place = Place(tmp_path, worker_memory_limit="watch")
    first = await place.value("slots.pid")
    (child,) = place.slots._children._all
    guard = child._process.pid
    os.kill(guard, signal.SIGSTOP)
    slow = asyncio.ensure_future(place.value("slots.pid", needs=LIMIT))
    await soon(lambda: child.memory.size)
    os.kill(guard, signal.SIGCONT)
    assert first == await slow

    monkeypatch.setattr(memory, "ANSWER_SECONDS", 0.1)
    os.kill(guard, signal.SIGSTOP)
    with capture_logs() as logs:
        assert Suspended("no_process", delay=30.0) == await place.run("slots.pid", needs=LIMIT)
    assert ["guard_silent"] == [each["event"] for each in logs if each["event"].startswith("guard")]
    monkeypatch.undo()

    assert first != await place.value("slots.pid", needs=LIMIT)
    assert not alive(first)
    await place.slots.close()


async def test_reserved_memory_is_limited_where_that_is_set(tmp_path: Path) -> None:
    """A MemoryError within the executor then, and the process lives; the next run may have more."""
    place = Place(tmp_path, worker_memory_limit="rlimit")
    first = await place.value("slots.pid")
    error = await place.failed("hostile.eat", {"where": "numpy", "mib": 4000}, needs=LIMIT)
    assert first == await place.value("hostile.eat", {"where": "numpy", "mib": 400})
    await place.slots.close()

    assert ("out_of_memory", 0.25) == (error["code"], error["memory_limit_gib"])
    assert "MemoryError" in error["message"]
    assert "traceback" in error and "_eat" not in error["message"]


async def test_limits_can_be_left_to_others(tmp_path: Path) -> None:
    """Of a batch system, say."""
    place = Place(tmp_path, worker_memory_limit="none")
    assert await place.value("hostile.eat", {"where": "python", "mib": 400}, needs=LIMIT)
    await place.slots.close()


def test_groups_of_version_2_are_written_as_the_kernel_wants_them(tmp_path: Path) -> None:
    """In a group that may have limited ones; without swap, and killed together."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/absurd.service/absurd-worker\n")
    own = tmp_path / "sys/fs/cgroup/system.slice/absurd.service"
    (own / "absurd-worker").mkdir(parents=True)
    (own / "absurd-worker" / "cgroup.controllers").write_text("memory pids\n")
    (own / "cgroup.subtree_control").write_text("memory pids\n")
    (own / "absurd-run-999999999-1-1").mkdir()  # of a process that is gone

    groups = Groups.find(tmp_path)
    group = groups.make()
    for name in ("memory.swap.max", "memory.oom.group", "memory.peak"):
        (group.path / name).touch()
    group.limit(1 << 20)
    (group.path / "memory.events").write_text("low 0\noom 2\noom_kill 3\n")

    assert own == groups.path
    assert {"cgroup.subtree_control", "absurd-worker", group.path.name} <= {each.name for each in own.iterdir()}
    assert not (own / "absurd-run-999999999-1-1").exists()
    read = {name: (group.path / name).read_text() for name in ("memory.max", "memory.swap.max", "memory.oom.group")}
    assert {"memory.max": "1048576", "memory.swap.max": "0", "memory.oom.group": "1"} == read
    assert 3 == group.kills()
    group.limit(None)
    assert ("max", "max") == tuple((group.path / name).read_text() for name in ("memory.max", "memory.swap.max"))


def test_where_no_group_can_be_made_memory_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless a group is asked for: then the worker does not start, and says what to set."""

    def find() -> Groups:
        raise PermissionError(13, "Permission denied", "/sys/fs/cgroup/absurd-run-1")

    monkeypatch.setattr(Groups, "find", find)

    assert memory.MemoryLimits("auto").groups is None
    with pytest.raises(ConfigurationError, match="with auto the memory of a run is watched"):
        memory.MemoryLimits("cgroup")
    assert "auto" == load_settings(environ={}).worker_memory_limit


def test_the_last_words_of_a_guard_are_read_whatever_came_before() -> None:
    """None of one that died without any."""
    assert Usage(5, 6, True, 7) == read_usage(b"123\n5 6 1 7\n")
    assert None is read_usage(b"123\n")
    assert None is read_usage(b"")
