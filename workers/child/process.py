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
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from absurd.disk import ask_disk
from absurd.errors import ExecutionError, UnknownExecutorError
from absurd.model import Claim
from absurd.outcome import Failed, Outcome
from absurd.port import Port
from absurd.scratch import remove
from absurd.workers.failures import OUT_OF_MEMORY, describe
from absurd.workers.host.memory import MemoryLimits, Restraint, out_of_memory, told
from absurd.workers.log.capture import Capture
from absurd.workers.runs.artifacts import discard
from absurd.workers.runs.asking import answer
from absurd.workers.runs.origin import Origin
from absurd.workers.runs.wire import CHANNEL_CLOSED, LINE_LIMIT, dump_claim, load_outcome

TERMINATE_SECONDS = 3.0
"""What a child gets to end after SIGTERM, before SIGKILL."""
KILL_SECONDS = 5.0
"""What its guard gets to kill it and all it has started, before the guard itself is killed."""
REMOVE_SECONDS = 60.0
"""How long the removal of a run's scratch folder is waited for; a large one goes on beside."""
START_SECONDS = 300.0
"""What a child gets to import the worker's modules, and once more to import that of an executor."""

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


class ChildNotReadyError(ChildDiedError):
    """There is no process for a run: it did not start, or not in time.  Nothing of the run has begun."""

    code = "child_not_ready"


class BrokenChildError(Exception):
    """No child can execute what it was asked to; `described` is why, as stored with the run."""

    def __init__(self, described: dict[str, Any]) -> None:
        super().__init__(described["message"])
        self.described = described


