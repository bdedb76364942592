"""Child processes of a worker: started when needed, kept warm, ended with their whole process group."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog

from absurd.context import Port
from absurd.errors import AbsurdError, ExecutionError
from absurd.executor import Executor
from absurd.model import Claim
from absurd.outcome import Outcome
from absurd.workers.execution import Defaults, describe, failure, out_of_time, outcome_of, time_limit
from absurd.workers.wire import LINE_LIMIT, dump_claim, load_outcome

TERMINATE_SECONDS = 3.0
"""What a child gets to end after SIGTERM, before SIGKILL."""

_PORT_METHODS = ("get_checkpoints", "set_checkpoint", "set_progress", "check_claim")

log = structlog.get_logger("absurd.worker")


class ChildDiedError(ExecutionError):
    """The process of a run ended in the middle of it."""

    code = "child_died"


class Children:
    """Runs executors in child processes, one run in each at a time."""

    def __init__(self, modules: Sequence[str], port: Port, defaults: Defaults) -> None:
        self._modules = list(modules)
        self._port = port
        self._defaults = defaults
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()

    async def run(self, claim: Claim, executor: Executor) -> Outcome | None:
        """Run a claim to its outcome.  Cancelled, it ends the process before it returns."""
        child = self._idle.pop() if self._idle else await self._start()
        timeout = time_limit(claim, executor, self._defaults)
        healthy = False
        try:
            async with asyncio.timeout(timeout) as limit:
                outcome = await child.run(claim, executor, self._port)
            healthy = True
            return outcome
        except TimeoutError:
            if not limit.expired():
                raise
            return outcome_of(out_of_time(claim, timeout or 0), claim, executor, self._defaults)
        except (EOFError, ConnectionError):
            return failure(describe(await child.cause_of_death()), claim, executor, self._defaults)
        finally:
            if healthy:
                self._idle.append(child)
            else:
                await asyncio.shield(self._end(child))

    async def close(self) -> None:
        """End all processes."""
        await asyncio.gather(*(self._end(child) for child in list(self._all)))

    async def _start(self) -> _Child:
        retry, timeout = self._defaults.retry.to_json(), self._defaults.timeout
        greeting = {"path": sys.path, "modules": self._modules, "retry": retry, "timeout": timeout}
        child = await _Child.start(greeting)
        self._all.add(child)
        return child

    async def _end(self, child: _Child) -> None:
        self._all.discard(child)
        if child in self._idle:
            self._idle.remove(child)
        await child.end()


class _Child:
    """One process and the socket to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._files: list[str] = []

    @classmethod
    async def start(cls, greeting: dict[str, Any]) -> _Child:
        """Start a fresh interpreter: never a fork, which would copy locks that threads hold."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                "from absurd.workers.child import main; main()",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,  # what executors print goes where the worker logs
                start_new_session=True,
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_LIMIT)
        child = cls(process, reader, writer)
        child._send(greeting)
        return child

    async def run(self, claim: Claim, executor: Executor, port: Port) -> Outcome | None:
        """Send a run and serve its calls until its outcome comes.  Raises EOFError when the process is gone."""
        function = f"{executor.function.__module__}:{executor.function.__qualname__}"
        self._files.clear()
        self._send({"claim": dump_claim(claim), "function": function})
        while True:
            message = await self._receive()
            if "outcome" in message:
                self._files.clear()
                return load_outcome(message["outcome"])
            if "artifact" in message:
                self._files.append(message["artifact"])
            else:
                self._send(await _answer(port, message["call"], message["args"]))

    async def cause_of_death(self) -> ChildDiedError:
        """What ended the process, once its socket is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(TERMINATE_SECONDS):
                code = await self._process.wait()
                if code < 0:
                    name = signal.Signals(-code).name
                    return ChildDiedError(f"the run's process was killed by signal {name}", signal=name)
                return ChildDiedError(f"the run's process ended by itself with exit code {code}", exit_code=code)
        return ChildDiedError("the run's process closed its channel to the worker and was ended")

    async def end(self) -> None:
        """End the process and all it has started, and remove what it has written."""
        self._writer.close()
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(TERMINATE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            log.warning("child_killed", pid=self._process.pid, note="it did not end after SIGTERM")
        self._signal(signal.SIGKILL)  # what it left behind in its group, too
        await self._process.wait()
        for path in self._files:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _send(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _receive(self) -> dict[str, Any]:
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        message: dict[str, Any] = json.loads(line)
        return message


async def _answer(port: Port, method: str, args: list[Any]) -> dict[str, Any]:
    """Make a context's call for a child."""
    assert method in _PORT_METHODS
    place = 0 if method == "get_checkpoints" else 1
    args[place] = UUID(args[place])
    try:
        return {"value": await getattr(port, method)(*args)}
    except AbsurdError as error:
        return {"error": {"code": error.code, "message": error.message}}
