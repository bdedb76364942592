"""A child process that executes one run at a time for its worker: ``python -c "… main()" FD``.

It reads JSON lines from a socket and writes JSON lines to it.  Whatever an executor does to this
process, the worker lives.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import IO, Any
from uuid import UUID

from absurd.context import RunContext
from absurd.errors import AbsurdError, ConfigurationError, StaleClaimError
from absurd.executor import Executor, load_modules, registry
from absurd.model import Claim
from absurd.outcome import Failed
from absurd.retry import RetryPolicy
from absurd.workers.execution import Defaults, describe
from absurd.workers.slots import run_sync
from absurd.workers.wire import dump_outcome, load_claim

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve runs until the worker closes the socket or dies."""
    if sys.platform == "linux":  # a worker that is killed must not leave its runs behind
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is the worker's to handle
    with socket.socket(fileno=int(sys.argv[1])) as channel, channel.makefile("rwb") as lines:
        pipe = Pipe(lines)
        greeting = pipe.receive()
        if greeting is None:
            return
        sys.path[:] = greeting["path"]
        defaults = Defaults(RetryPolicy.from_json(greeting["retry"]), greeting["timeout"])
        load_modules(greeting["modules"])
        while (order := pipe.receive()) is not None:
            claim = load_claim(order["claim"])
            pipe.send({"outcome": dump_outcome(_execute(claim, order["function"], pipe, defaults))})


def _execute(claim: Claim, function: str, pipe: Pipe, defaults: Defaults) -> Any:
    try:
        executor = find(claim.name, function)
    except Exception as error:  # noqa: BLE001 - whatever an import raises is this run's failure
        return Failed(describe(error), None)
    return run_sync(_Context(claim, pipe, _finish), claim, executor, defaults)


def find(name: str, function: str) -> Executor:
    """The executor called `name`, importing the module of its function if no other import brought it.

    Raises ConfigurationError when the function lives in a script that cannot be imported by name.
    """
    found = registry.get(name)
    if found is None:
        module = function.partition(":")[0]
        if module == "__main__":
            raise ConfigurationError(
                f"the executor {name} is defined in the program itself, which a child process cannot import; "
                "move it to a module and name that with --import",
                name=name,
            )
        importlib.import_module(module)
        found = registry.require(name)
    return found


class Pipe:
    """The socket to the worker; also the port of the run's context."""

    def __init__(self, lines: IO[bytes]) -> None:
        self._lines = lines

    def send(self, message: dict[str, Any]) -> None:
        """Write one message."""
        self._lines.write(json.dumps(message).encode() + b"\n")
        self._lines.flush()

    def receive(self) -> dict[str, Any] | None:
        """Read one message; None once the worker is gone."""
        line = self._lines.readline()
        if not line:
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    async def get_checkpoints(self, task_id: UUID) -> dict[str, Any]:
        """Saved steps by name."""
        found: dict[str, Any] = self._ask("get_checkpoints", str(task_id))
        return found

    async def set_checkpoint(self, lease: int, task_id: UUID, name: str, value: str) -> None:
        """Save a step."""
        self._ask("set_checkpoint", lease, str(task_id), name, value)

    async def set_progress(
        self, lease: int, task_id: UUID, done: float, total: float | None, message: str | None
    ) -> None:
        """Tell how far the run is."""
        self._ask("set_progress", lease, str(task_id), done, total, message)

    async def check_claim(self, lease: int, task_id: UUID) -> None:
        """Raises StaleClaimError unless the claim is held."""
        self._ask("check_claim", lease, str(task_id))

    def _ask(self, method: str, *args: Any) -> Any:
        self.send({"call": method, "args": args})
        answer = self.receive()
        if answer is None:
            os._exit(1)  # the worker is gone, and with it whoever this is for
        if "error" in answer:
            kind = StaleClaimError if answer["error"]["code"] == StaleClaimError.code else AbsurdError
            raise kind(answer["error"]["message"])
        return answer["value"]


class _Context(RunContext):
    """Tells the worker of announced files, so that it can remove them if this process is killed."""

    __slots__ = ()

    def artifact(self, path: str | os.PathLike[str], kind: str = "file") -> str:
        """As `RunContext.artifact`."""
        mine = super().artifact(path, kind)
        self._port.send({"artifact": mine})  # type: ignore[attr-defined]  # a Pipe
        return mine


def _finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never really waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a call over the pipe must not wait")
