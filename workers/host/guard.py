"""The guard: a small process between a worker and a run's process, so that nothing of a run outlives it.

It is what the worker starts.  It forks the run's process before anything else is loaded, and stays
behind to wait.  When the run's process ends, in whatever way, the guard kills all that it has started
and then ends in the same way: its exit is the run's.  When the worker closes the lifeline, or dies,
the guard kills everything.  It runs no foreign code, so nothing can hold it up; and orphans come to
it, so nothing escapes by a session of its own.

Over the lifeline the worker may send a limit in bytes, on a line; the guard answers with the most
memory it has seen since the line before, and from then on kills everything once the run's processes
hold more together (0: no limit).  Its last words are what all of them have used, see `Usage`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from typing import NamedTuple, NoReturn

from absurd.workers.host.tree import descendants, held

LOOK_SECONDS = 0.1
"""How often the memory of a run with a limit is looked at; more often when it comes near."""
SHORTEST_LOOK = 0.005
LOOK_SHARE = 20
"""Looking takes at most one part in so many of the time."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class Usage(NamedTuple):
    """What the processes under a guard have used in all."""

    largest_kib: int
    """The most memory that any one of them held."""
    cpu_ms: int
    over_limit: bool
    """Whether they were killed because they held more than the limit."""
    peak: int
    """The most memory that was seen of all together under the last limit, in bytes; 0 where none was set."""


def guard(lifeline: int, *unneeded: int) -> None:
    """Return in a new process that is guarded; the calling process, which has one thread, becomes its guard.

    `lifeline` is a socket that the worker holds open, `unneeded` are files of the run.
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
    limit = peak = 0
    pause = LOOK_SECONDS
    over_limit = False
    while status is None and not over_limit:
        ready = [number for number, _ in poll.poll(pause * 1000 if limit else None)]
        if bell in ready:
            os.read(bell, 4096)
            status = _reap().get(run)
        if lifeline in ready:
            order = os.read(lifeline, 4096).split()
            if not order:
                break
            _tell(lifeline, f"{peak}\n")
            limit, peak, pause = int(order[-1]), 0, 0.0
        elif limit and status is None:
            begun = time.monotonic()
            seen = held(descendants(os.getpid()), limit)
            peak = max(peak, seen)
            over_limit = seen > limit
            pause = max(SHORTEST_LOOK, LOOK_SECONDS * (1 - seen / limit), LOOK_SHARE * (time.monotonic() - begun))
    while children := descendants(os.getpid()):
        for child in children:
            with suppress(ProcessLookupError):  # waited for by one of the others
                os.kill(child, signal.SIGKILL)
        ended = _wait()
        status = ended.get(run, status)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_ms = int((used.ru_utime + used.ru_stime) * 1000)
    _tell(lifeline, f"{used.ru_maxrss} {cpu_ms} {int(over_limit)} {peak}\n")
    _end_like(status or 0)


def _tell(lifeline: int, line: str) -> None:
    with suppress(OSError):  # the worker is gone
        os.write(lifeline, line.encode())


def read_usage(words: bytes) -> Usage | None:
    """A guard's last words; None if it died without any."""
    try:
        largest_kib, cpu_ms, over_limit, peak = map(int, words.splitlines()[-1].split())
    except (IndexError, ValueError):
        return None
    return Usage(largest_kib, cpu_ms, bool(over_limit), peak)


def _reap() -> dict[int, int]:
    """Statuses of the children that have ended, the run's and orphans' alike."""
    ended = {}
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def _wait() -> dict[int, int]:
    """As `_reap`, once at least one has ended."""
    with suppress(ChildProcessError):
        pid, status = os.waitpid(-1, 0)
        return {pid: status} | _reap()
    return {}


def _end_like(status: int) -> NoReturn:
    """End by the exit code or the signal of a wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core file is enough
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)
