"""``cutout.batch`` on a queue: parts by image as tasks, one manifest for all, and what kill -9 and a cancel leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from memory_port import MemoryPort, claim_of
from skies import make_wcs, no_index, pixels_of, write_image

from absurd import SyncAbsurdClient, Workflow
from absurd.context import RunContext, run_here
from absurd.errors import InvalidParamsError
from absurd.executor import load_modules, registry
from absurd.model import TaskState
from absurd.offspring import Ending
from absurd.outcome import Cancelled, Completed, Suspended
from absurd.retry import RetryPolicy
from absurd.tasks import EXECUTOR_MODULES
from absurd.tasks.cutout import cutting, manifest
from absurd.tasks.cutout.params import BatchParams, PartParams
from absurd.tasks.cutout.plan import PARTS, ROWS_OF_A_PART
from absurd.tasks.cutout.tensor import read_tensors
from absurd.workers.runs.execution import Defaults, run_sync

load_modules(list(EXECUTOR_MODULES), shipped=False)

Until = Callable[..., None]

ROWS, FEW = 6_400, 3_200
IMAGES = 4
SIDE = 300
PATIENCE = 120
"""Seconds until something has to have happened, on a machine that does a lot beside."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, one of them cut short, and a table of positions on them in no order, with a bad one."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "images").mkdir()
    for number in range(IMAGES):
        wcs = make_wcs(10.0 + number, 20.0, crpix=(SIDE / 2, SIDE / 2))
        path = write_image(folder / "images" / f"{number}.fits", pixels_of((SIDE, SIDE), number), wcs, BAND="r")
    path.write_bytes(path.read_bytes()[:9000])
    random, spread = np.random.default_rng(5), 0.45 * SIDE * 0.5 / 3600
    places = random.uniform(-spread, spread, (ROWS, 2))
    lines = [f"{10 + k % IMAGES + x},{20 + y}" for k, (x, y) in zip(random.permutation(ROWS), places, strict=True)]
    lines[7] = "400,20"
    (folder / "positions.csv").write_text("\n".join(["ra,dec", *lines]))
    (folder / "few.csv").write_text("\n".join(["ra,dec", *lines[:FEW]]))
    return folder


def options(place: Path, out: Path, table: str = "positions.csv", **more: Any) -> dict[str, Any]:
    """The params of a batch of a table."""
    base = {"positions": str(place / table), "source": str(place / "images"), "size": 8, "unit": "pixel"}
    return base | {"fits": False, "tensors": "none", "out": str(out)} | more


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """What the batch gives in one process that nobody disturbs."""
    cutting.cut_here(BatchParams(**options(place, place / "whole")), no_index)
    return place / "whole"


@pytest.fixture
def client(module_database_url: str) -> Iterator[SyncAbsurdClient]:
    """A client of the queue."""
    with SyncAbsurdClient(module_database_url) as opened:
        yield opened


@contextmanager
def worker_process(url: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as a process of its own, whose lease ends soon after it dies."""
    environment = os.environ | {
        "ABSURD_DATABASE_URL": url,
        "ABSURD_WORKER_LEASE": "1.5",
        "ABSURD_WORKER_HEARTBEAT_INTERVAL": "0.3",
        "ABSURD_WORKER_POLL_INTERVAL": "0.1",
        "ABSURD_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([sys.executable, "-m", "absurd.cli.worker", *words], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def same(out: Path, whole: Path, rows: int) -> bool:
    """Whether a batch has the first rows of another and the same tensors, in the same order."""
    one, other = (list(manifest.read(each / "manifest.parquet")) for each in (out, whole))
    tensors, expected = (read_tensors(each / "tensors.parquet") for each in (out, whole))
    count = int(np.searchsorted(expected[0], rows))
    equal = [np.array_equal(tensors[number], expected[number][:count]) for number in range(3)]
    return one == other[:rows] and all(equal)


def made(out: Path) -> dict[str, int]:
    """The parts that are there, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (out / PARTS).glob("[0-9a-f]*[0-9a-f].arrow")}


# Real workers -------------------------------------------------------------------------------------


def test_a_killed_worker_loses_no_row(
    client: SyncAbsurdClient, module_database_url: str, place: Path, whole: Path, tmp_path: Path, until: Until
) -> None:
    """Thousands of positions, the worker killed in their midst: what it had made stays, the end is that of one run."""
    workflow = Workflow("field")
    workflow.task("cutout.batch", options(place, tmp_path / "out"), name="batch")
    run = client.spawn_workflow(workflow)
    with worker_process(module_database_url, "--concurrency", "1") as worker:
        until(lambda: len(made(tmp_path / "out")) >= 2, PATIENCE)
        worker.kill()
        worker.wait()
    before = made(tmp_path / "out")
    with worker_process(module_database_url, "--concurrency", "2"):
        done = client.wait(run.tasks["batch"], timeout=PATIENCE).result
        document = client.wait_workflow(run.id, timeout=PATIENCE)

    assert same(tmp_path / "out", whole, ROWS)
    assert before.items() <= made(tmp_path / "out").items()
    assert (done["rows"], done["rejected"], done["lost_parts"]) == (ROWS, 0, 0)
    assert done["failed"] == pytest.approx(ROWS / IMAGES, abs=1)
    assert done["manifest"] == str(tmp_path / "out" / "manifest.parquet")
    assert Path(done["contact_sheet"]).is_file()
    # what a task costs the queue is spread over a thousand cut-outs and more
    assert len(document["nodes"]) == 1 + done["parts"] <= 2 + 2 * ROWS // ROWS_OF_A_PART
    assert {node["node"] for node in document["nodes"]} == {"batch"} | {f"part[{n}]" for n in range(done["parts"])}


