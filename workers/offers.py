"""What a worker offers to tasks that need something: what its machine has, and what it was told to offer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

GIB = 1024**3

MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container's share of the memory stands, in bytes: control groups of version 2 and 1."""


def offers(told: Mapping[str, float] | None = None) -> dict[str, float]:
    """What is found on this machine; what `told` names goes before it."""
    found: dict[str, float] = {"cpu": cores()}
    memory = memory_gib()
    if memory is not None:
        found["memory_gib"] = memory
    return found | dict(told or {})


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not a Linux
        return os.cpu_count() or 1


def memory_gib(root: Path = Path("/")) -> float | None:
    """Memory that this process may use, in GiB: of the machine, or of its container; None where nothing tells."""
    sizes = [_read_bytes(root / path.lstrip("/")) for path in MEMORY_LIMITS] + [_total_bytes(root / "proc/meminfo")]
    known = [size for size in sizes if size is not None]
    return round(min(known) / GIB, 2) if known else None


def _read_bytes(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such control group, or "max": no limit
        return None


def _total_bytes(path: Path) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")), None)
