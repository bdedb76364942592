"""What the measured tasks do: nothing, or tell when they were started."""

from __future__ import annotations

import time
from typing import Any

from absurd.executor import executor


@executor("bench.noop")
async def noop(ctx: Any, params: dict[str, Any]) -> None:
    """Do nothing."""


@executor("bench.stamp")
async def stamp(ctx: Any, params: dict[str, Any]) -> int:
    """Give the time of the start, in nanoseconds of the clock that all processes of a machine share."""
    return time.monotonic_ns()


@executor("bench.thread", runs_in="thread")
def thread(ctx: Any, params: dict[str, Any]) -> None:
    """Do nothing, in a thread."""


@executor("bench.process", runs_in="process")
def process(ctx: Any, params: dict[str, Any]) -> None:
    """Do nothing, in a process."""
