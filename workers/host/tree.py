"""The processes that a process has started, and the memory they hold, as ``/proc`` tells (Linux)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_HELD = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
_HELD_IN_PARTS = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")


def descendants(pid: int) -> list[int]:
    """All that `pid` has started and that has not been waited for, those started by these, and so on."""
    try:
        found = _children(pid)
    except OSError:  # a kernel without these files
        return _descendants_by_parent(pid)
    for each in found:  # grows meanwhile
        with suppress(OSError):  # ended meanwhile
            found += _children(each)
    return found


def held(pids: Iterable[int], limit: int) -> int:
    """Bytes of memory that these processes hold together: what a control group would call theirs, without files' pages.

    Pages that forked processes share count once.  That is costly to find out, so it is done only where counting them
    for each would be more than `limit`.
    """
    pids = list(pids)
    most = sum(_sum(each, "status", _HELD) or 0 for each in pids)
    if most <= limit:
        return most
    parts = [_sum(each, "smaps_rollup", _HELD_IN_PARTS) for each in pids]
    exact = [part for part in parts if part is not None]
    return min(most, sum(exact)) if exact else most


def _children(pid: int) -> list[int]:
    return [
        int(child)
        for thread in os.listdir(f"/proc/{pid}/task")
        for child in read(f"/proc/{pid}/task/{thread}/children").split()
    ]


def _descendants_by_parent(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):  # ended meanwhile
                # The name in parentheses may hold anything; behind it follow state and parent.
                parent = int(read(f"/proc/{name}/stat").rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found = list(children.get(pid, ()))
    for each in found:  # grows meanwhile
        found += children.get(each, ())
    return found


def _sum(pid: int, file: str, names: tuple[bytes, ...]) -> int | None:
    """The sum in bytes of some lines of a file of a process; None if that cannot be told."""
    try:
        lines = read(f"/proc/{pid}/{file}").splitlines()
    except OSError:  # ended meanwhile; or not ours to see
        return None
    return sum(int(line.split()[1]) for line in lines if line.startswith(names)) * 1024


def read(path: str | Path) -> bytes:
    """All of a file, at the least cost.  Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        text = b""
        while more := os.read(descriptor, 65536):
            text += more
        return text
    finally:
        os.close(descriptor)
