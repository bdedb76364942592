"""Executors that tell what a context does, and that do to their process whatever can be done to one."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from absurd import RetryPolicy, TaskSpec, WaitTimeoutError, executor
from absurd.executor import RunsIn

PLAIN: tuple[RunsIn, ...] = ("thread", "process")


def _note(path: str, text: object) -> None:
    with Path(path).open("a") as file:
        file.write(f"{text}\n")


@executor("slots.steps.loop")
async def steps_in_loop(ctx: Any, params: dict[str, Any]) -> list[Any]:
    """Steps of one name, one of them async; the second fails in the first run."""

    async def first() -> tuple[int, int]:
        _note(params["ran"], "first")
        return (1, 2)

    def second() -> dict[int, str]:
        _note(params["ran"], "second")
        if ctx.attempt == 1:
            raise ValueError("not yet")
        return {1: "one"}

    return [await ctx.step("same", first), await ctx.step("same", second)]


def steps(ctx: Any, params: dict[str, Any]) -> list[Any]:
    """As `steps_in_loop`, without awaiting."""

    def first() -> tuple[int, int]:
        _note(params["ran"], "first")
        return (1, 2)

    def second() -> dict[int, str]:
        _note(params["ran"], "second")
        if ctx.attempt == 1:
            raise ValueError("not yet")
        return {1: "one"}

    return [ctx.step("same", first), ctx.step("same", second)]


@executor("slots.waits.loop")
async def waits_in_loop(ctx: Any, params: dict[str, Any]) -> list[Any]:
    """A sleep, a sleep until a time, and an event."""
    await ctx.sleep(60)
    await ctx.sleep_until(datetime.fromisoformat(params["until"]))
    try:
        return ["payload", await ctx.await_event("dawn", timeout=30)]
    except WaitTimeoutError:
        return ["too late", None]


def waits(ctx: Any, params: dict[str, Any]) -> list[Any]:
    """As `waits_in_loop`, without awaiting."""
    ctx.sleep(60)
    ctx.sleep_until(datetime.fromisoformat(params["until"]))
    try:
        return ["payload", ctx.await_event("dawn", timeout=30)]
    except WaitTimeoutError:
        return ["too late", None]


@executor("slots.facts.loop")
async def facts_in_loop(ctx: Any, params: Any) -> dict[str, Any]:
    """All that a context tells, with progress and a file."""
    await ctx.progress(1, 2, "half")
    await ctx.heartbeat()
    Path(ctx.artifact(params["path"], kind="text")).write_text("hello")
    ctx.log.info("told")
    return _facts(ctx)


def facts(ctx: Any, params: Any) -> dict[str, Any]:
    """As `facts_in_loop`, without awaiting."""
    ctx.progress(1, 2, "half")
    ctx.heartbeat()
    Path(ctx.artifact(params["path"], kind="text")).write_text("hello")
    ctx.log.info("told")
    return _facts(ctx)


def _facts(ctx: Any) -> dict[str, Any]:
    return {
        "task_id": ctx.task_id,
        "attempt": ctx.attempt,
        "name": ctx.name,
        "queue": ctx.queue,
        "headers": ctx.headers,
        "tags": ctx.tags,
        "parents": ctx.parents,
        "cancelled": ctx.cancelled,
    }


@executor("slots.lost.loop")
async def lost_in_loop(ctx: Any, params: Any) -> bool:
    """Ignore that the claim is lost."""
    try:
        await ctx.heartbeat()
    except Exception:
        return bool(ctx.cancelled)
    return False


def lost(ctx: Any, params: Any) -> bool:
    """As `lost_in_loop`, without awaiting."""
    try:
        ctx.heartbeat()
    except Exception:
        return bool(ctx.cancelled)
    return False


def async_step(ctx: Any, params: Any) -> Any:
    """Give an async function to a step of a plain executor."""

    async def compute() -> int:
        return 1

    return ctx.step("compute", compute)


for _where in PLAIN:
    for _name, _function in {
        "steps": steps,
        "waits": waits,
        "facts": facts,
        "lost": lost,
        "async_step": async_step,
    }.items():
        executor(f"slots.{_name}.{_where}", runs_in=_where)(_function)


# What can be done to a process -------------------------------------------------------------------


@executor("slots.pid")
def pid(ctx: Any, params: Any) -> int:
    """Which process this is."""
    return os.getpid()


@executor("slots.die", retry=RetryPolicy(max_attempts=3, base=2.0, jitter=0))
def die(ctx: Any, params: dict[str, Any]) -> None:
    """End the process by a signal or an exit code, with a file half written."""
    if "path" in params:
        Path(ctx.artifact(params["path"])).write_text("half")
    if "code" in params:
        os._exit(params["code"])
    os.kill(os.getpid(), params["signal"])


@executor("slots.family")
def family(ctx: Any, params: dict[str, Any]) -> None:
    """Leave processes behind, in this session, in one of their own, and forked; then do as told."""
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    started = [subprocess.Popen(sleeper).pid, subprocess.Popen(sleeper, start_new_session=True).pid]
    forked = os.fork()
    if not forked:
        time.sleep(600)
        os._exit(0)
    Path(params["pids"]).write_text(" ".join(map(str, [os.getpid(), *started, forked])))
    if params["then"] == "exit":
        os._exit(3)
    if params["then"] == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)


@executor("slots.unwind")
def unwind(ctx: Any, params: dict[str, Any]) -> None:
    """Block, and say how it ended."""
    try:
        Path(params["started"]).write_text("yes")
        time.sleep(600)
    finally:
        _note(params["ended"], "unwound")


@executor("slots.cooperate")
def cooperate(ctx: Any, params: dict[str, Any]) -> None:
    """Work until told to stop."""
    while not ctx.cancelled:
        Path(params["started"]).write_text("yes")
        time.sleep(0.01)
    _note(params["ended"], "stopped")


@executor("slots.think", runs_in="thread")
def think(ctx: Any, params: dict[str, Any]) -> None:
    """Block a thread until told to stop, with a file half written."""
    Path(ctx.artifact(params["path"])).write_text("half")
    Path(params["started"]).write_text("yes")
    while not ctx.cancelled:
        time.sleep(0.005)
    _note(params["ended"], threading.current_thread().daemon)


@executor("slots.say")
def say(ctx: Any, params: Any) -> None:
    """Write to stdout, which is nobody's channel."""
    print("hello from a run")


