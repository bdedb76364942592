"""Executors that write, in all the ways a run can."""

from __future__ import annotations

import _thread
import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import structlog

from absurd import RetryPolicy, executor

AGAIN = RetryPolicy(max_attempts=2, base=0.0, jitter=0)
UNTIL_SECONDS = 60


def _await(path: str) -> None:
    deadline = time.monotonic() + UNTIL_SECONDS
    while not Path(path).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@executor("logs.say")
def say(ctx: Any, params: dict[str, Any]) -> int:
    """Print lines; with `go`, go on once that file is there."""
    for line in params.get("lines", ()):
        print(line)
    if "go" in params:
        _await(params["go"])
        print("gone on")
    return os.getpid()


@executor("logs.both")
def both(ctx: Any, params: dict[str, Any]) -> None:
    """Print to two streams in turn, and tell how far it is after each."""
    for number in range(params["count"]):
        print(number, file=(sys.stdout, sys.stderr)[number % 2])
        if params.get("apart"):
            ctx.heartbeat()


@executor("logs.raw")
def raw(ctx: Any, params: dict[str, Any]) -> None:
    """Write bytes as they are given."""
    os.write(1, bytes(params["bytes"]))


@executor("logs.libc")
def libc(ctx: Any, params: Any) -> None:
    """Write through the C library, which has a buffer of its own."""
    ctypes.CDLL(None).printf(b"from C\n")


@executor("logs.grandchild")
def grandchild(ctx: Any, params: Any) -> None:
    """Have others write."""
    subprocess.run(["sh", "-c", "echo from a shell; echo to stderr >&2"], check=True)


@executor("logs.die", retry=AGAIN)
def die(ctx: Any, params: dict[str, Any]) -> str:
    """Print, and end the process in the first attempt."""
    print(f"attempt {ctx.attempt}")
    if ctx.attempt == 1:
        match params["how"]:
            case "segfault":
                ctypes.string_at(0)
            case "exit":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@executor("logs.flood")
def flood(ctx: Any, params: dict[str, Any]) -> float:
    """Write so many bytes in lines of a hundred; how many seconds that took."""
    print("the first line")
    block = b"".join(b"%099d\n" % each for each in range(1000))
    begun = time.monotonic()
    for _ in range(params["bytes"] // len(block)):
        os.write(1, block)
    took = time.monotonic() - begun
    print("the last line")
    return took


@executor("logs.flood.few")
def flood_by_print(ctx: Any, params: dict[str, Any]) -> None:
    """Print so many short lines."""
    for number in range(params["lines"]):
        print(number)


@executor("logs.leftover")
def leftover(ctx: Any, params: dict[str, Any]) -> None:
    """Leave a thread that prints once the run is over; one of those that native code starts, unknown to Python."""

    def later() -> None:
        _await(params["go"])
        os.write(1, b"left over\n")
        Path(params["said"]).touch()

    _thread.start_new_thread(later, ())
    print("in time")


@executor("logs.loggers")
def loggers(ctx: Any, params: dict[str, Any]) -> None:
    """Log in every way there is."""
    _log(ctx, params)


@executor("logs.loggers.thread", runs_in="thread")
def loggers_in_thread(ctx: Any, params: dict[str, Any]) -> None:
    """As `loggers`."""
    _log(ctx, params)


@executor("logs.loggers.loop")
async def loggers_in_loop(ctx: Any, params: dict[str, Any]) -> None:
    """As `loggers`, partly in a job of its own."""
    _log(ctx, params)
    await asyncio.create_task(_log_once())


async def _log_once() -> None:
    logging.getLogger("mine").warning("from a job")


def _log(ctx: Any, params: dict[str, Any]) -> None:
    ctx.log.info("from ctx.log", api_token=params["token"], note=f"it is {params['token']}")
    logging.getLogger("mine").warning("from logging")
    structlog.get_logger().warning("from structlog")


@executor("logs.secret")
def secret(ctx: Any, params: dict[str, Any]) -> None:
    """Print what should not be seen."""
    print(f"the token is {params['token']} and password=hunter2")


@executor("logs.nap")
def nap(ctx: Any, params: dict[str, Any]) -> None:
    """Print, sleep without a slot, and print again."""
    print("before")
    ctx.sleep(0.01)
    print("after")


@executor("logs.wait", retry=AGAIN)
def wait(ctx: Any, params: dict[str, Any]) -> None:
    """Print, and wait to be told to stop."""
    print("begun", flush=True)
    try:
        _await(params["go"])
    finally:
        print("unwound")
