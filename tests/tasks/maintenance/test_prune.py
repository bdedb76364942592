"""Pruning: ended tasks of queues, and old files, and never more than was asked for."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from memory_port import MemoryPort, claim_of
from single_run import fail, run
from sql_queue import Queue

from absurd.context import RunContext, run_here
from absurd.errors import InvalidParamsError
from absurd.executor import registry
from absurd.retry import RetryPolicy
from absurd.tasks.maintenance import UnsafeFolderError, prune_files
from absurd.tasks.maintenance import executors as shipped
from absurd.workers.runs.execution import Defaults, run_sync

Connection = psycopg.Connection[Any]
DAY = 86_400


@pytest.fixture
def queue(connection: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """A queue with three tasks that ended ten days ago, one that ended now, and one that has not ended."""
    monkeypatch.setenv("ABSURD_DATABASE_URL", database_url)
    made = Queue(connection)
    old = [made.spawn() for _ in range(3)]
    lease, _, _ = made.claim(3)
    made.complete(lease, *old)
    late = made.spawn()
    made.spawn()
    made.call("spawn_task('other', 'demo.add', '{}')")
    made.move_clock("10 days")
    lease, _, _ = made.claim(1, made.new_worker())
    made.complete(lease, late)
    return made


def left(queue: Queue) -> int:
    """Tasks that are still there."""
    found = queue.call("count(*) from task")
    assert isinstance(found, int)
    return found


def test_ended_tasks_of_all_queues(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ended long enough ago goes, in batches; what ended later or has not ended stays."""
    monkeypatch.setattr(shipped, "BATCH", 2)
    port = MemoryPort()

    told, _ = run("maintenance.prune", {"older_than": "7d", "dry_run": True})
    assert told == {"queues": {"default": 3, "other": 0}, "pruned": 3, "dry_run": True}
    assert left(queue) == 6

    result, _ = run("maintenance.prune", {"older_than": "7d"}, port)
    assert result == {"queues": {"default": 3, "other": 0}, "pruned": 3, "dry_run": False}
    assert left(queue) == 3
    assert port.told[0] == (2, None, "queue default")


def test_ended_tasks_of_one_queue(queue: Queue) -> None:
    """The others are left alone; a queue that there is not is told."""
    result, _ = run("maintenance.prune", {"older_than": 0, "queue": "other"})

    assert result["queues"] == {"other": 0}
    assert left(queue) == 6
    assert fail("maintenance.prune", {"older_than": 0, "queue": "absent"})["code"] == "queue_not_found"


