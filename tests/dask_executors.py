"""Executors that run on a Dask cluster."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from absurd import RetryPolicy, executor

AT_ONCE = RetryPolicy(max_attempts=3, base=0.01, jitter=0)


@executor("dask.facts", runs_in="dask", retry=AT_ONCE)
def facts(ctx: Any, params: dict[str, Any]) -> dict[str, Any]:
    """All that a context does."""
    ctx.progress(1, 2, "half")
    ctx.heartbeat()
    once = ctx.step("pid", os.getpid)
    Path(ctx.artifact(params["path"], kind="text")).write_text("hello")
    child = ctx.spawn("dask.child", {"n": 1})
    ctx.log.info("told", where=socket.gethostname())
    print("printed on Dask")
    return {
        "once": once,
        "child": child,
        "tags": ctx.tags,
        "database": [name for name in os.environ if "DATABASE" in name],
        "parent": os.getppid(),
    }


@executor("dask.child", runs_in="dask", retry=AT_ONCE)
def child(ctx: Any, params: dict[str, Any]) -> int:
    """What others spawn."""
    return int(params["n"]) + 1


@executor("dask.waits", runs_in="dask", retry=AT_ONCE)
def waits(ctx: Any, params: dict[str, Any]) -> Any:
    """A sleep, an event and another task."""
    ctx.sleep(0.01)
    payload = ctx.await_event(params["event"])
    return [payload, *ctx.wait_for([ctx.spawn("dask.child", {"n": 1})])]


@executor("dask.block", runs_in="dask", retry=AT_ONCE)
def block(ctx: Any, params: dict[str, Any]) -> str:
    """Say where it runs, and hang in its first attempt, if told so deaf to SIGTERM."""
    note = Path(params["notes"]) / f"{ctx.attempt}-{os.getpid()}"
    note.write_text(f"{os.getpid()} {params.get('n', '')}")
    print(f"attempt {ctx.attempt} begins")
    if ctx.attempt <= params.get("blocks", 1):
        if params.get("deaf"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while not (Path(params["notes"]) / "go").exists():
            time.sleep(0.01)
    return f"attempt {ctx.attempt}"


@executor("dask.die", runs_in="dask", retry=AT_ONCE)
def die(ctx: Any, params: Any) -> None:
    """Be killed by a signal."""
    os.kill(os.getpid(), signal.SIGSEGV)


@executor("dask.file", runs_in="dask", retry=AT_ONCE)
def file(ctx: Any, params: dict[str, Any]) -> None:
    """Write a file."""
    Path(ctx.artifact(params["path"])).write_text("hello")


@executor("dask.talk", runs_in="dask")
def talk(ctx: Any, params: dict[str, Any]) -> float:
    """Ask many times whether the claim is held; gives the seconds that takes each time."""
    begun = time.monotonic()
    for _ in range(params["times"]):
        ctx.heartbeat()
    return (time.monotonic() - begun) / int(params["times"])


@executor("dask.eat", runs_in="dask", retry=RetryPolicy(max_attempts=1))
def eat(ctx: Any, params: dict[str, Any]) -> int:
    """Take memory, in GiB, and keep it for a while."""
    eaten = bytearray(int(params["gib"] * 1024**3))
    eaten[::4096] = b"x" * len(eaten[::4096])
    time.sleep(5)
    return len(eaten)
