"""Executors that write down each execution, in a file that is no part of the queue."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from absurd import RetryPolicy, executor

PATIENT = RetryPolicy(max_attempts=1000, base=0.05, factor=1.0, jitter=0.5)


def _note(ctx: Any, params: dict[str, Any]) -> None:
    line = f"{params['key']} {ctx.task_id} {ctx.attempt}\n".encode()
    file = os.open(params["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line)  # one write: whole, or not at all
    finally:
        os.close(file)


@executor("journal.loop", retry=PATIENT)
async def in_loop(ctx: Any, params: dict[str, Any]) -> int:
    """Note it, after a moment."""
    await asyncio.sleep(params["seconds"])
    _note(ctx, params)
    return int(ctx.attempt)


@executor("journal.process", retry=PATIENT, runs_in="process")
def in_process(ctx: Any, params: dict[str, Any]) -> int:
    """Note it, after a moment, in a process that may be killed."""
    time.sleep(params["seconds"])
    _note(ctx, params)
    return int(ctx.attempt)


@executor("journal.flaky", retry=PATIENT)
async def flaky(ctx: Any, params: dict[str, Any]) -> int:
    """Note it, and fail in the first attempt."""
    _note(ctx, params)
    if ctx.attempt == 1:
        raise ValueError("not yet")
    return int(ctx.attempt)


@executor("journal.hopeless", retry=RetryPolicy(max_attempts=3, base=0.05, jitter=0.5))
async def hopeless(ctx: Any, params: dict[str, Any]) -> None:
    """Note it, and fail."""
    _note(ctx, params)
    raise ValueError("never")


@executor("journal.add")
async def add(ctx: Any, params: dict[str, Any]) -> int:
    """Add."""
    return int(params["a"] + params["b"])


@executor("journal.square", runs_in="process")
def square(ctx: Any, params: dict[str, Any]) -> int:
    """A step, in a process."""
    return int(ctx.step("square", lambda: params["a"] ** 2))


@executor("journal.fail", retry=RetryPolicy(max_attempts=3, base=0.01, jitter=0))
async def fail(ctx: Any, params: dict[str, Any]) -> int:
    """Fail in the first attempt."""
    if ctx.attempt == 1:
        raise ValueError("not yet")
    return int(ctx.attempt)


@executor("journal.write", runs_in="process")
def write(ctx: Any, params: dict[str, Any]) -> None:
    """Write a file."""
    Path(ctx.artifact(params["path"], kind="text")).write_text("t")


@executor("journal.steps")
async def steps(ctx: Any, params: dict[str, Any]) -> None:
    """A step, a sleep, an event."""
    await ctx.step("first", lambda: 7)
    await ctx.sleep(0.05)
    await ctx.await_event("dawn")
