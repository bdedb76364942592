"""Executors that hold up the whole worker: nothing of Python runs in it until they let go."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

from absurd import executor

_libc = ctypes.PyDLL(None)  # unlike CDLL it keeps the GIL during a call


def _hold(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Keep the GIL in one call of C, which a signal would not end either."""
    with Path(params["started"]).open("a") as file:
        file.write(f"{ctx.attempt}\n")
    ends = time.monotonic() + params["seconds"]
    while (left := ends - time.monotonic()) > 0:
        _libc.usleep(int(left * 1e6))
    return {"attempt": ctx.attempt}


@executor("gil.loop")
async def hold_in_loop(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Keep the GIL in the worker's loop."""
    return _hold(ctx, params)


executor("gil.thread", runs_in="thread")(_hold)


@executor("gil.apart")
def rest_apart(ctx: Any, params: dict[str, Any]) -> None:
    """Be at work in a process, which needs nothing of the worker's GIL."""
    time.sleep(params["seconds"])


@executor("gil.left_behind", runs_in="thread")
def hold_too_late(ctx: Any, params: dict[str, Any]) -> None:
    """Keep the GIL once the run is over for the worker, whose time limit cannot end a thread."""
    while not ctx.cancelled:
        time.sleep(0.01)
    time.sleep(1.0)  # its outcome is recorded meanwhile
    _hold(ctx, params)


@executor("gil.never_awaits")
async def never_awaits(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Block the loop, and leave the GIL to others."""
    with Path(params["started"]).open("a") as file:
        file.write(f"{ctx.attempt}\n")
    time.sleep(params["seconds"])  # noqa: ASYNC251 — the very mistake
    return {"attempt": ctx.attempt}
