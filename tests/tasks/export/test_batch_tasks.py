"""``export.batch`` on a queue: one task for each export, one snapshot for all, and what kill -9 leaves of both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from exporting import TABLES, TOTAL, Gate, Mover, exports, fill, total, writer_of
from interrupting import Sessions

from absurd import SyncAbsurdClient, Workflow
from absurd.errors import InvalidParamsError, TaskFailed
from absurd.executor import load_modules, registry
from absurd.tasks import EXECUTOR_MODULES

load_modules(list(EXECUTOR_MODULES), shipped=False)

Until = Callable[..., None]


@pytest.fixture(scope="module")
def url(module_database_url: str) -> str:
    """A database with the queue, and three tables for a sum that stays equal."""
    fill(module_database_url)
    return module_database_url


@pytest.fixture(scope="module")
def worker(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with room for a batch and its exports, whose processes stay warm from test to test."""
    with worker_process(url, "--concurrency", "4") as process:
        yield process


@pytest.fixture
def client(url: str) -> Iterator[SyncAbsurdClient]:
    """A client, and the tables as they are in the beginning."""
    fill(url)
    with SyncAbsurdClient(url) as opened:
        yield opened


@pytest.mark.usefixtures("worker")
def test_all_see_one_snapshot(client: SyncAbsurdClient, url: str, tmp_path: Path) -> None:
    """While another session moves amounts between three tables, the sum over the three files is what it always is."""
    workflow = Workflow("night")
    workflow.task("export.batch", {"exports": exports(tmp_path)}, name="batch")
    with Mover(url) as mover:
        run = client.spawn_workflow(workflow)
        done = client.wait(run.tasks["batch"], timeout=60)
        document = client.wait_workflow(run.id, timeout=60)

    assert mover.moved > 0
    assert total(tmp_path) == TOTAL
    assert done.result["one_snapshot"] and len(done.result["snapshots"]) == 1
    assert [each["rows"] > 0 for each in done.result["exports"]] == [True] * 3
    nodes = {f"{number} {table}.parquet" for number, table in enumerate(TABLES, 1)}
    assert {node["node"] for node in document["nodes"]} == {"batch"} | nodes
    assert set(os.listdir(tmp_path)) == described({f"{table}.parquet" for table in TABLES})


@pytest.mark.usefixtures("worker")
def test_one_failure_loses_no_other(client: SyncAbsurdClient, tmp_path: Path) -> None:
    """The batch fails in the end and names the export with its reason; the others are there, whatever their order."""
    listed = exports(tmp_path)
    listed[0] |= {"sql": "select n from public.nowhere"}

    with pytest.raises(TaskFailed, match=r"1 of 3 exports failed, 2 are made\. .*left_side\.parquet: .*nowhere"):
        client.wait(client.spawn("export.batch", {"exports": listed}), timeout=60)

    assert set(os.listdir(tmp_path)) == described({"middle.parquet", "right_side.parquet"})


@pytest.mark.usefixtures("worker")
def test_one_failure_stops_the_others_if_asked(client: SyncAbsurdClient, url: str, tmp_path: Path) -> None:
    """With stop_on_failure what has not ended is cancelled."""
    listed = exports(tmp_path)
    with Gate(url) as gate:
        listed[0]["sql"] = "select n from public.nowhere"
        listed[1]["sql"] += gate.clause
        batch = client.spawn("export.batch", {"exports": listed, "stop_on_failure": True})
        with pytest.raises(TaskFailed, match=r"[23] of 3 exports failed"):
            client.wait(batch, timeout=60)

    assert {"left_side.parquet", "right_side.parquet"} & set(os.listdir(tmp_path)) == set()


@pytest.mark.usefixtures("worker")
def test_a_killed_export_of_a_batch_sees_the_same_snapshot(
    client: SyncAbsurdClient, url: str, tmp_path: Path, until: Until
) -> None:
    """Its process dies while the batch lives: it runs again, and what was written meanwhile is not in its file."""
    listed = exports(tmp_path)
    with Gate(url) as gate:
        listed[2]["sql"] += gate.clause
        batch = client.spawn("export.batch", {"exports": listed})
        until(lambda: gate.waiting() == 1 and len(names(tmp_path)) == 2)
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("insert into public.middle values (1)")
        os.kill(writer_of(tmp_path), signal.SIGKILL)
        gate.open()
        done = client.wait(batch, timeout=60)

    assert total(tmp_path) == TOTAL
    assert done.result["one_snapshot"]
    assert set(os.listdir(tmp_path)) == described(names(tmp_path))


