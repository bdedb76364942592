"""Receipts: what was finished while the database was away counts, once, and for the run that did it."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from outage import Outage, outage_below, outlive, wait_until
from ready_server import ReadyServer

from absurd.model import Task
from absurd.workers import AbsurdWorker
from absurd.workers import worker as worker_module


@pytest.fixture
def outage(tmp_path_factory: pytest.TempPathFactory, ready_server: ReadyServer) -> Iterator[Outage]:
    """A server of its own, which each of these tests takes away."""
    folder = tmp_path_factory.mktemp("outage")
    ready_server.lay(folder / "home")
    with outage_below(folder) as made:
        yield made


def runs(task: Task) -> list[tuple[int, str]]:
    return [(run.attempt, run.state) for run in task.runs]


def finish_unheard(outage: Outage, **params: Any) -> tuple[str, Path]:
    """A worker finishes a task while the database is away and is killed; its task's id and its receipt."""
    worker = outage.start_worker()
    task_id = outage.hold(**params)
    wait_until(outage.at_work)
    outage.stop_server()
    outage.release()
    wait_until(outage.receipts)
    worker.kill()
    [receipt] = outage.receipts()
    return str(task_id), receipt


@pytest.mark.parametrize("frozen", [False, True], ids=["stopped", "mute"])
def test_a_finished_run_outlives_an_outage_longer_than_its_lease(outage: Outage, *, frozen: bool) -> None:
    """Its receipt is on disk, its outcome is recorded when the database is back: attempt 1, one run (B61, B115)."""
    done = outlive(outage, lease=1.5, frozen=frozen)

    assert runs(done) == [(1, "completed")]
    assert done.result == "attempt 1"
    assert (outage.folder / "task-started").read_text().endswith(" 1")
    assert not outage.aside("stale") and not outage.aside("damaged")


