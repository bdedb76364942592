"""What a worker and a scheduler cost that have nothing to do: processor time, and statements."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from absurd.bench.arena import QUEUE, STOPPING, Arena, until
from absurd.bench.figures import Figure
from absurd.bench.tap import Tap
from absurd.config import Settings
from absurd.errors import ExecutionError
from absurd.orphans import stop_with_parent

SETTLING = 12.0
"""Seconds that both get to come to rest."""


def measure(arena: Arena, *, seconds: float) -> list[Figure]:
    """Leave a worker and a scheduler alone for so long."""
    programs = {"worker": ["absurd.cli.worker", "-q", QUEUE], "scheduler": ["absurd.cli.scheduler"]}
    figures = []
    with TemporaryDirectory(prefix="absurd-") as folder, ExitStack() as stack:
        taps, processes = {}, {}
        for name, command in programs.items():
            tap = taps[name] = stack.enter_context(Tap(arena.address, Path(folder) / name))
            settings = replace(arena.settings, database_url=tap.url)
            processes[name] = stack.enter_context(_running(command, settings))
        until(lambda: any(each["state"] == "running" for each in arena.client.list_workers()), "a worker to register")
        time.sleep(SETTLING)
        begun = time.monotonic()
        before = {name: (_spent(processes[name].pid), taps[name].counts()) for name in programs}
        time.sleep(seconds)
        for name in programs:
            if processes[name].poll() is not None:
                raise ExecutionError(f"the {name} ended with exit code {processes[name].returncode}")
            spent, counts = _spent(processes[name].pid), taps[name].counts()
            elapsed = time.monotonic() - begun
            made = counts - before[name][1]
            share = 100 * (spent - before[name][0]) / elapsed
            figures.append(Figure(f"{name}, share of a core", share, "%", higher=False))
            a_minute = 60 * made.total() / elapsed
            figures.append(Figure(f"{name}, statements", a_minute, "/min", higher=False))
    return figures


@contextmanager
def _running(command: list[str], settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=os.environ | settings.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=stop_with_parent,  # noqa: PLW1509 - one system call, and no lock
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOPPING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _spent(pid: int) -> float:
    """Seconds of processor time of a process and its children, by the thread."""
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # ended meanwhile
            nanoseconds += int((task / "schedstat").read_text().split()[0])
            children = (task / "children").read_text().split()
            nanoseconds += int(1e9 * sum(_spent(int(child)) for child in children))
    return nanoseconds / 1e9
