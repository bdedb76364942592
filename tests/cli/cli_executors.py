"""Executors for the tests of the command line."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absurd import RetryPolicy, executor


@dataclass
class Sum:
    """Two numbers."""

    a: int
    b: int
    c: float | None = None


@executor("cli.add", runs_in="thread", timeout=60)
def add(ctx: Any, params: Sum) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": params.a + params.b}


@executor("cli.write", runs_in="thread")
def write(ctx: Any, params: dict[str, Any]) -> str:
    """Write a file."""
    Path(ctx.artifact(params["out"], kind="text")).write_text("written")
    return "written"


@executor("cli.fail", retry=RetryPolicy(max_attempts=2, base=0.0), runs_in="thread")
def fail(ctx: Any, params: dict[str, Any]) -> None:
    """Fail each time."""
    raise ValueError("there is no band 'x'")


@executor("cli.sleep")
async def sleep(ctx: Any, params: dict[str, Any]) -> None:
    """Sleep for an hour."""
    await asyncio.sleep(3600)


@executor("cli.loop")
async def loop(ctx: Any, params: dict[str, Any]) -> str:
    """Tell whose event loop this is."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


@executor("cli.hold")
async def hold(ctx: Any, params: dict[str, Any]) -> None:
    """Wait until a file exists."""
    while not Path(params["release"]).exists():
        await asyncio.sleep(0.01)


@executor("cli.print")
def print_lines(ctx: Any, params: dict[str, Any]) -> None:
    """Print a line, and another once a file exists."""
    print("before")
    while not Path(params["release"]).exists():
        time.sleep(0.01)
    print("after")


@executor("cli.hang")
async def hang(ctx: Any, params: dict[str, Any]) -> None:
    """Hold up the loop for an hour."""
    time.sleep(3600)  # noqa: ASYNC251


@executor("cli.environment", runs_in="process")
def environment(ctx: Any, params: dict[str, Any]) -> str | None:
    """Tell a variable of the environment."""
    return os.environ.get(params["name"])


@executor("cli.heavy", needs={"cpu": 2, "memory_gib": 0.5})
async def heavy(ctx: Any, params: dict[str, Any]) -> None:
    """Need something."""
