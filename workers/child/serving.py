"""Runs executed one at a time in a process of their own, for a worker at the other end of a socket.

Messages are JSON lines.  Whatever an executor does to this process, the worker lives.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from structlog.contextvars import bind_contextvars, clear_contextvars

from absurd.config import Settings
from absurd.context import RunContext, run_here
from absurd.errors import StaleClaimError
from absurd.executor import Executor, load_modules
from absurd.middleware import CallMiddleware, around, load
from absurd.model import Claim
from absurd.outcome import Outcome
from absurd.retry import RetryPolicy
from absurd.scratch import ScratchSpace
from absurd.telemetry import configure_logging
from absurd.workers.child.restoring import Surroundings
from absurd.workers.child.streams import buffer_lines, flush_streams
from absurd.workers.failures import describe
from absurd.workers.host.meter import Meter, limited
from absurd.workers.runs.asking import AskingPort
from absurd.workers.runs.execution import Defaults, run_in_loop, run_sync
from absurd.workers.runs.origin import Origin, find, find_function, importing
from absurd.workers.runs.wire import CHANNEL_CLOSED, dump_outcome, load_claim


def serve(descriptor: int) -> None:
    """Serve runs until the worker closes the socket."""
    faulthandler.enable()  # where native code has faulted, on stderr
    buffer_lines()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is the worker's to handle
    with socket.socket(fileno=descriptor) as channel, channel.makefile("rb") as read:
        write = channel.makefile("wb")
        server = _Server(Pipe(read, write))
        signal.signal(signal.SIGTERM, server.terminate)
        try:
            server.serve()
        except WorkerGoneError:  # nobody is left to work for
            if server.pipe.is_cut:  # what is open in its place must not be written to, nor closed
                os._exit(CHANNEL_CLOSED)
            return
        finally:
            with suppress(OSError):  # cut short in the middle of a message to a worker that is gone
                write.close()


class _Server:
    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self._context: _Context | None = None
        self._middleware: list[CallMiddleware] = []
        self._found: dict[tuple[str, Origin], Executor] = {}
        self._told = False

    def serve(self) -> None:
        greeting = self.pipe.receive()
        sys.path[:] = greeting["path"]
        defaults = Defaults(RetryPolicy.from_json(greeting["retry"]), greeting["timeout"])
        if "log" in greeting:  # as the worker's own, without secrets
            configure_logging(Settings(log_level=greeting["log"][0], log_format=greeting["log"][1]))
        try:
            for module in greeting["modules"]:
                with importing(module):
                    load_modules([module], shipped=False)
            with importing("the middleware"):
                self.pipe.spawn_middleware = load(greeting.get("spawn_middleware", ()))
                self._middleware = [find_function(Origin(*each)) for each in greeting.get("middleware", ())]
        except Exception as error:  # a module of the user's: anything may come
            self._tell_broken(error)
            return
        self.pipe.send({"ready": os.getpid()})
        surroundings = Surroundings()
        meter = Meter(*greeting.get("recycle", (None, None)))
        while True:
            order = self.pipe.receive()
            if "find" in order:
                self._find(order["find"], Origin(*order["origin"]))
                continue
            claim = load_claim(order["claim"])
            meter.start()
            executor = self._found[claim.name, Origin(*order["origin"])]
            outcome = self._execute(claim, executor, defaults, order.get("data"))
            flush_streams()
            told = {"outcome": dump_outcome(outcome), "used": meter.read()}
            self.pipe.send(told | {"retire": surroundings.restore(), "recycle": meter.worn_out()})

    def _find(self, name: str, origin: Origin) -> None:
        try:
            self._found[name, origin] = find(name, origin)
        except Exception as error:  # as above
            self._tell_broken(error)
        else:
            self.pipe.send({"found": name})

    def _tell_broken(self, error: Exception) -> None:
        if self._told:  # what `terminate` raises is no program's own end
            raise SystemExit(128 + signal.SIGTERM)
        self.pipe.send({"broken": describe(error)})

    def terminate(self, number: int, frame: FrameType | None) -> None:
        """On SIGTERM: a run that looks at `ctx.cancelled` ends by itself, any other is unwound, once.

        One that is being unwound, because it has learnt before that its claim is lost, is not disturbed in that.
        """
        context = self._context
        if context is not None:
            context.cancel()
            if context.watched or self.pipe.unwinds or self._told:
                return
        self._told = True
        raise SystemExit(128 + number)

    def _execute(self, claim: Claim, executor: Executor, defaults: Defaults, data: int | None) -> Outcome | None:
        self.pipe.unwinds = False
        context = self._context = _Context(claim, self.pipe, None if executor.is_async else run_here)
        bind_contextvars(task_id=str(claim.task_id), task=claim.name, attempt=claim.attempt)
        within = list(self._middleware)
        if data is not None:
            within.insert(0, partial(limited, data))
        if "scratch_gib" in claim.needs:
            within.insert(0, _with_scratch)
        try:
            surrounded = around(executor, within) if within else executor
            if executor.is_async:  # a suspect
                return asyncio.run(run_in_loop(claim, surrounded, self.pipe, defaults, context))
            return run_sync(context, claim, surrounded, defaults)
        finally:
            self._context = None
            context.leave_scratch()
            clear_contextvars()


@contextmanager
def _with_scratch(ctx: RunContext) -> Iterator[None]:
    """For a run that was promised room: its programs and libraries find it by themselves, as TMPDIR."""
    folder = ctx.scratch
    folder.touch()
    yield


class WorkerGoneError(StaleClaimError):
    """The worker has closed its end, or an executor this one: no run can be told any more.  A run is unwound by it."""


class Pipe(AskingPort):
    """The socket to the worker; also the port of the run's context, whose methods block."""

    def __init__(self, read: BinaryIO, write: BinaryIO) -> None:
        super().__init__(self._ask_worker, _WorkersScratch(self))
        self._read = read
        self._write = write
        self._place = os.fstat(write.fileno())
        self._lock = threading.RLock()  # an executor may call its context from threads of its own
        self.is_cut = False
        """Whether an executor has closed the socket."""
        self.unwinds = False
        """Whether the run was told, where its function runs, that its claim is lost."""

    def send(self, message: dict[str, Any]) -> None:
        """Write one message.  Raises WorkerGoneError."""
        with self._lock:
            if self.is_cut or not self._is_mine():
                self.is_cut = True
                raise self._gone("this run has closed its channel to the worker")
            try:
                self._write.write(json.dumps(message).encode() + b"\n")
                self._write.flush()
            except OSError as error:
                raise self._gone() from error

    def receive(self) -> dict[str, Any]:
        """Read one message.  Raises WorkerGoneError."""
        try:
            line = self._read.readline()
        except OSError as error:
            raise self._gone() from error
        if not line.endswith(b"\n"):
            raise self._gone()
        message: dict[str, Any] = json.loads(line)
        return message

    def _is_mine(self) -> bool:
        """Whether the socket is what it was: an executor may have closed it, and opened a file in its place."""
        try:
            return os.fstat(self._write.fileno())[1:3] == self._place[1:3]
        except OSError:
            return False

    def _gone(self, why: str = "the worker has stopped this run") -> WorkerGoneError:
        self._note_lost()
        return WorkerGoneError(why)

    def _note_lost(self) -> None:
        # In another thread the function, which does not know of it, still has to be unwound.
        self.unwinds = self.unwinds or threading.current_thread() is threading.main_thread()

    async def _ask(self, method: str, *args: Any) -> Any:
        try:
            return await super()._ask(method, *args)
        except StaleClaimError:
            self._note_lost()
            raise

    async def _ask_worker(self, method: str, args: list[Any]) -> dict[str, Any]:
        with self._lock:
            self.send({"call": method, "args": args})
            return self.receive()


