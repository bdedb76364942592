"""Executors of the workflow tests, for this process and for children."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absurd import RetryPolicy, executor

ONCE = RetryPolicy(max_attempts=1)


@dataclass
class Number:
    """A number."""

    n: int


@executor("flow.number")
async def number(ctx: Any, params: Number) -> dict[str, Any]:
    """Give the number back, with a null beside it."""
    return {"n": params.n, "nothing": None}


@executor("flow.sum")
async def total(ctx: Any, params: dict[str, Any]) -> int:
    """Add a list up."""
    return sum(params["numbers"])


@executor("flow.echo", runs_in="process")
def echo(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Give the params back, from a process."""
    return params


@executor("flow.break", retry=RetryPolicy(max_attempts=2, base=0.01, jitter=0))
async def broken(ctx: Any, params: dict[str, Any]) -> int:
    """Fail while a file does not exist."""
    if "mended" not in params or not Path(params["mended"]).exists():
        raise ValueError("the dish is full of snow")
    return 1


def _family(ctx: Any, params: dict[str, Any]) -> Any:
    return [("flow.number", {"n": n}) for n in range(params["n"])]


async def _parent(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    ids = [await ctx.spawn(name, each) for name, each in _family(ctx, params)]
    if not params.get("wait"):
        return {"ids": ids}
    return {"ids": ids, "results": await ctx.wait_for(ids)}


def _sync_parent(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    ids = [ctx.spawn(name, each) for name, each in _family(ctx, params)]
    if not params.get("wait"):
        return {"ids": ids}
    return {"ids": ids, "results": ctx.wait_for(ids)}


executor("flow.parent.loop", retry=ONCE)(_parent)
executor("flow.parent.thread", runs_in="thread", retry=ONCE)(_sync_parent)
executor("flow.parent.process", runs_in="process", retry=ONCE)(_sync_parent)


@executor("flow.spawn_and_fail", retry=RetryPolicy(max_attempts=2, base=0.01, jitter=0))
async def spawn_and_fail(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Spawn, and fail in the first attempt."""
    child = await ctx.spawn("flow.number", {"n": ctx.attempt})
    if ctx.attempt == 1:
        raise ValueError("after the spawn")
    return {"id": child}


@executor("flow.spawn_bad", retry=ONCE)
async def spawn_bad(ctx: Any, params: dict[str, Any]) -> None:
    """Spawn what is asked for."""
    await ctx.spawn("flow.number", {"n": 1}, **params)


@executor("flow.keyed", retry=ONCE)
async def keyed(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Spawn under a key that may be taken, and wait for whoever has it."""
    child = await ctx.spawn("flow.number", {"n": 1}, key="the key")
    await ctx.wait_for([child])
    return {"id": await ctx.step("id", lambda: child)}


@executor("flow.wait", retry=ONCE)
async def wait(ctx: Any, params: dict[str, Any]) -> Any:
    """Wait for tasks."""
    found = await ctx.wait_for(
        params["ids"], timeout=params.get("timeout"), return_exceptions=params.get("return_exceptions", False)
    )
    return [str(each) if isinstance(each, Exception) else each for each in found]


@executor("flow.wait_self", retry=ONCE)
async def wait_self(ctx: Any, params: dict[str, Any]) -> Any:
    """Wait for oneself."""
    return await ctx.wait_for([ctx.task_id])


@executor("flow.wait_descendant", retry=ONCE)
async def wait_descendant(ctx: Any, params: dict[str, Any]) -> Any:
    """Wait for a child that waits for this task."""
    return await ctx.wait_for([await ctx.spawn("flow.number", {"n": 1}, depends_on=[ctx.task_id])])


@executor("flow.wait_partner", retry=ONCE)
async def wait_partner(ctx: Any, params: dict[str, Any]) -> Any:
    """Wait for the task that an event names."""
    return await ctx.wait_for([await ctx.await_event(params["event"])])


@executor("flow.slow")
async def slow(ctx: Any, params: dict[str, Any]) -> str:
    """Wait until a file exists."""
    while not Path(params["release"]).exists():
        await asyncio.sleep(0.01)
    return "released"
