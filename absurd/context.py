"""What an executor is given beside its params: durable steps, sleep, events, progress, artifacts.

One class serves every kind of executor.  Methods that talk to the database (`step`, `sleep`,
`progress`, …) are awaited in ``async def`` executors and return their value at once in others.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import structlog

from absurd.encoding import encode
from absurd.errors import StaleClaimError, WaitTimeoutError
from absurd.model import Claim
from absurd.outcome import Suspend, Suspended


class Port(Protocol):
    """The way from a run to the database; every call names the claim and may raise StaleClaimError."""

    async def get_checkpoints(self, task_id: UUID) -> dict[str, Any]:
        """Saved steps by name."""

    async def set_checkpoint(self, lease: int, task_id: UUID, name: str, value: str) -> None:
        """Save a step (JSON text)."""

    async def set_progress(
        self, lease: int, task_id: UUID, done: float, total: float | None, message: str | None
    ) -> None:
        """Tell how far the run is."""

    async def check_claim(self, lease: int, task_id: UUID) -> None:
        """Raise StaleClaimError unless the claim is still held."""


Bridge = Callable[[Coroutine[Any, Any, Any]], Any]
"""How a coroutine becomes the value a method returns: itself in the loop, its result elsewhere."""


class RunContext:
    """The context of one run."""

    __slots__ = ("_bridge", "_cancelled", "_checkpoints", "_claim", "_log", "_names", "_port", "artifacts")

    def __init__(self, claim: Claim, port: Port, bridge: Bridge | None = None) -> None:
        self._claim = claim
        self._port = port
        self._bridge = bridge
        self._checkpoints: dict[str, Any] | None = None
        self._names: dict[str, int] = {}
        self._cancelled = False
        self._log: Any = None
        self.artifacts: list[tuple[str, str, str]] = []
        """(attempt's path, final path, kind) of the files this run announced."""

    # Facts --------------------------------------------------------------------------------------

    @property
    def task_id(self) -> UUID:
        """Id of the task."""
        return self._claim.task_id

    @property
    def attempt(self) -> int:
        """Which attempt this is, 1 for the first."""
        return self._claim.attempt

    @property
    def name(self) -> str:
        """Name of the executor."""
        return self._claim.name

    @property
    def queue(self) -> str:
        """Name of the queue."""
        return self._claim.queue

    @property
    def headers(self) -> Mapping[str, Any]:
        """Headers given at spawn."""
        return self._claim.headers

    @property
    def tags(self) -> Sequence[str]:
        """Tags given at spawn."""
        return self._claim.tags

    @property
    def parents(self) -> Mapping[str, Any]:
        """Results of the parents, by task id as text."""
        return self._claim.parents

    @property
    def log(self) -> Any:
        """A structlog logger bound to the task and the attempt."""
        if self._log is None:
            self._log = structlog.get_logger("absurd.run").bind(
                task_id=str(self.task_id), task=self.name, attempt=self.attempt
            )
        return self._log

    @property
    def cancelled(self) -> bool:
        """Whether the run should stop: its claim was lost, so that nothing it does counts any more."""
        return self._cancelled

    def cancel(self) -> None:
        """Tell the run to stop; for the worker."""
        self._cancelled = True

    # Durable steps ------------------------------------------------------------------------------

    def step(self, name: str, function: Callable[[], Any]) -> Any:
        """The value of ``function()``, computed once: later runs of the task get the stored value.

        The value must be JSON and comes back as JSON does (tuples as lists), in the first run too.
        A name used again in one run counts up: ``name``, ``name#2``, …  A step that raises stores
        nothing.
        """
        unique = self._unique(name)
        if self._bridge is None:
            return self._async_step(unique, function)
        checkpoints = self._call(self._load())
        if unique not in checkpoints:
            text = encode(function(), f"step {unique}")
            self._call(self._save(unique, text))
        return self._checkpoints[unique]  # type: ignore[index]  # loaded above

    def sleep(self, delay: float | timedelta) -> Any:
        """Give the slot back and go on after `delay` seconds, as a new run of the same attempt."""
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        return self._call(self._sleep(self._unique("sleep"), timedelta(seconds=seconds)))

    def sleep_until(self, moment: datetime) -> Any:
        """As `sleep`, until an aware time."""
        if moment.tzinfo is None:
            raise ValueError(f"sleep_until({moment!r}): the time needs a zone")
        return self._call(self._sleep(self._unique("sleep"), moment))

    def await_event(self, name: str, timeout: float | None = None) -> Any:
        """The payload of an event, waited for without a slot.

        Raises WaitTimeoutError when it was not emitted within `timeout` seconds of the first wait.
        """
        return self._call(self._await_event(name, timeout))

    # Progress and liveness ----------------------------------------------------------------------

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> Any:
        """Tell how far the run is, for `task show` and progress bars.  Raises StaleClaimError."""
        return self._call(self._guard(self._port.set_progress(self._claim.lease, self.task_id, done, total, message)))

    def heartbeat(self) -> Any:
        """Raise StaleClaimError if the claim was lost.  The lease itself is kept by the worker."""
        return self._call(self._guard(self._port.check_claim(self._claim.lease, self.task_id)))

    def artifact(self, path: str | os.PathLike[str], kind: str = "file") -> str:
        """The path to write a file to, which is published as `path` after the completion.

        It lies in the same folder (made if need be) under a hidden name of this attempt's own, so a
        stale run can never overwrite what its successor wrote.  Not awaited in any executor.
        """
        final = os.path.abspath(os.fspath(path))
        folder, name = os.path.split(final)
        os.makedirs(folder, exist_ok=True)
        mine = os.path.join(folder, f".{name}.{self.task_id.hex[-12:]}.{self._claim.lease:x}.part")
        if all(each[1] != final for each in self.artifacts):
            self.artifacts.append((mine, final, kind))
        return mine

    # Coroutines behind the methods --------------------------------------------------------------

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return coroutine if self._bridge is None else self._bridge(coroutine)

    def _unique(self, name: str) -> str:
        used = self._names[name] = self._names.get(name, 0) + 1
        return name if used == 1 else f"{name}#{used}"

    async def _guard(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except StaleClaimError:
            self._cancelled = True
            raise

    async def _load(self) -> dict[str, Any]:
        if self._checkpoints is None:
            self._checkpoints = await self._guard(self._port.get_checkpoints(self.task_id))
        assert self._checkpoints is not None
        return self._checkpoints

    async def _save(self, name: str, text: str) -> Any:
        checkpoints = await self._load()
        await self._guard(self._port.set_checkpoint(self._claim.lease, self.task_id, name, text))
        checkpoints[name] = json.loads(text)
        return checkpoints[name]

    async def _async_step(self, unique: str, function: Callable[[], Any]) -> Any:
        checkpoints = await self._load()
        if unique in checkpoints:
            return checkpoints[unique]
        value = function()
        if inspect.isawaitable(value):
            value = await value
        return await self._save(unique, encode(value, f"step {unique}"))

    async def _sleep(self, unique: str, until: timedelta | datetime) -> None:
        """Stored as a moment, so that a run that wakes late does not sleep again."""
        checkpoints = await self._load()
        if unique not in checkpoints:
            moment = datetime.now(UTC) + until if isinstance(until, timedelta) else until
            await self._save(unique, json.dumps(moment.isoformat()))
        left = (datetime.fromisoformat(checkpoints[unique]) - datetime.now(UTC)).total_seconds()
        if left > 0:
            raise Suspend(Suspended("sleep", delay=left))

    async def _await_event(self, name: str, timeout: float | None) -> Any:
        checkpoints = await self._load()
        found = checkpoints.get(f"event:{name}")
        if found is None:
            raise Suspend(Suspended("event", delay=timeout, event=name))
        if "payload" not in found:
            raise WaitTimeoutError(f"the event {name!r} was not emitted in time", event=name)
        return found["payload"]


def run_on(loop: asyncio.AbstractEventLoop) -> Bridge:
    """The bridge for a thread beside `loop`."""

    def bridge(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    return bridge