class _WorkersScratch(ScratchSpace):
    """Scratch folders that the worker makes: it removes what a process leaves that is killed, and tells of its disk."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self._pipe = pipe

    def make(self, name: str) -> Path:
        """As `ScratchSpace.make`."""
        made: Path = run_here(self._pipe.make_scratch(name))
        return made


class _Context(RunContext):
    """Tells the worker of files and folders of the run, so that it can remove them if this process is killed."""

    __slots__ = ("_tempdir",)

    def artifact(self, path: str | os.PathLike[str], kind: str = "file") -> str:
        """As `RunContext.artifact`."""
        mine = super().artifact(path, kind)
        self._port.send({"artifact": mine})  # type: ignore[attr-defined]  # a Pipe
        return mine

    @property
    def scratch(self) -> Path:
        """As `RunContext.scratch`; here it is where temporary files go, too."""
        if self.scratch_made is None:
            folder = super().scratch
            self._port.send({"scratch": str(folder)})  # type: ignore[attr-defined]
            self._tempdir = os.environ.get("TMPDIR"), tempfile.tempdir
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        return super().scratch

    def leave_scratch(self) -> None:
        """Temporary files go where they went before the run."""
        if self.scratch_made is not None:
            before, tempfile.tempdir = self._tempdir
            if before is None:
                os.environ.pop("TMPDIR", None)
            else:
                os.environ["TMPDIR"] = before
