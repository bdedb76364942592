"""Whether the process of another worker on this machine is certainly gone; a number alone may be taken anew."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_PROC = Path("/proc")


def describe_process(home: Path) -> str | None:
    """What tells this process from any other: machine since its boot, name space of pids, home, start.

    All but the last part, behind the last ``/``, is the same for processes that can judge one another:
    they see each other's pids, and each other's receipts below `home`.  None where that cannot be told.
    """
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
        where = home.stat()
        start = start_of(os.getpid())
    except OSError:
        return None
    if start is None:
        return None
    folder = hashlib.sha256(f"{home.resolve()} {where.st_dev} {where.st_ino}".encode()).hexdigest()[:12]
    return f"{boot}/{space}/{folder}/{start}"


def is_gone(pid: int, machine: str) -> bool:
    """Whether the process is certainly gone that described itself so, on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # there, and another user's
        pass
    try:
        start = start_of(pid)
    except OSError:  # hidden from us
        return False
    return start != machine.rpartition("/")[2]


def start_of(pid: int) -> str | None:
    """When a process was started, in ticks since the boot; None for one that has ended and was not waited for.

    Raises OSError.
    """
    # The name in parentheses may hold anything; the state comes behind it, the start 19 fields later.
    fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    if fields[0] in "ZX" and len(list((_PROC / str(pid) / "task").iterdir())) <= 1:
        return None
    return fields[19]