class ChildProcess:
    """Executes one run at a time."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        lifeline: socket.socket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        capture: Capture,
    ) -> None:
        self._process = process
        self._capture = capture
        self._lifeline = lifeline
        self._reader = reader
        self._writer = writer
        self._found: set[tuple[str, Origin]] = set()
        self._files: list[tuple[str, str, str]] = []
        self._scratch: Path | None = None
        self._ending: asyncio.Task[None] | None = None
        self._idle = False
        self._garbled = False
        self._pid = 0
        self._cpu_ms = 0
        self._data: int | None = None
        self.memory = Restraint(lifeline)
        self.runs = 0
        """How many runs it has executed."""
        self.retires: str | None = None
        """Why it can execute no other run; None while it can."""
        self.recycled: str | None = None
        """Why it is to be replaced, although nothing is left of its runs."""
        self.killed_by: str | None = None
        """The signal it took to end it."""

    @classmethod
    async def launch(cls, environment: Mapping[str, str], capture: Capture) -> ChildProcess:
        """Start a fresh interpreter: never a fork, which would copy locks that the worker's threads hold.

        It sees this process' environment with `environment` over it; what it writes goes to `capture`.
        Raises OSError when there is no memory, no process or no file left.
        """
        ours, theirs = socket.socketpair()
        watched, lifeline = socket.socketpair()
        lifeline.setblocking(False)
        try:
            stdout, stderr = capture.open()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # no module of the present folder takes the place of another
                "-m",
                "absurd.workers.child",
                str(theirs.fileno()),
                str(watched.fileno()),
                pass_fds=[theirs.fileno(), watched.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            lifeline.close()
            capture.close()
            raise
        finally:
            theirs.close()
            watched.close()
        try:
            capture.start()
            reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_LIMIT)
        except BaseException:  # cancelled just now: without its lifeline the guard ends it
            lifeline.close()
            ours.close()
            capture.close()
            raise
        return cls(process, lifeline, reader, writer, capture)

    async def prepare(self, greeting: dict[str, Any]) -> None:
        """Have it import the worker's modules.

        Raises BrokenChildError if they cannot be imported, ChildNotReadyError if it died or took too long, and
        has ended it.
        """
        try:
            self._send(greeting)
            async with asyncio.timeout(START_SECONDS):
                self._pid = int((await self._receive())["ready"])
            self._idle = True
        except TimeoutError:
            raise ChildNotReadyError(
                f"a new process was not ready for a run after {START_SECONDS:g} s, and was ended; the machine is too "
                "busy, or a module of the worker's --import does not come to its end"
            ) from None
        except EOFError:
            raise _not_ready(await self._death()) from None
        finally:
            if not self._idle:
                await self.end()

    @property
    def pid(self) -> int:
        """The process of the runs, not its guard."""
        return self._pid

    @property
    def usable(self) -> bool:
        """Whether it lives, and executes nothing."""
        return self._idle and self._process.returncode is None and not self._reader.at_eof()

    async def find(self, claim: Claim, origin: Origin) -> None:
        """Have it import the executor of `claim`, if it has not done so before.

        Raises BrokenChildError when it does not find it, or ends or does not come back while it looks, as it happens
        to a program that works as soon as it is imported; ChildNotReadyError when it was killed.
        """
        if (claim.name, origin) in self._found:
            return
        self._idle = False
        self._capture.begin(claim)
        try:
            self._send({"find": claim.name, "origin": astuple(origin)})
            async with asyncio.timeout(START_SECONDS):
                await self._receive()
        except BrokenChildError:
            self._idle = True
            raise
        except TimeoutError:
            await self.end()
            stuck = _stuck(claim.name, origin, f"takes longer than {START_SECONDS:g} s")
            raise BrokenChildError(describe(stuck)) from None
        except EOFError:
            death = await self._death()
            await self.end()
            if "signal" in death.details:
                raise _not_ready(death) from None
            raise BrokenChildError(describe(_stuck(claim.name, origin, f"fails: {death.message}"))) from None
        finally:
            self._capture.end()
        self._found.add((claim.name, origin))
        self._idle = True

    async def restrain(self, limits: MemoryLimits, size: int | None) -> None:
        """Have the next run hold `size` bytes of memory at most (None: any).

        Raises EOFError when the process has ended, GuardSilentError.
        """
        self._idle = False
        self._data = size if limits.reserved else None
        if size is None:
            self.memory.begin()
        else:
            await self.memory.restrain(limits, self._pid, size)

    async def run(self, claim: Claim, origin: Origin, port: Port) -> Outcome | None:
        """Send a run, whose executor it has found, and serve its calls until its outcome comes.

        Raises EOFError when the process has ended.
        """
        self._idle = False
        self.runs += 1
        order: dict[str, Any] = {"claim": dump_claim(claim), "origin": astuple(origin)}
        if self._data is not None:
            order["data"] = self._data
        self._capture.begin(claim)
        self._send(order)
        while True:
            message = await self._receive()
            match message:
                case {"outcome": outcome, "used": [int(peak_kib), int(cpu_ms)], "retire": retire, "recycle": recycle}:
                    self._capture.end()
                    self.retires, self.recycled = retire, recycle if retire is None else None
                    return await self._finish(load_outcome(outcome), peak_kib, cpu_ms)
                case {"artifact": str(path)}:
                    self._files.append((path, "", ""))
                case {"scratch": str(path)}:
                    self._scratch = Path(path)
                case {"call": str(method), "args": list(args)}:
                    self._send(await answer(port, method, args))
                case _:  # JSON, and nothing of ours
                    self._garbled = True
                    raise EOFError

    async def _finish(self, outcome: Outcome | None, peak_kib: int, cpu_ms: int) -> Outcome | None:
        """The outcome, with what the run has used if it has failed."""
        self._files.clear()
        if self.retires is None:
            self._scratch = None  # removed by the run's process; else something may still write there
        size, starved = self.memory.size, self.memory.size is not None and self.memory.starved
        try:
            peak = await self.memory.release()
        except EOFError:
            self.retires, self.recycled, peak = "memory", None, size or 0
        used = told(max(peak, peak_kib * 1024), cpu_ms - self._cpu_ms)
        self._cpu_ms = cpu_ms
        self._idle = self.retires is None and self.recycled is None
        if not isinstance(outcome, Failed):
            return outcome
        if size is not None and (starved or outcome.error.get("out_of_memory")):
            return replace(outcome, error=out_of_memory(size, used, outcome.error))
        return replace(outcome, error=outcome.error | used)

    def used(self) -> dict[str, float]:
        """What the run has used in the middle of which the process has ended, where somebody tells."""
        usage = self.memory.usage()
        return {} if usage is None else told(max(usage.largest_kib * 1024, usage.peak), usage.cpu_ms - self._cpu_ms)

    async def cause_of_death(self) -> dict[str, Any]:
        """What ended the process, once its socket is closed, as stored with the run; what it used is there too."""
        death = await self._death()
        if self.memory.size is not None and self.memory.exceeded:
            return out_of_memory(self.memory.size, self.used())
        await self.end()  # of one that lives on, only its end tells what it has used
        return death.described() | self.used()

    async def _death(self) -> ChildDiedError:
        if self._garbled:
            return ChildDiedError("something wrote to the channel of the run's process to the worker, and it was ended")
        try:
            async with asyncio.timeout(TERMINATE_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            return ChildDiedError("the run's process closed its channel to the worker and was ended")
        if code >= 0:
            how = f"the run's process ended by itself with exit code {code}"
            if code == CHANNEL_CLOSED:
                how = "the run's process closed its channel to the worker, and ended"
            return ChildDiedError(how, exit_code=code, out_of_memory=code == OUT_OF_MEMORY)
        try:
            name = signal.Signals(-code).name
        except ValueError:  # a real-time signal has no name
            return ChildDiedError(f"the run's process was killed by signal {-code}", signal=str(-code))
        if name != "SIGKILL":
            return ChildDiedError(f"the run's process was killed by {name}{_HINTS.get(name, '')}", signal=name)
        starved = self.memory.starved
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
        if self._process.returncode is None:
            self.killed_by = "SIGTERM"
            self._signal(signal.SIGTERM)
        self._writer.close()
        if not await self._gone(TERMINATE_SECONDS):
            self.killed_by = "SIGKILL"
            log.warning("child_killed", pid=self._process.pid, note="it did not end after SIGTERM")
        with suppress(OSError):  # the guard has ended
            self._lifeline.shutdown(socket.SHUT_WR)
        if not await self._gone(KILL_SECONDS):
            self._signal(signal.SIGKILL)
            await self._process.wait()
        self.used()  # the guard's last words, while they can be read
        self._lifeline.close()
        self.memory.remove()
        self._capture.close()
        discard(self._files)
        if self._scratch is not None:
            gone = False
            with suppress(TimeoutError):
                gone = await ask_disk(partial(remove, self._scratch), REMOVE_SECONDS)
            if not gone:
                log.warning("scratch_left", folder=str(self._scratch))

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
            message = json.loads(line)
        except ValueError:  # an executor's; or a signal cut a line short
            message = None
        match message:
            case {"broken": dict(described)}:
                raise BrokenChildError(described)
            case dict():
                return message
        self._garbled = True
        raise EOFError


def _not_ready(death: ChildDiedError) -> ChildNotReadyError:
    return ChildNotReadyError(f"{death.message}, before the run had begun", **death.details)


def _stuck(name: str, origin: Origin, how: str) -> UnknownExecutorError:
    return UnknownExecutorError(
        f"importing {origin.module}, where the executor {name!r} is defined, {how}; put what a program does under: "
        "if __name__ == '__main__', or use runs_in='thread'",
        name=name,
    )
