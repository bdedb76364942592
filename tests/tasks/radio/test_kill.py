"""kill -9 at random points of the stages from sub-bands to light curves, as tasks of a real worker.

The queue runs them again.  At any moment each product is as before or as it will be, in the end all is as if nothing
had happened, and nothing is left beside it.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from interrupting import Workers
from killed_products import PRODUCTS, make_images
from killed_stages import STAGES, Inputs, Stage, make_inputs
from proof import amount, seed_of

from absurd import RetryPolicy, SyncAbsurdClient, TaskState
from absurd.errors import TaskFailed

PATIENCE = 240
"""Seconds until something has to have happened, on a machine that does a lot beside."""
RETRY = RetryPolicy(max_attempts=20, base=0.05, factor=1)
Until = Callable[..., None]
ALL = STAGES | PRODUCTS


@pytest.fixture(scope="module")
def client(module_database_url: str) -> Iterator[SyncAbsurdClient]:
    """Of the database of the module."""
    with SyncAbsurdClient(module_database_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def workers(module_database_url: str) -> Iterator[Workers]:
    """One of them, which outlives the runs that are killed."""
    with Workers(module_database_url, lease=30) as started:
        started.start("1")
        yield started


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Recordings, gains and images that all stages begin with."""
    folder = tmp_path_factory.mktemp("inputs")
    make_images(folder)
    return make_inputs(folder)


@pytest.mark.parametrize("name", ALL)
def test_a_stage_that_is_killed_ends_as_one_that_is_not(
    name: str,
    client: SyncAbsurdClient,
    workers: Workers,
    inputs: Inputs,
    tmp_path: Path,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
    module_database_url: str,
) -> None:
    """Its process is killed after one of the changes that its run makes, or before the first."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", module_database_url)
    chance = random.Random(seed_of(f"killed {name}"))
    undisturbed = ALL[name](tmp_path / "undisturbed", inputs, client)
    watch = Watch(client, undisturbed, spawn(client, undisturbed))
    until(watch.is_over, PATIENCE)
    end(client, watch.task, undisturbed)
    expected, changes = undisturbed.state(), watch.changes
    undisturbed.check()
    for turn in range(amount(1, 30)):
        stage = ALL[name](tmp_path / f"{turn}", inputs, client)
        before, task = stage.state(), spawn(client, stage)
        for _ in range(amount(1, chance.randint(1, 2))):  # after three it would be given up as poison
            point = chance.randint(0, changes)
            print(f"turn {turn}: after change {point} of {changes}")
            watch = Watch(client, stage, task)
            until(lambda at=point, seen=watch: seen.has_come_to(at), PATIENCE)
            until(lambda seen=watch: kill_run(workers) or seen.is_over(), PATIENCE)
            now = stage.state()
            assert [each for each in now if now[each] not in (before[each], expected[each])] == [], (point, now)
            stage.check()
        end(client, task, stage)

        assert stage.state() == expected
        stage.check()
        until(lambda folder=stage.folder: hidden(folder) == [])


class Watch:
    """Counts how often that changes which a run of a stage changes."""

    def __init__(self, client: SyncAbsurdClient, stage: Stage, task: UUID) -> None:
        self._client, self._stage, self.task = client, stage, task
        self._last = stage.signature()
        self.changes = 0

    def is_over(self) -> bool:
        """Whether the task has ended; looks for changes, too."""
        now = self._stage.signature()
        self.changes += now != self._last
        self._last = now
        return bool(self._state().ended)

    def has_come_to(self, changes: int) -> bool:
        """Whether it runs and so much has changed, or it is too late for that."""
        over = self.is_over()
        return over or (self._state() is TaskState.RUNNING and self.changes >= changes)

    def _state(self) -> TaskState:
        return self._client.get_states([self.task])[self.task] or TaskState.PENDING


def spawn(client: SyncAbsurdClient, stage: Stage) -> UUID:
    """Its task, in the queue that the worker serves."""
    return client.spawn(stage.executor, stage.params, retry=RETRY)


def end(client: SyncAbsurdClient, task: UUID, stage: Stage) -> None:
    """Wait until a task has ended as this stage does."""
    if stage.fails is None:
        stage.result = client.wait(task, timeout=PATIENCE).result
        return
    with pytest.raises(TaskFailed, match=stage.fails):
        client.wait(task, timeout=PATIENCE)


def kill_run(workers: Workers) -> bool:
    """SIGKILL to the process of the worker's run, which its guard has started; false where it is still to come."""
    parents = {}
    for each in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(each.parent.name)] = int(each.read_text().rpartition(")")[2].split()[1])
    guards = {pid for pid, parent in parents.items() if parent == workers.running[0].pid}
    runs = [pid for pid, parent in parents.items() if parent in guards]
    for pid in runs:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(runs)


def hidden(folder: Path) -> list[str]:
    """What lies in a folder under a name that is not final."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]


def test_what_is_watched_changes(inputs: Inputs, client: SyncAbsurdClient, tmp_path: Path) -> None:
    """The state of a stage tells a Measurement Set whose flags differ, and one that is not there."""
    stage: Any = STAGES["visibility.flag"](tmp_path, inputs, client)
    before = stage.state()
    stage.spoil()
    assert stage.state() != before
