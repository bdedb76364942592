"""A child process from the worker's side: the process, the socket to it, and its lifeline."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog

from absurd.errors import AbsurdError, ExecutionError
from absurd.model import Claim
from absurd.outcome import Outcome
from absurd.port import Port
from absurd.workers.artifacts import discard
from absurd.workers.failures import OUT_OF_MEMORY, describe
from absurd.workers.origin import Origin
from absurd.workers.wire import LINE_LIMIT, dump_claim, dump_error, load_outcome

TERMINATE_SECONDS = 3.0
"""What a child gets to end after SIGTERM, before SIGKILL."""
KILL_SECONDS = 5.0
"""What its guard gets to kill it and all it has started, before the guard itself is killed."""
START_SECONDS = 300.0
"""What a child gets to import the worker's modules."""

_HINTS = {"SIGSEGV": " (a fault in native code)"}
_KILLERS = {
    None: "by somebody, or because memory ran out",
    True: "because memory ran out",
    False: "by somebody; memory did not run out",
}
"""Who sent SIGKILL, by whether the control group counted a process killed for want of memory; None: unknown."""

log = structlog.get_logger("absurd.worker")


class ChildDiedError(ExecutionError):
    """The process of a run ended in the middle of it."""

    code = "child_died"

    def described(self) -> dict[str, Any]:
        """As it is stored with the run: exit_code or signal, and out_of_memory (null where it cannot be told)."""
        return describe(self) | self.details


class BrokenChildError(Exception):
    """The child cannot execute what it was asked to; `described` is why, as stored with the run."""

    def __init__(self, described: dict[str, Any]) -> None:
        super().__init__(described["message"])
        self.described = described