@executor("slots.exit")
def leave(ctx: Any, params: Any) -> None:
    """Raise SystemExit."""
    sys.exit("enough")


@executor("slots.suspect.loop")
async def suspect_in_loop(ctx: Any, params: Any) -> dict[str, Any]:
    """Tell which process this is, with what a context does on the way; or wait to be told to stop."""
    Path(ctx.artifact(params["path"])).write_text("hello")
    await ctx.progress(1, 2)
    value = await ctx.step("value", lambda: 7)
    if "started" in params:
        Path(params["started"]).write_text(str(os.getpid()))
        await asyncio.Event().wait()
    return {"pid": os.getpid(), "value": value}


@executor("slots.suspect.thread", runs_in="thread")
def suspect_in_thread(ctx: Any, params: Any) -> dict[str, Any]:
    """As `suspect_in_loop`, without awaiting."""
    Path(ctx.artifact(params["path"])).write_text("hello")
    ctx.progress(1, 2)
    return {"pid": os.getpid(), "value": ctx.step("value", lambda: 7)}


@executor("slots.poison.loop")
async def poison_in_loop(ctx: Any, params: Any) -> None:
    """Kill the process that the loop is in."""
    os.kill(os.getpid(), signal.SIGKILL)


# Middleware ---------------------------------------------------------------------------------------

TRACE: ContextVar[str | None] = ContextVar("trace", default=None)


def sent(spec: TaskSpec) -> TaskSpec:
    """Spawn middleware that sends the trace at hand along, and tells where it ran."""
    place = f"{os.getpid()}/{threading.get_ident()}"
    return replace(spec, headers={"trace": TRACE.get(), "place": place, **(spec.headers or {})})


@executor("slots.hungry", runs_in="process")
def hungry(ctx: Any, params: dict[str, Any]) -> str:
    """Take memory until there is none; the address space has a limit, or the control group has."""
    if "limit" in params and ctx.attempt == 1:
        resource.setrlimit(resource.RLIMIT_AS, (params["limit"], resource.RLIM_INFINITY))
    try:
        if ctx.attempt == 1:
            _eat()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return "fed"


def _eat() -> None:
    eaten = []
    while True:
        eaten.append(b"x" * 4_000_000)


@executor("slots.halved")
async def halved(ctx: Any, params: dict[str, Any]) -> None:
    """Be stopped in the middle of a message to a worker that is gone."""
    ctx._port._write.write(b"{")
    Path(params["started"]).touch()
    while not Path(params["gone"]).exists():
        await asyncio.sleep(0.01)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()  # while the loop rests, outside of the run
    await asyncio.sleep(600)


HOARD: list[bytearray] = []


@executor("slots.hoard")
def hoard(ctx: Any, params: dict[str, Any]) -> int:
    """Keep memory in a variable of the module, as a cache without a limit does."""
    HOARD.append(bytearray(b"x") * (params["mib"] << 20))
    return os.getpid()


@executor("slots.gauge", runs_in="process")
def gauge(ctx: Any, params: Any) -> None:
    """Note the beginning and the end of some work, which goes on until `together` have begun."""
    path, deadline = Path(params["notes"]), time.monotonic() + 30
    _note(params["notes"], "+")
    while path.read_text().count("+") < params["together"] and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.02)
    _note(params["notes"], "-")
