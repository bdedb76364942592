"""Executors that are in the middle of something, each in its own way, until a file is there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from absurd import executor


def note(ctx: Any, params: dict[str, Any]) -> None:
    """Append to a file that a task has run to its end."""
    journal = os.open(params["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(journal, f"{ctx.task_id} {ctx.attempt}\n".encode())
    os.close(journal)


@executor("rest.brief")
async def brief(ctx: Any, params: dict[str, Any]) -> None:
    """Take a moment."""
    await asyncio.sleep(params.get("seconds", 0.02))
    note(ctx, params)


@executor("rest.loop")
async def in_loop(ctx: Any, params: dict[str, Any]) -> None:
    """Wait in the loop."""
    while not Path(params["release"]).exists():
        await asyncio.sleep(0.01)
    note(ctx, params)


@executor("rest.thread", runs_in="thread")
def in_thread(ctx: Any, params: dict[str, Any]) -> None:
    """Wait in a thread, which nobody can stop."""
    while not Path(params["release"]).exists():
        time.sleep(0.01)
    note(ctx, params)


@executor("rest.process", runs_in="process")
def in_process(ctx: Any, params: dict[str, Any]) -> None:
    """Wait in a process that has started another."""
    with subprocess.Popen(["sleep", "3600"]) as child:
        while not Path(params["release"]).exists():
            time.sleep(0.01)
        child.kill()
    note(ctx, params)


@executor("rest.stubborn", runs_in="process")
def stubborn(ctx: Any, params: dict[str, Any]) -> None:
    """Wait, and do not listen."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while not Path(params["release"]).exists():
        time.sleep(0.01)
    note(ctx, params)


@executor("rest.talker", runs_in="process")
def talker(ctx: Any, params: dict[str, Any]) -> None:
    """Say something all the time."""
    number = 0
    while not Path(params["release"]).exists():
        number += 1
        print(f"line {number}", flush=True)
        ctx.log.info("line", number=number)
        ctx.progress(number, None, "talking")
        time.sleep(0.01)
    note(ctx, params)


@executor("rest.spawner")
async def spawner(ctx: Any, params: dict[str, Any]) -> None:
    """Spawn others, which are spawned with the completion, and save steps."""
    number = 0
    while not Path(params["release"]).exists():
        await ctx.step(f"step-{number}", lambda: "saved")
        number += 1
        await asyncio.sleep(0.01)
    await ctx.spawn("rest.brief", {"journal": params["journal"]}, queue="q")
    note(ctx, params)


@executor("rest.waiter")
async def waiter(ctx: Any, params: dict[str, Any]) -> None:
    """Sleep and wait for an event, without a slot."""
    await ctx.sleep(0.05)
    await ctx.await_event(params["event"])
    note(ctx, params)
