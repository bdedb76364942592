"""Secrets that were given as arguments: out of what other users of the machine can read."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_ARG_START = 48 - 3
"""Place of arg_start in /proc/self/stat, counted from 0 after the name; arg_end is next.  See proc(5)."""


def forget(secrets: Sequence[str]) -> bool:
    """Overwrite each of `secrets` in this process's arguments with as many ``x``; whether none is left to be seen.

    The list of processes shows them from the start of the program to this call.  Works where the system keeps the
    arguments in the memory of the process and tells where, as Linux does.
    """
    wanted = [os.fsencode(each) for each in secrets if each]
    for each in filter(None, secrets):
        sys.argv[:] = [word.replace(each, "x" * len(each)) for word in sys.argv]
    try:
        shown = Path("/proc/self/cmdline").read_bytes()
        if not any(each in shown for each in wanted):
            return True
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_START + 1])
    except (OSError, ValueError, IndexError):
        return False
    if end - start != len(shown):
        return False
    covered = shown
    for secret in wanted:
        covered = covered.replace(secret, b"x" * len(secret))
    ctypes.memmove(start, covered, len(covered))
    return not any(each in Path("/proc/self/cmdline").read_bytes() for each in wanted)