def test_a_killed_batch_makes_what_is_missing(client: SyncAbsurdClient, url: str, tmp_path: Path, until: Until) -> None:
    """The worker dies: what was made stays, the rest comes from a new snapshot, which the result tells."""
    listed = exports(tmp_path)
    options = ("--queue", "night", "--concurrency", "4")
    with Gate(url) as gate, worker_process(url, *options) as worker:
        for each in listed[1:]:
            each["sql"] += gate.clause
        batch = client.spawn("export.batch", {"exports": listed}, queue="night")
        until(lambda: gate.waiting() == 2 and "left_side.parquet" in names(tmp_path))
        assert names(tmp_path) == {"left_side.parquet"}
        worker.kill()
        worker.wait()
    with Sessions(url) as sessions:
        until(lambda: sessions.count() == 0)  # nobody holds the snapshot any more
    with psycopg.connect(url, autocommit=True) as other:
        for table in TABLES:
            other.execute(f"insert into public.{table} values (1)")
    with worker_process(url, *options):
        done = client.wait(batch, timeout=60)
        # the worker may have died between a run and the last file's name: another one gives it, when it is overdue
        until(lambda: set(os.listdir(tmp_path)) == described(names(tmp_path)), 60)

    assert total(tmp_path) == TOTAL + 2
    first, second = (each["snapshot"] for each in done.result["snapshots"])
    for each in done.result["exports"]:  # the file tells when its snapshot was taken, not when it was taken over
        footer = pq.read_metadata(each["path"]).metadata
        told = {"snapshot": footer[b"absurd.snapshot"].decode(), "taken_at": footer[b"absurd.snapshot_at"].decode()}
        assert told in done.result["snapshots"]
    assert not done.result["one_snapshot"]
    assert [each["snapshot"] for each in done.result["exports"]] == [first, second, second]


def test_a_worker_with_one_slot_ends_a_batch(client: SyncAbsurdClient, url: str, tmp_path: Path) -> None:
    """Where nobody has room for the exports of a batch it makes them itself: it never waits for ever."""
    with worker_process(url, "--queue", "narrow", "--concurrency", "1"):
        done = client.wait(client.spawn("export.batch", {"exports": exports(tmp_path)}, queue="narrow"), timeout=60)

    assert total(tmp_path) == TOTAL
    assert [each["task_id"] for each in done.result["exports"]] == [None] * 3
    assert done.result["one_snapshot"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"exports": []}, "exports: "),
        ({"exports": [{"sql": "s", "out": "a"}, {"sql": "s", "out": "./a"}]}, "exports 1 and 2 .* both write"),
        ({"exports": [{"sql": "s", "out": "a", "rowgroup": 1}]}, r"exports\.0\.rowgroup: .*not permitted"),
        ({"exports": [{"sql": "s", "out": "a"}], "password": "p"}, "password: .*forbidden"),
        ({"exports": [{"sql": "s", "out": "a"}], "database": "host=h"}, "database: "),
    ],
)
def test_params_of_a_batch_are_checked_at_spawn(params: dict[str, Any], message: str) -> None:
    """Each wrong field is named, and a file that two exports would write."""
    with pytest.raises(InvalidParamsError, match=message):
        registry.require("export.batch").load_params(params)


def described(files: set[str]) -> set[str]:
    """The files, each with its manifest."""
    return files | {f"{name}.manifest.json" for name in files}


def names(folder: Path) -> set[str]:
    """The files with their final names."""
    return {path.name for path in folder.glob("[!.]*.parquet")}


@contextmanager
def worker_process(url: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as a process of its own, whose lease ends soon after it dies."""
    environment = os.environ | {
        "ABSURD_DATABASE_URL": url,
        "ABSURD_WORKER_LEASE": "1.5",
        "ABSURD_WORKER_HEARTBEAT_INTERVAL": "0.3",
        "ABSURD_WORKER_POLL_INTERVAL": "0.1",
        "ABSURD_LOG_LEVEL": "warning",
    }
    process = subprocess.Popen([sys.executable, "-m", "absurd.cli.worker", *options], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