class ChildProcess:
    """Executes one run at a time."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        lifeline: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._lifeline = lifeline
        self._reader = reader
        self._writer = writer
        self._files: list[tuple[str, str, str]] = []
        self._ending: asyncio.Task[None] | None = None
        self._idle = False
        self._oom_kills = oom_kills()
        self.killed_by: str | None = None
        """The signal it took to end it."""

    @classmethod
    async def launch(cls, environment: Mapping[str, str]) -> ChildProcess:
        """Start a fresh interpreter: never a fork, which would copy locks that the worker's threads hold.

        It sees this process' environment with `environment` over it.
        Raises OSError when there is no memory, no process or no file left.
        """
        ours, theirs = socket.socketpair()
        watched, lifeline = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # no module of the present folder takes the place of another
                "-m",
                "absurd.workers.child",
                str(theirs.fileno()),
                str(watched),
                pass_fds=[theirs.fileno(), watched],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=2,  # what executors print goes where the worker logs
                env={**os.environ, **environment},
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(lifeline)
            raise
        finally:
            theirs.close()
            os.close(watched)
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_LIMIT)
        except BaseException:  # cancelled just now: without its lifeline the guard ends it
            os.close(lifeline)
            ours.close()
            raise
        return cls(process, lifeline, reader, writer)

    async def prepare(self, greeting: dict[str, Any]) -> None:
        """Have it import the worker's modules; raises BrokenChildError, and has ended it, if that fails."""
        try:
            self._send(greeting)
            async with asyncio.timeout(START_SECONDS):
                await self._receive()
            self._idle = True
        except TimeoutError:
            late = ChildDiedError(f"a new process was not ready after {START_SECONDS:g} s")
            raise BrokenChildError(describe(late)) from None
        except EOFError:
            raise BrokenChildError((await self.cause_of_death()).described()) from None
        finally:
            if not self._idle:
                await self.end()

    @property
    def usable(self) -> bool:
        """Whether it lives, and executes nothing."""
        return self._idle and self._process.returncode is None and not self._reader.at_eof()

    async def run(self, claim: Claim, origin: Origin, port: Port) -> Outcome | None:
        """Send a run and serve its calls until its outcome comes.

        Raises EOFError when the process has ended, BrokenChildError when it does not find the executor.
        """
        self._idle = False
        self._oom_kills = oom_kills()
        self._send({"claim": dump_claim(claim), "origin": astuple(origin)})
        while True:
            try:
                message = await self._receive()
            except BrokenChildError:
                self._idle = True
                raise
            if "outcome" in message:
                self._files.clear()
                self._idle = not message["retire"]
                return load_outcome(message["outcome"])
            if "artifact" in message:
                self._files.append((message["artifact"], "", ""))
            else:
                self._send(await _answer(port, message["call"], message["args"]))

    async def cause_of_death(self) -> ChildDiedError:
        """What ended the process, once its socket is closed."""
        try:
            async with asyncio.timeout(TERMINATE_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            return ChildDiedError("the run's process closed its channel to the worker and was ended")
        if code >= 0:
            return ChildDiedError(
                f"the run's process ended by itself with exit code {code}",
                exit_code=code,
                out_of_memory=code == OUT_OF_MEMORY,
            )
        try:
            name = signal.Signals(-code).name
        except ValueError:  # a real-time signal has no name
            return ChildDiedError(f"the run's process was killed by signal {-code}", signal=str(-code))
        if name != "SIGKILL":
            return ChildDiedError(f"the run's process was killed by {name}{_HINTS.get(name, '')}", signal=name)
        before, now = self._oom_kills, oom_kills()
        starved = None if before is None or now is None else now > before
        return ChildDiedError(
            f"the run's process was killed by SIGKILL ({_KILLERS[starved]})", signal=name, out_of_memory=starved
        )

    async def end(self) -> None:
        """End the process and all it has started, and remove what its run has written.

        Returns when they are gone; it goes on to the end even if the caller is cancelled.
        """
        if self._ending is None:
            self._idle = False
            self._ending = asyncio.create_task(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        self._writer.close()
        if self._process.returncode is None:
            self.killed_by = "SIGTERM"
            self._signal(signal.SIGTERM)
        if not await self._gone(TERMINATE_SECONDS):
            self.killed_by = "SIGKILL"
            log.warning("child_killed", pid=self._process.pid, note="it did not end after SIGTERM")
        os.close(self._lifeline)
        if not await self._gone(KILL_SECONDS):
            self._signal(signal.SIGKILL)
            await self._process.wait()
        discard(self._files)

    async def _gone(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
        return self._process.returncode is not None

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _send(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _receive(self) -> dict[str, Any]:
        try:
            line = await self._reader.readline()
        except (ConnectionError, ValueError) as error:  # ValueError: longer than any of ours
            raise EOFError from error
        if not line.endswith(b"\n"):
            raise EOFError
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError as error:  # a signal cut a line short
            raise EOFError from error
        if "broken" in message:
            raise BrokenChildError(message["broken"])
        return message


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes of this control group were killed for want of memory; None where that cannot be told."""
    with suppress(OSError):
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
        for _, controllers, path in groups:
            if "memory" in controllers.split(","):  # version 1, or both side by side
                top, name = root / "sys/fs/cgroup/memory", "memory.oom_control"
            elif not controllers:
                top, name = root / "sys/fs/cgroup", "memory.events"
            else:
                continue
            for file in (top / path.strip("/") / name, top / name):  # a container sees its own group as the top
                with suppress(OSError, ValueError, IndexError, StopIteration):
                    return int(
                        next(ln for ln in file.read_text().splitlines() if ln.startswith("oom_kill ")).split()[1]
                    )
    return None


async def _answer(port: Port, method: str, args: list[Any]) -> dict[str, Any]:
    """Make a context's call for a child."""
    value: Any = None
    try:
        match method, args:
            case "get_checkpoints", [task_id]:
                value = await port.get_checkpoints(UUID(task_id))
            case "set_checkpoint", [lease, task_id, name, text]:
                await port.set_checkpoint(lease, UUID(task_id), name, text)
            case "set_progress", [lease, task_id, done, total, message]:
                await port.set_progress(lease, UUID(task_id), done, total, message)
            case "check_claim", [lease, task_id]:
                await port.check_claim(lease, UUID(task_id))
            case "get_results", [task_ids]:
                found = await port.get_results([UUID(each) for each in task_ids])
                value = [(str(each.task_id), *each[1:]) for each in found]
            case "clock_time", []:
                value = (await port.clock_time()).isoformat()
            case _:
                raise AssertionError(f"a child has asked for {method!r}")
    except AbsurdError as error:
        return {"error": dump_error(error)}
    return {"value": value}
