"""The guard: a small process between a worker and a run's process, so that nothing of a run outlives it.

It is what the worker starts.  It forks the run's process before anything else is loaded, and stays
behind to wait.  When the run's process ends, in whatever way, the guard kills all that it has started
and then ends in the same way: its exit is the run's.  When the worker closes the lifeline, or dies,
the guard kills everything.  It runs no foreign code, so nothing can hold it up; and orphans come to
it, so nothing escapes by a session of its own.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def guard(lifeline: int, *unneeded: int) -> None:
    """Return in a new process that is guarded; the calling process, which has one thread, becomes its guard.

    `lifeline` is the read end of a pipe that the worker holds open, `unneeded` are files of the run.
    Elsewhere than on Linux there is no guard, and the worker ends the process group.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    guarding = os.getpid()
    bell, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.set_wakeup_fd(ring)  # before the fork, so that no end is missed
    signal.signal(signal.SIGCHLD, lambda *_: None)
    run = os.fork()
    if run:
        for each in unneeded:
            os.close(each)
        _watch(run, bell, lifeline)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for each in (bell, ring, lifeline):
        os.close(each)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != guarding:  # it died before that
        os._exit(1)


def _watch(run: int, bell: int, lifeline: int) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # meant for the run
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    poll.register(lifeline, select.POLLIN)
    status = None
    while status is None and all(number != lifeline for number, _ in poll.poll()):
        os.read(bell, 4096)
        status = _reap().get(run)
    while children := _children():
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            ended = os.waitpid(child, 0)[1]
            status = ended if child == run else status
    _end_like(status or 0)


def _reap() -> dict[int, int]:
    """Statuses of the children that have ended, the run's and orphans' alike."""
    ended = {}
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def _children() -> list[int]:
    """The children of this process, and in the end all that they have started: orphans become its children."""
    own = str(os.getpid())
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # ended meanwhile
                # The name in parentheses may hold anything; behind it follow state and parent.
                if (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1] == own:
                    found.append(int(entry.name))
    return found


def _end_like(status: int) -> NoReturn:
    """End by the exit code or the signal of a wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)
