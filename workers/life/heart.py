"""The heart: a small process that gives signs of life in a worker's stead while something in that holds up everything.

Native code that keeps the GIL stops each thread of the worker, the one that beats among them.  The
heart stands by, loads nothing, and beats only when the worker's own beat is overdue; how that goes
is in `heart_process`.
"""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import structlog

from absurd.config import Settings
from absurd.executor import Executor
from absurd.model import Claim
from absurd.workers.runs.execution import Defaults, time_limit

RECORD = struct.Struct("dddd")
"""What the heart is told: when it is said, by when it hears more, the interval, the longest limit; on one clock."""
BEATEN = struct.Struct("d")
"""What it tells: when it has sent a beat that was answered."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds from the start of a heart in another's place until the next may be started; they double."""

_PROGRAM = Path(__file__).with_name("heart_process.py")
_SEND = getattr(socket, "MSG_NOSIGNAL", 0) | socket.MSG_DONTWAIT

log = structlog.get_logger("absurd.worker")


class Heart:
    """The process from the worker's side; its methods may be called in any thread."""

    def __init__(self, url: str, settings: Settings, *, worker_id: int, interval: float) -> None:
        self._order = {
            "pid": os.getpid(),
            "path": sys.path,
            "url": url,
            "schema": settings.schema,
            "prepared_statements": settings.prepared_statements,
            "worker": worker_id,
            "lease": settings.worker_lease,
            "log": [settings.log_level, settings.log_format],
        }
        self._interval = interval
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._stopped = False
        self._started = self._again = 0.0
        self._pause = FIRST_PAUSE
        self._told = (0.0, 0.0)
        self._longest = 0.0
        self._heard = b""
        self._beaten = -math.inf

    def start(self) -> None:
        """Begin; returns as soon as there is a process, which takes about a millisecond.

        Where there is no ``/proc`` it could not tell a worker that works from one that is stopped: no heart then.
        """
        with self._turn:
            self._start()

    def _start(self) -> None:
        if sys.platform != "linux" or self._stopped:
            return
        self._started = time.monotonic()
        ours, theirs = socket.socketpair()
        try:
            # Not its arguments: the address may hold a password.
            ours.sendall(json.dumps(self._order).encode() + b"\n")
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_PROGRAM)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C and Ctrl-Z at the terminal are the worker's
            )
        except OSError as error:  # no memory, no processes or no files left
            ours.close()
            log.warning(
                "heart_missing", error=str(error), note="code that holds the GIL may cost this worker its lease"
            )
            return
        finally:
            theirs.close()
        self._channel, self._heard = ours, b""

    def tell(self, next_by: float) -> None:
        """The worker's thread is there, and will tell again by `next_by`.

        Starts another heart in the place of one that has died or could not be started: at once, and after ever
        longer pauses where that dies too.
        """
        with self._turn:
            now = time.monotonic()
            self._told = (now, next_by)
            if self._send() or self._stopped:
                return
            if self._process is not None:
                log.warning("heart_died", exit=self._reap())
            if now >= self._again:
                lived = now - self._started
                self._pause = FIRST_PAUSE if lived > LONGEST_PAUSE else min(LONGEST_PAUSE, 2 * self._pause)
                self._again = now + self._pause
                self._start()
                self._send()

    def allow(self, longest: float) -> None:
        """The longest limit of the runs in the worker's process: past that it beats no more.  0: none is at work."""
        with self._turn:
            self._longest = longest
            self._send()

    def beaten(self) -> float:
        """When it has last sent a beat that was answered."""
        channel = self._channel
        with suppress(OSError):
            while channel is not None and (data := channel.recv(4096, socket.MSG_DONTWAIT)):
                self._heard += data
        whole = len(self._heard) // BEATEN.size * BEATEN.size
        if whole:
            self._beaten = BEATEN.unpack_from(self._heard, whole - BEATEN.size)[0]
            self._heard = self._heard[whole:]
        return self._beaten

    def stop(self) -> None:
        """End it, and return when it has ended."""
        with self._turn:
            self._stopped = True
            self._reap()

    def _send(self) -> bool:
        """Whether the heart is there to hear of it; one that is stopped hears it later, or never."""
        if self._channel is None:
            return False
        try:
            self._channel.send(RECORD.pack(*self._told, self._interval, self._longest), _SEND)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _reap(self) -> int | None:
        channel, self._channel = self._channel, None
        process, self._process = self._process, None
        if channel is not None:
            channel.close()
        if process is None:
            return None
        process.kill()
        return process.wait()


class Longest:
    """The longest time limit of the runs that are at work in the worker's own process, told to its heart.

    Used in the worker's loop alone.
    """

    def __init__(self, defaults: Defaults) -> None:
        self._defaults = defaults
        self.heart: Heart | None = None
        self.seconds = 0.0
        """Endless where a run has no limit, 0 where none is at work."""

    def note(self, claim: Claim, executor: Executor) -> None:
        """A run starts, in the loop or in a thread."""
        limit = claim.timeout or executor.timeout or self._defaults.timeout or math.inf
        if limit > self.seconds:
            self._set(limit)

    def renew(self, at_work: Iterable[tuple[Claim, Executor | None]]) -> None:
        """These are at work now."""
        limits = [
            time_limit(claim, executor, self._defaults) or math.inf
            for claim, executor in at_work
            if executor is not None and executor.runs_in in ("loop", "thread") and not claim.suspect
        ]
        longest = max(limits, default=0.0)
        if longest != self.seconds:
            self._set(longest)

    def _set(self, seconds: float) -> None:
        self.seconds = seconds
        if self.heart is not None:
            self.heart.allow(seconds)
