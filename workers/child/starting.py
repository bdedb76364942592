"""Whose turn it is to start a process, and when again after one that did not start.

A start costs a third of a second of a core and some ten megabytes.  Hundreds at once would hold up the machine, the
worker's sign of life with it: its runs would be taken for lost, and come back as suspects, which ask for more.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog

from absurd.outcome import Suspended
from absurd.workers.child.process import BrokenChildError, ChildNotReadyError

AT_ONCE = max(4, 2 * (os.cpu_count() or 1))
"""Most processes of a worker that are starting at any time."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds after a process that did not start until another is tried; they double."""

log = structlog.get_logger("absurd.worker")


def put_off(seconds: float) -> Suspended:
    """The outcome of a run for which there is no process yet; it spends no attempt, and any worker may have it then."""
    return Suspended("no_process", delay=max(FIRST_PAUSE, seconds))


class NotNowError(Exception):
    """No process is started for the next `seconds`, because of `cause`."""

    def __init__(self, seconds: float, cause: Exception) -> None:
        super().__init__(f"no process is started for {seconds:.0f} s: {cause}")
        self.seconds = seconds
        self.cause = cause


class Starts:
    """The starts of one worker's processes; `now` gives monotonic seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._pause, self._failed = 0.0, -math.inf
        self._cause: Exception | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until fewer than AT_ONCE are starting.  Raises NotNowError."""
        self._look()
        async with self._turns:
            self._look()  # those before may have failed
            yield

    @contextmanager
    def counted(self) -> Iterator[None]:
        """A process is started in here."""
        begun = self.now()
        try:
            yield
        except (BrokenChildError, ChildNotReadyError) as error:
            if begun > self._failed:  # not one of those that failed together
                self._failed, self._cause = self.now(), error
                self._pause = min(LONGEST_PAUSE, 2 * self._pause) or FIRST_PAUSE
                log.warning("child_not_ready", error=str(error), pause=self._pause)
            raise
        else:
            self._pause, self._cause = 0.0, None

    def _look(self) -> None:
        left = self._failed + self._pause - self.now()
        if self._cause is not None and left > 0:
            raise NotNowError(left, self._cause)
