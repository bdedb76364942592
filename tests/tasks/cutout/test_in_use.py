"""One batch at a time in a folder: the second is told of the first, whatever they are; who is dead holds up nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from astropy.io import fits
from memory_port import MemoryPort, claim_of
from skies import make_wcs, no_index, pixels_of, write_image

from absurd.context import RunContext, run_here
from absurd.executor import load_modules, registry
from absurd.offspring import Ending
from absurd.outcome import Completed, Failed, Suspended
from absurd.retry import RetryPolicy
from absurd.tasks import EXECUTOR_MODULES
from absurd.tasks.cutout.cutting import cut_here
from absurd.tasks.cutout.errors import FolderInUseError
from absurd.tasks.cutout.in_use import in_use
from absurd.tasks.cutout.params import BatchParams
from absurd.tasks.cutout.plan import PARTS
from absurd.workers.runs.execution import Defaults, run_sync

load_modules(list(EXECUTOR_MODULES), shipped=False)


@pytest.fixture
def params(tmp_path: Path) -> dict[str, Any]:
    """A batch of two positions on one image."""
    write_image(tmp_path / "a.fits", pixels_of(), make_wcs(), BAND="r")
    positions = [(10.0, 20.0), (10.0003, 20.0)]
    return {"positions": positions, "source": str(tmp_path / "a.fits"), "size": 6, "unit": "pixel"} | {
        "out": str(tmp_path / "out")
    }


def start(name: str, params: dict[str, Any], port: MemoryPort, task_id: UUID | None = None, **fields: Any) -> Any:
    """One run of a task, and its outcome."""
    claim = claim_of(name, params, task_id=task_id or uuid4(), **fields)
    return run_sync(RunContext(claim, port, run_here), claim, registry.require(name), Defaults(RetryPolicy(), None))


def refused(outcome: Any, holder: str) -> bool:
    """Whether a run has failed because of another batch, that it names, with no other attempt."""
    assert isinstance(outcome, Failed), outcome
    assert outcome.delay is None
    assert outcome.error["message"].startswith("a batch is at work in")
    return holder in outcome.error["message"]


def run_part(suspended: Suspended, port: MemoryPort, batch: UUID) -> Any:
    """Run the only part of a batch."""
    (spawned,) = suspended.spawns
    port.checkpoints[batch][spawned["checkpoint"]] = spawned["id"]
    outcome = start("cutout.part", json.loads(spawned["params"]), port, UUID(spawned["id"]))
    if isinstance(outcome, Completed):
        port.endings[UUID(spawned["id"])] = Ending(
            UUID(spawned["id"]), "cutout.part", "completed", json.loads(outcome.result or "null"), None
        )
    return outcome


def test_two_batches_on_a_queue(params: dict[str, Any]) -> None:
    """While one waits for its parts another is refused; once it has ended its folder is the other's, not its own."""
    port, first, second = MemoryPort(), uuid4(), uuid4()
    for each in (first, second):
        port.endings[each] = Ending(each, "cutout.batch", "blocked", None, None)
    suspended = start("cutout.batch", params, port, first)
    assert isinstance(suspended, Suspended)

    assert refused(start("cutout.batch", params | {"size": 8}, port, second), f"task {first}")
    assert isinstance(start("cutout.batch", params, port, first), Suspended)  # it goes on

    port.endings[first] = Ending(first, "cutout.batch", "cancelled", None, None)
    taken = start("cutout.batch", params | {"size": 8}, port, second)
    assert isinstance(taken, Suspended)
    assert refused(start("cutout.batch", params, port, first, attempt=2), f"task {second}")
    port.endings[first] = Ending(first, "cutout.batch", "blocked", None, None)
    late = run_part(suspended, port, first)
    assert isinstance(late, Failed)
    assert str(second) in late.error["message"]

    assert isinstance(run_part(taken, port, second), Completed)
    done = start("cutout.batch", params | {"size": 8}, port, second)
    assert isinstance(done, Completed)
    made = Path(params["out"]) / "000000_r.fits"
    assert fits.getdata(made).shape == (8, 8)
    # as the file of a single cut-out, it tells the task that has made it
    assert fits.getval(made, "TASKID") == taken.spawns[0]["id"]


def test_parts_are_tidied_away_after_the_completion(params: dict[str, Any]) -> None:
    """By a task that there is only if the batch is complete; it leaves the folder alone that is another's by then."""
    port, first, second = MemoryPort(), uuid4(), uuid4()
    wanted = params | {"keep_parts": False}
    parts = Path(params["out"]) / PARTS

    def batch(task: UUID) -> Completed:
        run_part(start("cutout.batch", wanted, port, task), port, task)
        done = start("cutout.batch", wanted, port, task)
        assert isinstance(done, Completed)
        return done

    def tidy(done: Completed) -> None:
        (spawned,) = done.spawns
        assert spawned["name"] == "cutout.tidy"
        assert isinstance(start("cutout.tidy", json.loads(spawned["params"]), port), Completed)

    port.endings[first] = Ending(first, "cutout.batch", "blocked", None, None)
    done = batch(first)
    assert parts.is_dir()  # should this run be lost, its retry would need them
    port.endings[first] = Ending(first, "cutout.batch", "completed", None, None)
    tidy(done)
    assert not parts.exists()

    port.endings[second] = Ending(second, "cutout.batch", "blocked", None, None)
    suspended = start("cutout.batch", wanted, port, second)
    tidy(done)
    assert parts.is_dir()
    assert isinstance(run_part(suspended, port, second), Completed)


def test_a_command_beside_a_batch_on_a_queue(params: dict[str, Any]) -> None:
    """It is refused while that has not ended, and by the name of the task; while it runs no batch begins."""
    port, first = MemoryPort(), uuid4()
    assert isinstance(start("cutout.batch", params, port, first), Suspended)
    here = BatchParams(**params)
    with pytest.raises(FolderInUseError, match=f"task {first}") as caught:
        cut_here(here, no_index)
    assert caught.value.details["holder"] == str(first)

    outcomes = []

    def meanwhile(done: int, _: int) -> None:
        if done == 1:
            outcomes.append(start("cutout.batch", params, port))
            with pytest.raises(FolderInUseError, match=r"process \d+ on "):
                cut_here(here, no_index)

    asked: list[UUID] = []

    def ended(task: UUID) -> bool:
        asked.append(task)
        return True

    cut_here(here, no_index, progress=meanwhile, has_ended=ended)
    assert asked == [first]
    assert refused(outcomes[0], "process ")
    assert cut_here(here, no_index).failed == 0


def test_a_process_that_is_dead_holds_up_nobody(params: dict[str, Any]) -> None:
    """The lock of one that is killed is free at once."""
    parts = Path(params["out"]) / PARTS
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom absurd.tasks.cutout.in_use import in_use\n"
        "with in_use(Path(sys.argv[1])):\n    print('there', flush=True)\n    sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(parts)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        with pytest.raises(FolderInUseError, match=f"process {process.pid} on "):
            cut_here(BatchParams(**params), no_index)
        process.kill()
        process.wait()

    assert cut_here(BatchParams(**params), no_index).accepted == 2


def test_a_file_system_without_locks_is_no_hindrance(params: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the name of the task counts alone."""

    def none(_: int, __: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", none)
    first = uuid4()
    with in_use(Path(params["out"]) / PARTS, batch=first):
        pass
    with pytest.raises(FolderInUseError, match=f"task {first}"):
        cut_here(BatchParams(**params), no_index)