def test_the_receipt_of_a_killed_worker_is_delivered_by_the_next(outage: Outage) -> None:
    """Delivered before the dead one is given up: its run counts, with its attempt and its worker, and none follows."""
    task_id, receipt = finish_unheard(outage)
    first = outage.workers[0].process.pid
    assert stat.S_IMODE(receipt.stat().st_mode) == 0o600
    for folder in (receipt.parent, receipt.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    outage.start_server()
    second = outage.start_worker()
    done = outage.client.wait(task_id, timeout=60)

    assert runs(done) == [(1, "completed")]
    assert str(done.runs[0].worker).endswith(f":{first}")
    wait_until(lambda: second.says("worker_succeeded"))
    wait_until(lambda: not receipt.parent.exists())
    assert outage.client.get_queue_stats("default").completed == 1


async def test_a_worker_that_leaves_in_an_outage_leaves_its_receipts(
    outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped with nobody to report to, it gives its receipts free; another in the same process may deliver them."""
    monkeypatch.setattr(worker_module, "LAST_WORD_SECONDS", 0.2)
    settings = replace(outage.settings, database_url=outage.url, imports=("demo_executors",), worker_poll_interval=0.1)
    worker = AbsurdWorker(settings=settings)
    running = asyncio.create_task(worker.run())
    task_id = await asyncio.to_thread(outage.hold)
    await asyncio.to_thread(wait_until, outage.at_work)
    await asyncio.to_thread(outage.stop_server)
    outage.release()
    await asyncio.to_thread(wait_until, outage.receipts)
    await worker.stop(grace=0)
    await running
    assert outage.receipts()

    await asyncio.to_thread(outage.start_server)
    after = AbsurdWorker(settings=settings)
    running = asyncio.create_task(after.run())
    done = await asyncio.to_thread(outage.client.wait, task_id, timeout=60)
    await after.stop(grace=5)
    await running

    assert runs(done) == [(1, "completed")]
    assert not outage.receipts()


def test_artifacts_of_a_delivered_completion_are_published(outage: Outage, tmp_path: Path) -> None:
    """The file gets its final name from whoever delivers the receipt."""
    path = tmp_path / "made.txt"
    task_id, _ = finish_unheard(outage, artifact=str(path))
    assert not path.exists()

    outage.start_server()
    outage.start_worker()
    done = outage.client.wait(task_id, timeout=60)

    assert runs(done) == [(1, "completed")]
    assert path.read_text() == "attempt 1"


def test_what_a_delivered_run_has_spawned_exists_once(outage: Outage) -> None:
    """A task that a run has spawned is in its receipt, is made with its completion, and runs."""
    task_id, receipt = finish_unheard(outage, spawn={"a": 2, "b": 3})
    assert "demo.add" in receipt.read_text()

    outage.start_server()
    assert len(outage.client.list_tasks()) == 1
    outage.start_worker()
    done = outage.client.wait(task_id, timeout=60)

    [child] = [each["id"] for each in outage.client.list_tasks() if each["id"] != task_id]
    assert outage.client.wait(child, timeout=60).result == {"sum": 5}
    assert runs(done) == [(1, "completed")]
    wait_until(lambda: not outage.receipts())
    assert len(outage.client.list_tasks()) == 2


def test_a_receipt_that_comes_too_late_changes_nothing(outage: Outage) -> None:
    """The fence refuses it: that is said once, the file is put aside, and the other run is the one that counts."""
    task_id, receipt = finish_unheard(outage)
    outage.start_server()
    with psycopg.connect(outage.url, autocommit=True) as connection:
        assert connection.execute("select absurd.give_up_worker(id) from absurd.worker").fetchall() == [(1,)]

    second = outage.start_worker()
    done = outage.client.wait(task_id, timeout=60)
    wait_until(lambda: not receipt.parent.exists())

    assert [state for _, state in runs(done)] == ["lost", "completed"]
    assert [each.name for each in outage.aside("stale")] == [f"{receipt.parent.name}-{receipt.name}"]
    assert second.log.read_text().count("stale_claim") == 1


def test_a_damaged_receipt_stops_nobody(outage: Outage) -> None:
    """What can be read is delivered, what cannot is put aside, and the worker works."""
    task_id, receipt = finish_unheard(outage)
    whole = receipt.read_bytes()
    refused = whole.replace(b"attempt 1", rb"attempt \\u0000")  # PostgreSQL has no such character
    receipt.write_bytes(b'{"version": 1}\n\xff\x00\n' + refused + whole + whole[: len(whole) // 2])
    (receipt.parent / "7-000001.jsonl").write_bytes(b"")

    outage.start_server()
    second = outage.start_worker()
    done = outage.client.wait(task_id, timeout=60)
    other = outage.client.wait(outage.client.spawn("demo.add", {"a": 1, "b": 2}), timeout=60)

    assert runs(done) == [(1, "completed")]
    assert other.result == {"sum": 3}
    wait_until(lambda: not receipt.parent.exists())
    assert receipt.name in "".join(each.name for each in outage.aside("damaged"))
    assert second.says("receipt_damaged") and second.says("receipt_refused")
    assert second.process.poll() is None


def test_a_living_workers_receipts_are_its_own(outage: Outage) -> None:
    """Another worker on the host leaves them alone while their owner lives, even if that does nothing."""
    first = outage.start_worker()
    outage.hold()
    wait_until(outage.at_work)
    task_id = outage.hold("other")
    wait_until(lambda: outage.at_work("other"))
    outage.stop_server()
    outage.release()
    wait_until(outage.receipts)
    os.kill(first.process.pid, signal.SIGSTOP)
    try:
        left = outage.receipts()
        outage.start_server()
        second = outage.start_worker()
        wait_until(lambda: second.says("worker_started"))
        outage.client.wait(outage.client.spawn("demo.add", {"a": 1, "b": 1}), timeout=60)
        assert outage.receipts() == left
        assert not second.says("worker_succeeded") and not second.says("receipts_delivered")
    finally:
        os.kill(first.process.pid, signal.SIGCONT)
    outage.release("other")

    assert runs(outage.client.wait(task_id, timeout=60)) == [(1, "completed")]
    wait_until(lambda: not outage.receipts())


def test_a_worker_that_died_is_succeeded_at_once(outage: Outage) -> None:
    """The next worker on the machine takes its runs over, though its lease would last for an hour."""
    first = outage.start_worker(lease=3600)
    task_id = outage.hold()
    wait_until(outage.at_work)
    first.kill()

    outage.release()
    second = outage.start_worker(lease=3600)
    done = outage.client.wait(task_id, timeout=60)

    assert [state for _, state in runs(done)] == ["lost", "completed"]
    assert second.says("worker_succeeded")


def test_a_worker_of_another_home_is_not_succeeded(outage: Outage, tmp_path: Path) -> None:
    """Whoever cannot see the receipts of a dead worker does not have it given up: they would come too late."""
    task_id, _ = finish_unheard(outage)
    outage.start_server()
    other = outage.start_worker(home=tmp_path)
    outage.client.wait(outage.client.spawn("demo.add", {"a": 1, "b": 1}), timeout=60)
    assert not other.says("worker_succeeded")

    outage.start_worker()

    assert runs(outage.client.wait(task_id, timeout=60)) == [(1, "completed")]


def test_without_a_place_for_receipts_a_worker_goes_on(outage: Outage) -> None:
    """A disk that takes nothing is said once; the outcome is in memory and is recorded when the database is back."""
    (outage.settings.home / "receipts").write_text("in the way")
    worker = outage.start_worker()
    task_id = outage.hold()
    wait_until(outage.at_work)
    outage.stop_server()
    outage.release()
    wait_until(lambda: worker.says("receipts_failed"))
    outage.start_server()

    assert runs(outage.client.wait(task_id, timeout=60)) == [(1, "completed")]
    assert worker.log.read_text().count("receipts_failed") == 1


def test_nothing_is_written_while_the_database_is_there(outage: Outage) -> None:
    """Receipts are for outages: the folder stays empty."""
    outage.start_worker()
    ids = [outage.client.spawn("demo.add", {"a": n, "b": n}) for n in range(50)]
    for each in ids:
        outage.client.wait(each, timeout=60)

    assert not list((outage.settings.home / "receipts").iterdir())
