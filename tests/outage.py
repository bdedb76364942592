"""A server of a test's own that goes away, worker processes that see it go, and what they leave on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from absurd import SyncAbsurdClient
from absurd.config import load_settings
from absurd.embedded import EmbeddedServer
from absurd.model import Task


class Worker:
    """A worker process, and what it has said."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "absurd.cli.worker", "--import", "demo_executors"],
                env=environment,
                cwd="/",
                stderr=file,
            )

    def says(self, event: str) -> bool:
        return event in self.log.read_text()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


class Outage:
    """The server, its workers and their receipts, all below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = load_settings(environ={}, home=folder / "home")
        self.server = EmbeddedServer(self.settings)
        self.url = self.server.start()
        self.client = SyncAbsurdClient(settings=self.settings)
        self.client.connect()
        self.workers: list[Worker] = []

    def start_worker(self, *, lease: float = 30.0, home: Path | None = None) -> Worker:
        environment = os.environ | {
            "ABSURD_DATABASE_URL": self.url,
            "ABSURD_HOME": str(home or self.settings.home),
            "ABSURD_WORKER_LEASE": str(lease),
            "ABSURD_WORKER_HEARTBEAT_INTERVAL": str(min(5.0, lease / 5)),
            "ABSURD_WORKER_POLL_INTERVAL": "0.1",
            "PYTHONPATH": str(Path(__file__).resolve().parent),
        }
        worker = Worker(environment, self.folder / f"worker-{len(self.workers)}.log")
        self.workers.append(worker)
        return worker

    def hold(self, name: str = "task", **params: Any) -> UUID:
        """Spawn a task that is at work until `release` is called with its name."""
        held = {"started": str(self.folder / f"{name}-started"), "release": str(self.folder / f"{name}-release")}
        return self.client.spawn("demo.hold", held | params)

    def at_work(self, name: str = "task") -> bool:
        started = self.folder / f"{name}-started"
        return started.exists() and bool(started.read_text())

    def release(self, name: str = "task") -> None:
        (self.folder / f"{name}-release").touch()

    def stop_server(self) -> None:
        self.server.stop("immediate")

    def start_server(self) -> None:
        self.server.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """No process of the server moves: connections stay open, and nobody answers."""
        pid = self.server.status().pid
        assert pid is not None
        pids = [pid, *children_of(pid)]
        for each in pids:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in pids:
                os.kill(each, signal.SIGCONT)

    def receipts(self) -> list[Path]:
        """Receipts that wait for their delivery."""
        return sorted((self.settings.home / "receipts").glob("*/[0-9]*/*.jsonl"))

    def aside(self, where: str) -> list[Path]:
        return sorted((self.settings.home / "receipts").glob(f"*/{where}/*"))

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.client.close()
        self.server.stop("immediate")
        self.server.destroy()


@contextmanager
def outage_below(folder: Path) -> Iterator[Outage]:
    """An `Outage` that is taken down in the end."""
    made = Outage(folder)
    try:
        yield made
    finally:
        made.end()


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition to hold."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.02)


def outlive(outage: Outage, *, lease: float, frozen: bool) -> Task:
    """A task ends in an outage that is longer than its lease; what became of it once that was over."""
    worker = outage.start_worker(lease=lease)
    task_id = outage.hold()
    wait_until(outage.at_work)
    if frozen:
        with outage.frozen():
            outage.release()
            wait_until(outage.receipts)
            wait_until(lambda: worker.says("lease_over"), lease + 60)
    else:
        outage.stop_server()
        outage.release()
        wait_until(outage.receipts)
        wait_until(lambda: worker.says("lease_over"), lease + 60)
        outage.start_server()
    done = outage.client.wait(task_id, timeout=60)
    wait_until(lambda: not outage.receipts())
    # The worker itself came back.
    again = outage.client.wait(outage.client.spawn("demo.add", {"a": 1, "b": 1}), timeout=60)
    assert again.result == {"sum": 2}
    assert again.runs[0].worker == done.runs[0].worker
    return done


def children_of(pid: int) -> list[int]:
    """The processes that this one has started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
    return found