def test_a_cancelled_batch_takes_its_parts_along(
    client: SyncAbsurdClient, module_database_url: str, place: Path, whole: Path, tmp_path: Path, until: Until
) -> None:
    """They end as cancelled; a retry of the batch cuts what is missing."""
    batch = client.spawn("cutout.batch", options(place, tmp_path / "out", "few.csv"), queue="called-off")
    words = ("--queue", "called-off", "--concurrency", "1")
    with worker_process(module_database_url, *words) as worker:
        until(lambda: made(tmp_path / "out"), PATIENCE)
        client.cancel(batch)
        until(lambda: all(each.ended for each in parts(client, "called-off")), PATIENCE)
        worker.kill()
        worker.wait()
    before = made(tmp_path / "out")
    states = parts(client, "called-off")
    client.retry(batch)
    with worker_process(module_database_url, *words):
        done = client.wait(batch, timeout=PATIENCE).result

    assert TaskState.COMPLETED in states
    assert states.count(TaskState.CANCELLED) > 1
    assert before.items() <= made(tmp_path / "out").items()
    assert done["lost_parts"] == 0
    assert same(tmp_path / "out", whole, FEW)


def parts(client: SyncAbsurdClient, queue: str) -> list[TaskState]:
    """The states of all tasks of a queue."""
    return [TaskState(each["state"]) for each in client.list_tasks(queue=queue, limit=100)]


# Without a worker ---------------------------------------------------------------------------------


def start(name: str, params: dict[str, Any], port: MemoryPort, **fields: Any) -> Any:
    """One run of a task, and its outcome."""
    claim = claim_of(name, params, **fields)
    context = RunContext(claim, port, run_here)
    return run_sync(context, claim, registry.require(name), Defaults(RetryPolicy(), None))


def test_a_part_that_fails_for_good_is_failed_rows(place: Path, whole: Path, tmp_path: Path) -> None:
    """Its rows tell its error; all others are as ever.  One that was given up with the batch is spawned again."""
    port, params = MemoryPort(), options(place, tmp_path / "out", "few.csv")
    task_id = claim_of("x").task_id
    suspended = start("cutout.batch", params, port, task_id=task_id)
    assert isinstance(suspended, Suspended)
    failing, given_up, *others = suspended.spawns
    for each in suspended.spawns:
        port.checkpoints[task_id][each["checkpoint"]] = each["id"]
    for each in others:
        port.endings[each_id(each)] = cut_now(each)
    error = {"message": "it was killed"}
    port.endings[each_id(failing)] = Ending(each_id(failing), "cutout.part", "failed", None, error)
    reason = {"message": "its batch has ended"}
    port.endings[each_id(given_up)] = Ending(each_id(given_up), "cutout.part", "cancelled", None, reason)

    again = start("cutout.batch", params, port, task_id=task_id, attempt=2)
    assert isinstance(again, Suspended)
    (second,) = again.spawns
    assert second["params"] == given_up["params"]
    port.checkpoints[task_id][second["checkpoint"]] = second["id"]
    port.endings[each_id(second)] = cut_now(second)
    completed = start("cutout.batch", params, port, task_id=task_id, attempt=2)

    assert isinstance(completed, Completed)
    path = next(Path(each.attempt_path) for each in completed.artifacts if each.kind == "manifest")
    rows, expected = list(manifest.read(path)), list(manifest.read(whole / "manifest.parquet"))
    lost = [each["row"] for each in rows if "it was killed" in (each["reason"] or "")]
    assert len(rows) == FEW
    assert 0 < len(lost) <= ROWS_OF_A_PART
    left = [each | {"tensor": None} for each in rows if each["row"] not in set(lost)]
    assert left == [each | {"tensor": None} for each in expected[:FEW] if each["row"] not in set(lost)]


def test_a_part_of_a_batch_that_has_ended_is_not_cut(place: Path, tmp_path: Path) -> None:
    """It cancels itself before it reads anything."""
    port, batch = MemoryPort(), claim_of("x").task_id
    port.endings[batch] = Ending(batch, "cutout.batch", "cancelled", None, None)
    base = {name: value for name, value in options(place, tmp_path / "out").items() if name != "positions"}

    ended = start("cutout.part", base | {"part": "0" * 32, "thumbnails": 0, "batch": str(batch)}, port)

    assert isinstance(ended, Cancelled)
    assert ended.reason == "its batch has ended"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": {"folder": "x", "token": "s"}}, "source: .*a token must not stand in params"),
        ({"size": -1}, "size: .*greater than 0"),
        ({"planes": []}, "planes: "),
        ({"tensors": "log"}, "tensors: "),
        ({"edges": "fill"}, "edges: .*not permitted"),
    ],
)
def test_params_of_a_batch_are_checked_at_spawn(place: Path, change: dict[str, Any], message: str) -> None:
    """Each wrong field is named; positions are not looked at, for each has a row of its own."""
    with pytest.raises(InvalidParamsError, match=message):
        registry.require("cutout.batch").load_params(options(place, place) | change)
    listed = options(place, place, positions=[[400, 0], {"ra": "NaN", "dec": 0, "id": "a"}])
    assert len(registry.require("cutout.batch").load_params(listed).positions) == 2


def each_id(spawn: dict[str, Any]) -> UUID:
    """The id of a task that was spawned."""
    return UUID(spawn["id"])


def cut_now(spawn: dict[str, Any]) -> Ending:
    """Do what the task of a part does, and how it then stands."""
    params = PartParams(**json.loads(spawn["params"]))
    cut = cutting.cut_part(params, params.part, no_index, thumbnails=params.thumbnails)
    return Ending(each_id(spawn), "cutout.part", "completed", {"cut": cut.rows}, None)
