"""What a process costs: time, processor time of its own and of the server's, and memory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from absurd.orphans import stop_with_parent

LOOK_SECONDS = 0.005
"""Between two looks at a process: how far off its time is at most."""
MEMORY_LOOKS = 4
"""How many looks come for each look at its memory, which costs more."""


@dataclass(frozen=True, slots=True)
class Spent:
    """By one process with all that it started."""

    code: int
    """With which it ended; below 0: by which signal."""
    told: str
    """The last line that it printed."""
    wall: float
    cpu: float
    server_cpu: float | None
    """Of the backends that ended meanwhile, on the whole server; None where that is another machine."""
    peak: int
    """Bytes that were resident; shared pages count for each process.  0 where the system does not tell."""


def spend(command: Sequence[str], environment: Mapping[str, str], seconds: float) -> Spent:
    """Run a command to its end; kill it after that time.  `server_cpu` is for the caller to add."""
    with TemporaryFile() as log:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=stop_with_parent,  # noqa: PLW1509 - one system call, and no lock
        )
        peak, looks, ended = 0, 0, 0
        try:
            while True:
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
                wall = time.perf_counter() - begun
                if ended:
                    break
                if looks % MEMORY_LOOKS == 0:
                    peak = max(peak, _resident(process.pid), _most_resident(process.pid))
                looks += 1
                if wall > seconds:
                    process.kill()
                time.sleep(LOOK_SECONDS)
        finally:
            if not ended:
                process.kill()
                process.wait()
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    told = lines[-1].strip() if lines else "silent"
    if wall > seconds:
        told = f"took longer than {seconds:.0f} s"
    return Spent(process.returncode, told, wall, usage.ru_utime + usage.ru_stime, None, peak)


def server_of(backend: int, database: str) -> int | None:
    """The process of the server whose backend for `database` that is; None if it runs on another machine."""
    with suppress(OSError):
        if database.encode() in Path(f"/proc/{backend}/cmdline").read_bytes():
            return int(_stat(backend)[1])
    return None


def spent_by_children(pid: int) -> float:
    """Seconds of processor time of the children of a process that have ended."""
    fields = _stat(pid)
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def spent_by(pid: int) -> float:
    """Seconds of processor time of a process, without what it has started."""
    return sum(map(int, _stat(pid)[11:13])) / os.sysconf("SC_CLK_TCK")


def spent_by_all(pid: int) -> float:
    """Seconds of processor time of a process and of all it has started, also those that have ended."""
    ticks, waiting = 0, [pid]
    while waiting:
        each = waiting.pop()
        with suppress(OSError):  # ended meanwhile: its time is among that of the children of the one above
            ticks += sum(map(int, _stat(each)[11:15]))
            for task in Path(f"/proc/{each}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """What the system tells of a process, from its state on; a name may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _most_resident(pid: int) -> int:
    """The most that a process had resident since it began to run its program."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _resident(pid: int) -> int:
    """What a process and its descendants have resident now."""
    with suppress(OSError, ValueError):
        here = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return here + sum(_resident(int(each)) for each in children)
    return 0
