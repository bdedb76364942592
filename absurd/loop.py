"""A background loop: one thing done again and again, on time, whatever happens."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from absurd.errors import AbsurdError

JITTER = 0.2
"""Share of each pause that chance may add or take, so that the hosts of an observatory do not step in time."""
LONGEST_BACKOFF = 60.0
"""Longest pause in seconds after failures in a row, where a loop has not its own."""

log = structlog.get_logger("absurd.loop")


class Loop:
    """Calls `run_once` until it is stopped.

    `run_once` returns in how many seconds it is needed again (None: after `pause`), at most `longest`, which is
    `pause` as well unless it is given; `wake` makes it come at once, `wake_in` not later than that.  When it raises,
    that is logged and it is called again, after pauses that double from `pause` to `longest_backoff`: a loop never
    dies of an error.
    """

    def __init__(
        self,
        name: str,
        run_once: Callable[[], Awaitable[float | None]],
        *,
        pause: float,
        longest: float | None = None,
        longest_backoff: float = LONGEST_BACKOFF,
    ) -> None:
        self.name = name
        self._run_once = run_once
        self._pause = pause
        self._longest = longest
        self._longest_backoff = longest_backoff
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._failures = 0
        self._due = asyncio.Event()
        self._stopping = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns at once."""
        if self._runner is None:
            self._stopping.clear()
            self._runner = asyncio.create_task(self.run(), name=f"absurd-{self.name}")

    async def stop(self) -> None:
        """Let the present round end, and return when it has."""
        self._stopping.set()
        self._due.set()
        if self._alarm is not None:
            self._alarm.cancel()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner

    def wake(self) -> None:
        """Make the next round come now."""
        self._due.set()

    def wake_in(self, seconds: float) -> None:
        """Make the next round come in so many seconds, if it would not come before."""
        loop = asyncio.get_running_loop()
        if self._alarm is not None:
            if loop.time() < self._alarm_at <= loop.time() + seconds:
                return
            self._alarm.cancel()
        self._alarm_at = loop.time() + max(0.0, seconds)
        self._alarm = loop.call_at(self._alarm_at, self.wake)

    async def run(self) -> None:
        """Go round until `stop` is called or this coroutine is cancelled."""
        while not self._stopping.is_set():
            self._due.clear()
            pause = await self.run_once()
            if self._stopping.is_set():
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._due.wait()

    async def run_once(self) -> float:
        """One round; returns the pause after it in seconds."""
        try:
            wanted = await self._run_once()
        except AbsurdError as error:
            self._failures += 1
            log.warning("loop_failed", loop=self.name, code=error.code, error=error.message, failures=self._failures)
        except Exception:
            self._failures += 1
            log.exception("loop_failed", loop=self.name, failures=self._failures)
        else:
            if self._failures:
                log.info("loop_recovered", loop=self.name, failures=self._failures)
            self._failures = 0
            pause = self._pause * random.uniform(1 - JITTER, 1 + JITTER)
            return pause if wanted is None else min(self._longest or pause, max(wanted, 0.001))
        backoff = min(self._longest_backoff, self._pause * 2.0 ** min(self._failures - 1, 16))
        return backoff * random.uniform(1 - JITTER, 1 + JITTER)