def test_a_cancelled_prune_stops(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the batch in which the claim was lost it goes no further, and reports nothing."""
    monkeypatch.setattr(shipped, "BATCH", 1)
    port = MemoryPort()
    port.stale = True
    claim = claim_of("maintenance.prune", {"older_than": "7d"})

    outcome = run_sync(
        RunContext(claim, port, run_here), claim, registry.require(claim.name), Defaults(RetryPolicy(), None)
    )

    assert outcome is None
    assert left(queue) == 5


@pytest.fixture
def products(tmp_path: Path) -> Path:
    """A folder with old and new files, hidden ones, and links that lead out of it."""
    top = tmp_path / "products"
    kept = tmp_path / "kept"
    for path in ("a.png", "night/b.png", "night/c.fits", "night/.1-2-3.part.d.png", ".hidden/e.png", "night/new.png"):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(b"1234")
    kept.mkdir()
    (kept / "f.png").write_bytes(b"1234")
    (top / "link.png").symlink_to(kept / "f.png")
    (top / "linked").symlink_to(kept, target_is_directory=True)
    for each in (*top.rglob("*"), *top.glob(".hidden/*"), kept / "f.png"):
        if each.name != "new.png" and each.is_file() and not each.is_symlink():
            os.utime(each, (0, time.time() - 10 * DAY))
    return top


def files(folder: Path) -> set[str]:
    """What lies in a folder, links included."""
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_symlink() or each.is_file()}


def test_old_files_go(products: Path) -> None:
    """Those whose names fit and that are old enough: no hidden one, no link, nothing that a link leads to."""
    before = files(products)
    params = {"older_than": "7d", "folder": str(products), "pattern": "*.png"}

    told, _ = run("maintenance.prune", params | {"dry_run": True})
    assert (told["files"], told["bytes"], files(products)) == (2, 8, before)

    result, _ = run("maintenance.prune", params)
    assert result == told | {"dry_run": False}
    assert result["paths"] == [str(products / "a.png"), str(products / "night/b.png")]
    assert before - files(products) == {"a.png", "night/b.png"}
    assert (products.parent / "kept/f.png").exists()


def test_data_of_servers_is_left_out(products: Path) -> None:
    """A folder that holds the data of a PostgreSQL server is passed over with all below, wherever it lies."""
    (products / "night/PG_VERSION").write_text("18\n")
    (products / "night/base").mkdir()
    (products / "night/base/1.png").write_text("x")

    assert prune_files(products, "*", 0).paths == [str(products / "a.png")]
    assert prune_files(products / "night", "*", 0).files == 0


def test_a_folder_reached_by_a_link(products: Path) -> None:
    """Where the named folder is a link, what it leads to is judged and pruned: it was named."""
    link = products.parent / "by-link"
    link.symlink_to(products, target_is_directory=True)

    assert prune_files(link, "*.fits", DAY).paths == [str(products / "night/c.fits")]


def test_dangerous_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root, what lies right below it, homes and what is above them, and all around the queue's own files."""
    home = tmp_path / "people" / "me"
    data = tmp_path / "data" / "absurd"
    for each in (home / "products", data / "inner"):
        each.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "root").symlink_to("/")
    refused = ["/", "/tmp", "/etc/", "products", "~", "", str(tmp_path / "root"), str(tmp_path / "root/usr")]
    refused += map(str, (home, home.parent, tmp_path, data, data / "inner", data.parent, home / "x/.."))

    for folder in refused:
        with pytest.raises(UnsafeFolderError):
            prune_files(folder, "*", 0, guarded=[data])
    for pattern in ("/*", "a/*", "**/*", ".*", "../*"):
        with pytest.raises(UnsafeFolderError, match="pattern"):
            prune_files(home / "products", pattern, 0)
    with pytest.raises(NotADirectoryError):
        prune_files(home / "absent", "*", 0)
    assert prune_files(home / "products", "*", 0, guarded=[data]).files == 0
    monkeypatch.setenv("ABSURD_HOME", str(data))
    params = {"older_than": 0, "folder": str(data), "pattern": "*"}
    assert fail("maintenance.prune", params)["code"] == "prune_folder_unsafe"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "older_than: Field required"),
        ({"older_than": -1}, "older_than: .*at least 0 seconds"),
        ({"older_than": "nan"}, "older_than: .*not a duration"),
        ({"older_than": float("inf")}, "older_than: .*at least 0 seconds"),
        ({"older_than": "soon"}, "older_than: .*'soon' is not a duration"),
        ({"older_than": 1, "folder": "/a/b"}, "folder and pattern belong together"),
        ({"older_than": 1, "pattern": "*"}, "folder and pattern belong together"),
        ({"older_than": 1, "folder": "/a/b", "pattern": "*", "queue": "q"}, "exclude one another"),
    ],
)
def test_wrong_params(params: dict[str, Any], message: str) -> None:
    """Each is named at the spawn."""
    with pytest.raises(InvalidParamsError, match=message):
        registry.require("maintenance.prune").load_params(params)


def test_spans_of_time() -> None:
    """Numbers are seconds, text has its units."""
    load = registry.require("maintenance.prune").load_params

    assert [load({"older_than": each}).older_than for each in (90, "90", "1h30m", "2d")] == [90, 90, 5400, 2 * DAY]
