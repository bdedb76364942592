"""What a run may change of its process, and the next run must not find: put back, or told of.

Not the interpreter's own things, modules and what they keep: a process is used again to have these warm.
"""

from __future__ import annotations

import gc
import locale
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from absurd.workers.host.tree import read

_SIGNALS = [each for each in signal.valid_signals() if each < 32]
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS = sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})


class Surroundings:
    """How the process was before its first run."""

    def __init__(self) -> None:
        self._pieces = [(name, look, put, look()) for name, look, put in _PIECES]

    def restore(self) -> str | None:
        """Put back what was changed; the name of the first thing that cannot be, None if all is as it was."""
        for name, look, put, before in self._pieces:
            try:
                now = look()
                if now != before:
                    put(before, now)
                    if look() != before:
                        return name
            except (OSError, ValueError, locale.Error):  # closed, gone, or not ours to change
                return name
        for timer in _TIMERS:  # an alarm that is still to come would end the next run
            if signal.getitimer(timer)[0]:
                signal.setitimer(timer, 0)
        return "processes" if has_children() else None


def has_children() -> bool:
    """Whether processes that this one or one of those has started still run; they must end with it.

    Whose parent has ended, as a daemon's does, has become a child of this process' guard.
    """
    with suppress(OSError):  # a kernel without these files, or a thread that has just ended
        guard = os.getppid()
        if read(f"/proc/{guard}/task/{guard}/children").split() != [b"%d" % os.getpid()]:
            return True
        return any(read(f"/proc/self/task/{thread}/children") for thread in os.listdir("/proc/self/task"))
    return False


def _keep(before: Any, now: Any) -> None:
    """Nothing can be done."""


def _environment() -> dict[Any, Any]:
    # As CPython keeps it: to decode forty variables would be a third of what all of this costs.
    return dict(vars(os.environ).get("_data", os.environ))


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _put_signals(before: list[Any], now: list[Any]) -> None:
    for number, then, at_present in zip(_SIGNALS, before, now, strict=True):
        if then != at_present and then is not None:
            signal.signal(number, then)


def _put_limits(before: list[tuple[int, int]], now: list[tuple[int, int]]) -> None:
    for each, then, at_present in zip(_LIMITS, before, now, strict=True):
        if then != at_present:
            resource.setrlimit(each, then)


def _standard_files() -> list[tuple[int, int]]:
    return [(found.st_dev, found.st_ino) for found in map(os.fstat, range(3))]


def _put_affinity(before: set[int], now: set[int]) -> None:
    os.sched_setaffinity(0, before)


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if sys.platform == "linux" else set()


_Piece = tuple[str, Callable[[], Any], Callable[[Any, Any], object]]
_PIECES: tuple[_Piece, ...] = (
    ("signal handlers", lambda: [signal.getsignal(each) for each in _SIGNALS], _put_signals),
    (
        "signal mask",
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda before, _: signal.pthread_sigmask(signal.SIG_SETMASK, before),
    ),
    ("standard files", _standard_files, _keep),
    ("user", lambda: (os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups()), _keep),
    ("session", lambda: (os.getpgrp(), os.getsid(0)), _keep),
    ("working folder", os.getcwd, lambda before, _: os.chdir(before)),
    ("umask", _umask, lambda before, _: os.umask(before)),
    ("limits", lambda: [resource.getrlimit(each) for each in _LIMITS], _put_limits),
    (
        "niceness",
        lambda: os.nice(0),
        lambda before, _: os.setpriority(os.PRIO_PROCESS, 0, before),
    ),
    ("cores", _affinity, _put_affinity),
    ("locale", lambda: locale.setlocale(locale.LC_ALL), lambda before, _: locale.setlocale(locale.LC_ALL, before)),
    ("temporary folder", lambda: tempfile.tempdir, lambda before, _: setattr(tempfile, "tempdir", before)),
    ("garbage collection", gc.isenabled, lambda before, _: gc.enable() if before else gc.disable()),
    # Not put back: libraries set variables when they are imported, and look for them later.
    ("environment", _environment, _keep),
    ("threads", threading.active_count, _keep),
)
