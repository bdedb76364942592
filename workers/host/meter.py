"""Memory and time that a run uses of its process, seen from within."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from absurd.workers.host.tree import read

_RESET_PEAK = b"5"
_UNIT = 1024 if sys.platform == "darwin" else 1
"""What ru_maxrss counts in, by KiB."""


class Meter:
    """The most memory that one process of a run held, and the time of a processor that all of them took."""

    def __init__(self, most_runs: int | None = None, most_memory: int | None = None) -> None:
        self._most_runs = most_runs
        self._most_memory = most_memory
        self._runs = 0
        self._children_kib = 0

    def start(self) -> None:
        """A run begins: its peak is not that of those before."""
        self._runs += 1
        self._children_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        with suppress(OSError):  # a kernel that cannot
            descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY)
            try:
                os.write(descriptor, _RESET_PEAK)
            finally:
                os.close(descriptor)

    def read(self) -> tuple[int, int]:
        """The peak in KiB, of this process or of one that it has waited for; milliseconds since the process began."""
        own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        peak = own.ru_maxrss if children.ru_maxrss <= self._children_kib else max(own.ru_maxrss, children.ru_maxrss)
        seconds = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        return peak // _UNIT, int(seconds * 1000)

    def worn_out(self) -> str | None:
        """Why this process should be replaced after the run that has ended; None if it should not."""
        if self._most_runs is not None and self._runs >= self._most_runs:
            return "runs"
        if self._most_memory is not None and _own_memory() > self._most_memory:
            return "memory"
        return None


@contextmanager
def limited(size: int, _ctx: Any) -> Iterator[None]:
    """A limit of `size` bytes for the data of this process, and of each that it starts.

    What is reserved already and not used does not count.  The limit ends with the executor's function: to tell its
    MemoryError takes memory.
    """
    before = resource.getrlimit(resource.RLIMIT_DATA)
    reserved, used = _status(b"VmData:"), _status(b"RssAnon:")
    most = size + reserved - used
    if before[1] != resource.RLIM_INFINITY:
        most = min(most, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _own_memory() -> int:
    """What this process holds without the pages of files, in bytes; 0 where nothing tells.  Cheap: after each run."""
    with suppress(OSError, ValueError, IndexError):
        _, resident, shared = map(int, read("/proc/self/statm").split()[:3])
        return (resident - shared) * resource.getpagesize()
    return 0


def _status(name: bytes) -> int:
    """A line of this process' status, in bytes; 0 where there is none."""
    with suppress(OSError, ValueError):
        lines = read("/proc/self/status").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)
    return 0
