"""Executors that the tests' workers run, in this process and in others."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any, TypedDict

from absurd import RetryPolicy, executor
from absurd.config import load_settings


class AddParams(TypedDict):
    """Two numbers."""

    a: int
    b: int


@executor("demo.add")
async def add(ctx: Any, params: AddParams) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": params["a"] + params["b"]}


@executor("demo.note")
async def note(ctx: Any, params: dict[str, Any]) -> None:
    """Append a line to a file: how often a task really ran."""
    with Path(params["path"]).open("a") as file:
        file.write(f"{ctx.task_id} {ctx.attempt}\n")


@executor("demo.fail", retry=RetryPolicy(max_attempts=3, base=0.01, jitter=0))
async def fail(ctx: Any, params: dict[str, Any]) -> int:
    """Fail until the attempt that params names."""
    if ctx.attempt < params.get("until", 99):
        raise ValueError(f"attempt {ctx.attempt} broke")
    return int(ctx.attempt)


@executor("demo.hold")
async def hold(ctx: Any, params: dict[str, Any]) -> str:
    """Write one's pid to a file, then wait until another file exists; then write an artifact if one is named.

    If it is told so, spawn a task before.
    """
    if "spawn" in params:
        await ctx.spawn("demo.add", params["spawn"])
    Path(params["started"]).write_text(f"{os.getpid()} {ctx.attempt}")
    while not Path(params["release"]).exists():
        await asyncio.sleep(0.01)
    if "artifact" in params:
        Path(ctx.artifact(params["artifact"], kind="text")).write_text(f"attempt {ctx.attempt}")
    return f"attempt {ctx.attempt}"


@executor("demo.crunch", runs_in="process")
def crunch(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Tell which process this is, with progress on the way."""
    ctx.progress(1, 2, "half")
    return {"pid": os.getpid(), "value": ctx.step("square", lambda: params["n"] ** 2)}


@executor("demo.think", runs_in="thread")
def think(ctx: Any, params: dict[str, Any]) -> float:
    """Block a thread for a moment."""
    time.sleep(0.01)
    return float(params["n"])


@executor("demo.write", runs_in="process")
def write(ctx: Any, params: dict[str, Any]) -> str:
    """Write an artifact."""
    path = ctx.artifact(params["path"], kind="text")
    Path(path).write_text(params["text"])
    return str(params["path"])


@executor("demo.read", runs_in="thread")
def read(ctx: Any, params: dict[str, Any]) -> str:
    """What a file holds, which other tasks have written; these may be waited for first."""
    if "after" in params:
        ctx.wait_for(params["after"])
    return Path(params["path"]).read_text(encoding="utf-8")


@executor("demo.steps")
async def steps(ctx: Any, params: dict[str, Any]) -> list[Any]:
    """A step, a sleep, an event: each survives the suspension."""

    def once() -> int:
        with Path(params["path"]).open("a") as file:
            file.write("once\n")
        return 7

    first = await ctx.step("first", once)
    await ctx.sleep(0.05)
    payload = await ctx.await_event(params["event"])
    return [first, payload]


@executor("demo.block", runs_in="process")
def block(ctx: Any, params: dict[str, Any]) -> None:
    """Block a process for ever; stubborn, it ignores SIGTERM."""
    if params.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(params["started"]).write_text(str(os.getpid()))
    while True:
        time.sleep(1)


@executor("demo.segfault", runs_in="process")
def segfault(ctx: Any, params: dict[str, Any]) -> None:
    """Die as broken C code does."""
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


@executor("demo.exit", runs_in="process")
def leave(ctx: Any, params: dict[str, Any]) -> None:
    """Leave without a word."""
    os._exit(7)


@executor("demo.where", runs_in="process")
def where(ctx: Any, params: dict[str, Any]) -> dict[str, str | None]:
    """Where the database is, as an executor in a child process finds it."""
    settings = load_settings()
    return {"url": settings.database_url, "schema": settings.schema}


@executor("demo.poison")
async def poison(ctx: Any, params: dict[str, Any]) -> None:
    """Take the process along, the loop and all neighbours with it."""
    os.kill(os.getpid(), signal.SIGKILL)


@executor("demo.where.async")
async def where_async(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Use the context as an async executor does, and tell which process this is."""
    value = await ctx.step("square", lambda: params["n"] ** 2)
    await ctx.progress(1, 1)
    return {"pid": os.getpid(), "value": value}
