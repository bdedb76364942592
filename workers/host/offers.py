"""What a worker offers to tasks that need something: what its machine has, and what it was told to offer."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from absurd.disk import ask_disk_here

DISK_SECONDS = 5.0
"""How long the scratch disk may take to answer: one over the network may hang."""
GIB = 1024**3

MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container's share of the memory stands, in bytes: control groups of version 2 and 1."""


GPU = re.compile(r"nvidia\d+")
"""What the devices of graphics processors are called; ``nvidiactl`` and the like are none."""


def offers(told: Mapping[str, float] | None = None, scratch: Path | None = None) -> dict[str, float]:
    """What is found on this machine, with `scratch` as its scratch disk; what `told` names goes before it."""
    found: dict[str, float | None] = {
        "cpu": cores(),
        "memory_gib": memory_gib(),
        "scratch_gib": None if told and "scratch_gib" in told else scratch_gib(scratch),
        "gpu": gpus() or None,
    }
    return {name: amount for name, amount in found.items() if amount is not None} | dict(told or {})


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not a Linux
        return os.cpu_count() or 1


def gpus(root: Path = Path("/"), visible: str | None = None) -> int:
    """Graphics processors that this process may use: those of the machine, or of them what CUDA_VISIBLE_DEVICES names.

    Counted by their devices: no program of the driver is started for it.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible
    try:
        found = sum(GPU.fullmatch(each.name) is not None for each in (root / "dev").iterdir())
    except OSError:
        found = 0
    if visible is None or not found:
        return found
    named = list(
        itertools.takewhile(lambda word: word and not word.startswith("-"), map(str.strip, visible.split(",")))
    )
    return min(found, len(named))  # as CUDA reads it: what comes after the first that is no device is not seen


def scratch_gib(folder: Path | None = None) -> float | None:
    """Free space of a folder, made or not, in GiB; None where it cannot be told, or where its disk hangs.

    None for `folder`: the folder for temporary files.
    """
    try:
        free = ask_disk_here(partial(_free_bytes, folder), DISK_SECONDS)
    except OSError:  # a TimeoutError too
        return None
    return round(free / GIB, 2)


def _free_bytes(folder: Path | None) -> int:
    folder = Path(tempfile.gettempdir()) if folder is None else folder.absolute()
    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


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
