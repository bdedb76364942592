"""Control groups: how the kernel limits the memory of a run with all it has started (Linux).

Version 1 is used where the worker may write to its own group.  Version 2 lets no group hold both processes and
limited groups, so it is used where the worker's group was delegated to it (``Delegate=yes`` of systemd): then the
processes that are in there move to a group of their own first.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from absurd.workers.host.machine import start_of
from absurd.workers.host.tree import read

LEAF = "absurd-worker"
"""Where processes of a delegated group go, so that it can hold limited ones."""
PREFIX = "absurd-run-"

_UNLIMITED = {1: "-1", 2: "max"}


class Group:
    """A control group for the processes of one child."""

    def __init__(self, path: Path, version: int) -> None:
        self.path = path
        self._version = version

    def limit(self, size: int | None) -> None:
        """Let its processes hold `size` bytes together, without swapping; None: no limit.  Raises OSError."""
        text = _UNLIMITED[self._version] if size is None else str(size)
        names = ("memory.max", "memory.peak", "memory.swap.max", "memory.oom.group")
        if self._version == 1:
            names = ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.memsw.limit_in_bytes", "")
        largest, peak, swap, together = names
        steps = [(largest, text), (swap, text if self._version == 1 else _UNLIMITED[2] if size is None else "0")]
        if size is None:
            steps.reverse()  # in version 1 the limit with swap is never the lower one
        for name, value in steps:
            if name == largest or (self.path / name).exists():  # not every kernel counts swap
                (self.path / name).write_text(value)
        with suppress(OSError):  # before Linux 6.12 a peak of version 2 is that of the group's whole life
            (self.path / peak).write_text("0")
        if together:
            (self.path / together).write_text("1")

    def add(self, pid: int) -> None:
        """Have a process in it, and what it starts from now on.  Raises OSError."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def peak(self) -> int | None:
        """The most that its processes held at once, in bytes; None where the kernel does not tell."""
        with suppress(OSError, ValueError):
            return int((self.path / ("memory.max_usage_in_bytes" if self._version == 1 else "memory.peak")).read_text())
        return None

    def kills(self) -> int:
        """How many of its processes were killed because it was full."""
        return count_kills(self.path / ("memory.oom_control" if self._version == 1 else "memory.events")) or 0

    def remove(self) -> None:
        """Remove it, once it is empty."""
        with suppress(OSError):  # what is left is removed by the next worker
            self.path.rmdir()


class Groups:
    """The place where this process may make control groups."""

    def __init__(self, path: Path, version: int) -> None:
        self.path = path
        self.version = version
        self._number = 0

    @classmethod
    def find(cls, root: Path = Path("/")) -> Groups:
        """The place, with what workers that are gone have left there removed.  Raises OSError where there is none."""
        own, version = own_group(root)
        if version == 2:
            own = own.parent if own.name == LEAF else own
            _share_memory(own)
        groups = cls(own, version)
        groups.sweep()
        trial = groups.make()
        try:
            trial.limit(1 << 30)
        finally:
            trial.remove()
        return groups

    def make(self) -> Group:
        """A new, empty group.  Raises OSError."""
        self._number += 1
        path = self.path / f"{PREFIX}{os.getpid()}-{start_of(os.getpid())}-{self._number}"
        path.mkdir()
        return Group(path, self.version)

    def sweep(self) -> None:
        """Remove the groups of processes that are gone."""
        for path in self.path.glob(f"{PREFIX}*"):
            pid, _, start = path.name.removeprefix(PREFIX).rpartition("-")[0].partition("-")
            with suppress(OSError, ValueError):  # it has processes; or it is nothing of ours
                if not _lives(int(pid), start):
                    path.rmdir()


def own_group(root: Path = Path("/")) -> tuple[Path, int]:
    """The folder of the control group that counts this process' memory, and its version.  Raises OSError."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if "memory" in controllers.split(","):  # version 1, or both side by side
            top, version = root / "sys/fs/cgroup/memory", 1
        elif not controllers:
            top, version = root / "sys/fs/cgroup", 2
        else:
            continue
        for path in (top / name.strip("/"), top):  # a container sees its own group as the top
            if (path / ("memory.oom_control" if version == 1 else "cgroup.controllers")).exists() or (
                path / "memory.events"
            ).exists():
                return path, version
    raise FileNotFoundError(errno.ENOENT, "no control group counts memory", str(root / "sys/fs/cgroup"))


def count_kills(file: Path) -> int | None:
    """How many processes a control group's file says were killed for want of memory; None where it does not."""
    with suppress(OSError, ValueError, IndexError, StopIteration):
        return int(next(line for line in read(file).splitlines() if line.startswith(b"oom_kill ")).split()[1])
    return None


def find_events(root: Path = Path("/")) -> Path | None:
    """The file in which this process' control group counts what was killed for want of memory; None without one."""
    with suppress(OSError):
        path, version = own_group(root)
        return path / ("memory.oom_control" if version == 1 else "memory.events")
    return None


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes of this control group were killed for want of memory; None where that cannot be told."""
    events = find_events(root)
    return None if events is None else count_kills(events)


def _share_memory(own: Path) -> None:
    """Let groups below a group of version 2 have limits of memory.  Raises OSError."""
    control = own / "cgroup.subtree_control"
    if "memory" in control.read_text().split():
        return
    try:
        control.write_text("+memory")
        return
    except OSError as error:
        if error.errno != errno.EBUSY or not _is_delegated(own):
            raise
    leaf = own / LEAF
    leaf.mkdir(exist_ok=True)
    for pid in (own / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):  # ended meanwhile
            (leaf / "cgroup.procs").write_text(pid)
    control.write_text("+memory")


def _is_delegated(own: Path) -> bool:
    """Whether systemd says that the group is ours to arrange: else its processes are somebody else's to move."""
    for name in ("trusted.delegate", "user.delegate"):
        with suppress(OSError):
            if os.getxattr(own, name) == b"1":
                return True
    return False


def _lives(pid: int, start: str) -> bool:
    try:
        return start_of(pid) == start
    except FileNotFoundError:
        return False
