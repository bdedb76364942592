"""A Dask cluster of real processes: a scheduler and workers, each of which can be killed and started again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent

LACKING = """
import sys
class Lacking:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {names!r} else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Lacking, sys.meta_path)
"""
"""A ``sitecustomize.py`` for a Python that lacks packages."""


def without(folder: Path, *names: str) -> str:
    """What goes on PYTHONPATH of a program that shall not find these packages."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(LACKING.format(names=names))
    return str(folder)


class DaskCluster:
    """The processes; `folder` takes their logs and is where they work."""

    def __init__(self, folder: Path, *, scheduler_path: str = "") -> None:
        self._folder = folder
        self._scheduler_path = scheduler_path
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, workers: int = 2, threads: int = 2) -> None:
        """Start a scheduler, which knows no absurd, and workers."""
        host, port = self.address.removeprefix("tcp://").split(":")
        where = ["--host", host, "--port", port, "--dashboard-address", "127.0.0.1:0", "--no-show"]
        self.scheduler = self._run("distributed.cli.dask_scheduler", where, self._scheduler_path)
        for _ in range(workers):
            self.add_worker(threads)

    def add_worker(
        self,
        threads: int = 2,
        before: Sequence[str] = (),
        *,
        nanny: bool = False,
        resources: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start one more worker, by the command `before` it, if any, and with `environ` beside what is set here."""
        options = [self.address, "--nthreads", str(threads), "--no-dashboard", "--death-timeout", "60"]
        options += ["--nanny" if nanny else "--no-nanny", *(["--resources", resources] if resources else [])]
        options += ["--local-directory", str(self._folder / "spill")]
        worker = self._run("distributed.cli.dask_worker", options, str(HERE), before, environ)
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        """Kill all of them, the scheduler first: it would tell of workers that were lost."""
        for each in [*([self.scheduler] if self.scheduler else []), *self.workers]:
            each.kill()
            each.wait()
        self.workers.clear()
        self.scheduler = None

    def log(self) -> str:
        """What they have written."""
        return "".join(each.read_text() for each in sorted(self._folder.glob("*.log")))

    def _run(
        self,
        module: str,
        options: Sequence[str],
        path: str,
        before: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        command = [*before, sys.executable, "-m", module, *options]
        with (self._folder / f"{time.monotonic_ns()}.log").open("wb") as log:
            environ = {**os.environ, "PYTHONPATH": path, **(environ or {})}
            return subprocess.Popen(command, cwd=self._folder, env=environ, stdout=log, stderr=subprocess.STDOUT)


def ancestors(pid: int) -> list[int]:
    """The parents of a process, the nearest first."""
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found
