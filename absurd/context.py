"""What an executor is given beside its params: durable steps, sleep, events, progress, artifacts.

One class serves every kind of executor.  Methods that talk to the database (`step`, `sleep`,
`progress`, …) are awaited in ``async def`` executors and return their value at once in others.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, Unpack
from uuid import UUID

import structlog

from absurd.artifact_path import artifact_path, attempt_path
from absurd.bounds import check_seconds, check_word
from absurd.encoding import encode, storable
from absurd.errors import InvalidNameError, InvalidOptionError, ResultError, StaleClaimError, WaitTimeoutError
from absurd.executor import Executor
from absurd.middleware import through
from absurd.model import Claim, TaskSpec
from absurd.offspring import awaited_ids, outcomes, spawn_entry
from absurd.outcome import Suspend, Suspended
from absurd.port import Port
from absurd.products import FileKind, ProductRows, RowKind
from absurd.redaction import secrets_in
from absurd.spawning import SpawnOptions
from absurd.telemetry import safe

T = TypeVar("T")

PROGRESS_SECONDS = 0.2
"""Progress told sooner after the last is not sent, unless it is the end."""
LONGEST_MESSAGE = 1_000


Bridge = Callable[[Coroutine[Any, Any, Any]], Any]
"""How a coroutine becomes the value a method returns.  None in its place: it is returned as it is."""


class RunContext:
    """The context of one run."""

    # A busy worker makes a hundred thousand of them a second: what few runs use is made when it is used.
    __slots__ = (
        "_artifacts", "_bridge", "_cancelled", "_checkpoints", "_claim", "_log", "_names", "_port", "_products",
        "_spawns", "_told_at", "lost", "scratch_made", "watched",
    )  # fmt: skip

    def __init__(self, claim: Claim, port: Port, bridge: Bridge | None = None) -> None:
        self._claim = claim
        self._port = port
        self._bridge = bridge
        self._cancelled = self.lost = self.watched = False
        self._artifacts: list[tuple[str, str, str]] | None = None
        self._checkpoints: dict[str, Any] | None = None
        self._names: dict[str, int] | None = None
        self._spawns: list[dict[str, Any]] | None = None
        self._products: ProductRows | None = None
        self.scratch_made: Path | None = None
        self._log: Any = None
        self._told_at = -math.inf

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
            # Whoever configured structlog, or nobody: an executor's line may hold params, and so secrets.
            processors = safe(structlog.get_config()["processors"], secrets_in(self._claim.params, self._claim.headers))
            logger = structlog.wrap_logger(None, processors, logger_factory_args=("absurd.run",))
            self._log = logger.bind(task_id=str(self.task_id), task=self.name, attempt=self.attempt)
        return self._log

    @property
    def cancelled(self) -> bool:
        """Whether the run should stop: its claim is lost, its time is over, or its worker has to leave.

        A thread can be stopped in no other way.  A process whose executor has looked here gets a few
        seconds to end by itself; any other is unwound by SystemExit.
        """
        self.watched = True
        return self._cancelled

    def cancel(self) -> None:
        """Tell the run to stop, and let none of its calls through any more; for the worker."""
        self._cancelled = True

    # Durable steps ------------------------------------------------------------------------------

    def step(self, name: str, function: Callable[[], Any]) -> Any:
        """The value of ``function()``, computed once: later runs of the task get the stored value.

        The value must be storable as JSON and comes back as `absurd.encoding` tells (tuples as lists),
        in the first run too.  A name used again in one run counts up: ``name``, ``name#2``, …  A step
        that raises stores nothing.
        """
        check_word("step", name)
        if name.startswith("event:"):
            raise InvalidNameError(f"step name {name!r}: names that begin with event: belong to events", name=name)
        unique = self._unique(name)
        if self._bridge is None:
            return self._step(unique, function)
        checkpoints: dict[str, Any] = self._bridge(self._load())
        if unique not in checkpoints:  # the function runs here, and not where the bridge leads to
            value = function()
            if inspect.iscoroutine(value):
                value.close()
                raise TypeError(f"the function of step {unique!r} is async, but the executor is not")
            self._bridge(self._save(unique, value))
        return checkpoints[unique]

    def sleep(self, delay: float | timedelta) -> Any:
        """Give the slot back and go on after `delay` seconds, as a new run of the same attempt.

        The executor starts again from its beginning; steps and sleeps that are done are passed over.
        """
        return self._call(self._sleep(self._unique("sleep"), check_seconds("delay", delay)))

    def sleep_until(self, moment: datetime) -> Any:
        """As `sleep`, until an aware time; a time that has passed is not waited for."""
        if moment.tzinfo is None:
            raise InvalidOptionError(f"sleep_until({moment!r}): the time has no zone", option="moment")
        return self._call(self._sleep(self._unique("sleep"), moment))

    def await_event(self, name: str, timeout: float | timedelta | None = None) -> Any:
        """The payload of an event, waited for without a slot; of one emitted before, at once.

        Raises WaitTimeoutError when it was not emitted within `timeout` seconds of the first wait.
        Both ends are kept: waiting for the same name again, in any run of the task, ends the same way.
        """
        check_word("event", name)
        return self._call(self._await_event(name, None if timeout is None else check_seconds("timeout", timeout)))

    # Other tasks ---------------------------------------------------------------------------------

    def spawn(self, name: str | Executor[Any], params: Any = None, **options: Unpack[SpawnOptions]) -> Any:
        """Spawn a task with the completion of this run, or with its next suspension, and give the id it will have.

        It does not exist before, and never if the run fails or is lost.  A run after a suspension gets
        the same ids and spawns nothing twice; so spawn in the same order each time.  Of a node, the
        workflow gets another node (`node` is its name).  `queue` defaults to the executor's, else this task's own.
        Raises InvalidNameError, InvalidParamsError, InvalidOptionError; what only the database can refuse
        (an unknown parent, say) fails the run.
        """
        spec = TaskSpec(name, params, **options)  # type: ignore[arg-type]
        unique = self._unique(f"spawn {name.name if isinstance(name, Executor) else name}")
        if self._bridge is None:
            return self._spawn(unique, spec)
        # As a step's function, spawn middleware runs here, and not where the bridge leads to.
        return self._spawned(unique, spec, self._bridge(self._load()))

    def wait_for(
        self,
        task_ids: Iterable[UUID | str],
        timeout: float | timedelta | None = None,
        *,
        return_exceptions: bool = False,
    ) -> Any:
        """Wait without a slot until all these tasks have ended, and give their results in order.

        The executor starts again from its beginning then, as after a sleep.  Raises TaskFailed or
        TaskCancelled for the first that did not complete, unless `return_exceptions` gives these in their
        places; WaitTimeoutError when `timeout` seconds have passed since the first wait; TaskNotFoundError;
        InvalidOptionError for the task's own id.  Tasks that wait for one another are cancelled.
        """
        seconds = None if timeout is None else check_seconds("timeout", timeout)
        name = self._unique("wait_for")
        return self._call(self._wait_for(name, awaited_ids(task_ids, self.task_id), seconds, return_exceptions))

    @property
    def spawns(self) -> Sequence[dict[str, Any]]:
        """What this run has spawned that is not yet written; for the worker."""
        return self._spawns or ()

    # Progress and liveness ----------------------------------------------------------------------

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> Any:
        """Tell how far the run is, for `task show` and progress bars.  Raises StaleClaimError.

        May be called as often as one likes: what comes within 0.2 s of the last is not sent, unless
        `done` has reached `total`.  Numbers that are not finite are not sent either.
        """
        return self._call(self._progress(float(done), None if total is None else float(total), message))

    def heartbeat(self) -> Any:
        """Raise StaleClaimError if the claim was lost.  The lease itself is kept by the worker."""
        return self._call(self._ask(self._port.check_claim, self._claim.lease, self.task_id))

    # Files --------------------------------------------------------------------------------------

    def artifact(self, path: str | os.PathLike[str], kind: str = "file") -> str:
        """The path to write a file to, which is published as `path` once the run has completed.

        It lies in the same folder (made if need be) under a hidden name of this run's own, with the
        same suffixes: a stale run can never overwrite what its successor wrote.  The run that
        completes must write the file; what other runs of the task wrote is removed.  Not awaited in
        any executor.  Raises as `artifact_path`.
        """
        check_word("artifact kind", kind)
        final = artifact_path(path)
        mine = attempt_path(final, self.task_id, self._claim.attempt, self._claim.lease)
        if self._artifacts is None:
            self._artifacts = []
        if (mine, final, kind) not in self._artifacts:
            self._artifacts = [each for each in self._artifacts if each[1] != final] + [(mine, final, kind)]
        return mine

    @property
    def artifacts(self) -> Sequence[tuple[str, str, str]]:
        """(run's path, final path, kind) of the files announced; for the worker."""
        return self._artifacts or ()

    def product(self, kind: FileKind | RowKind, row: Mapping[str, Any]) -> None:
        """Tell of a product of the pipeline: its row is written with the completion of this run, or never.

        A file (image, mosaic, table) is one of the run's artifacts, by its final path: {path, observed_from,
        observed_until, inputs: [{path, role}], facts}, of images also columns of ``sky_image``.  A source is {name, ra,
        declination, radius_arcsec}; photometry and variability have their tables' columns, and `name` of the source; a
        session those of ``session_file``.  Measures of gates (qa) are {product, measures}.  All belong to the first
        table.  Not awaited.  Raises as `ProductRows.add`; what only the database can refuse fails the run.
        """
        if self._products is None:
            self._products = ProductRows()
        self._products.add(kind, row)

    @property
    def products(self) -> Sequence[dict[str, Any]]:
        """What the run has told of its products; for the worker."""
        return self._products.entries if self._products is not None else ()

    @property
    def scratch(self) -> Path:
        """A folder for files of this run alone, made when it is first asked for; not awaited in any executor.

        It lies on the worker's scratch disk (setting ``worker_scratch``) and is removed once the run has ended, however
        it ended; what is to stay is an `artifact`, or moved elsewhere.  Raises NoScratchError (an OSError) where it
        cannot be made; a run that does not catch it is put off, and spends no attempt.
        """
        if self.scratch_made is None:
            claim = self._claim
            self.scratch_made = self._port.scratch.make(f"{claim.task_id.hex}-{claim.attempt}-{claim.lease:x}")
        return self.scratch_made

    # Coroutines behind the methods --------------------------------------------------------------

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return coroutine if self._bridge is None else self._bridge(coroutine)

    async def _ask(self, method: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        """Make a call of the port, unless the run was told to stop."""
        if self._cancelled:
            raise StaleClaimError(f"the run of task {self.task_id} was told to stop", task_id=str(self.task_id))
        try:
            return await method(*args)
        except StaleClaimError:
            self._cancelled = self.lost = True
            raise

    def _unique(self, name: str) -> str:
        """`name`, with a number if this run has used it before; the same in every run of the task."""
        if self._names is None:
            self._names = {}
        number, unique = self._names.get(name, 1), name
        while unique in self._names:
            number += 1
            unique = f"{name}#{number}"
        self._names[name] = number
        self._names.setdefault(unique, 1)
        return unique

    async def _load(self) -> dict[str, Any]:
        if self._checkpoints is None:
            found = await self._ask(self._port.get_checkpoints, self.task_id)
            if self._checkpoints is None:  # steps that run side by side load side by side
                self._checkpoints = found
        return self._checkpoints

    async def _save(self, unique: str, value: Any) -> Any:
        text = encode(value, f"step {unique}", error=ResultError)
        checkpoints = await self._load()
        await self._ask(self._port.set_checkpoint, self._claim.lease, self.task_id, unique, text)
        checkpoints[unique] = json.loads(text)
        return checkpoints[unique]

    async def _step(self, unique: str, function: Callable[[], Any]) -> Any:
        checkpoints = await self._load()
        if unique in checkpoints:
            return checkpoints[unique]
        value = function()
        return await self._save(unique, await value if inspect.isawaitable(value) else value)

    async def _sleep(self, unique: str, until: float | datetime) -> None:
        """Sleep until a moment of the database's clock, which is stored: who wakes late does not sleep again."""
        checkpoints = await self._load()
        now = await self._ask(self._port.clock_time)
        if unique not in checkpoints:
            moment = until if isinstance(until, datetime) else now + timedelta(seconds=until)
            await self._save(unique, moment)
        left = (datetime.fromisoformat(checkpoints[unique]) - now).total_seconds()
        if left > 0:
            raise Suspend(Suspended("sleep", delay=left))

    async def _await_event(self, name: str, timeout: float | None) -> Any:
        # Whoever wakes the task, the emission or the clock, leaves a checkpoint that says which it was.
        found = (await self._load()).get(f"event:{name}")
        if found is None:
            raise Suspend(Suspended("event", delay=timeout, event=name))
        if "payload" not in found:
            raise WaitTimeoutError(f"the event {name!r} was not emitted in time", event=name)
        return found["payload"]

    async def _spawn(self, unique: str, spec: TaskSpec) -> UUID:
        return self._spawned(unique, spec, await self._load())

    def _spawned(self, unique: str, spec: TaskSpec, checkpoints: Mapping[str, Any]) -> UUID:
        if unique in checkpoints:
            return UUID(checkpoints[unique])
        entry = spawn_entry(through(spec, self._port.spawn_middleware), self.task_id, self.queue, unique)
        if self._spawns is None:
            self._spawns = []
        self._spawns.append(entry)
        return UUID(entry["id"])

    async def _wait_for(
        self, unique: str, ids: list[UUID], timeout: float | None, return_exceptions: bool
    ) -> list[Any]:
        unwritten = {each["id"] for each in self.spawns}
        written = [each for each in ids if str(each) not in unwritten]
        endings = await self._ask(self._port.get_results, written) if written else []
        if (found := outcomes(endings)) is not None and len(written) == len(ids):
            if unpublished := [each.task_id for each in endings if each.publishing]:
                await self._ask(self._port.await_files, unpublished)
            for each in found:
                if isinstance(each, Exception) and not return_exceptions:
                    raise each
            return found
        left = None if timeout is None else await self._left(unique, timeout)
        if left is not None and left <= 0:
            raise WaitTimeoutError(f"the tasks waited for have not all ended after {timeout:g} s")
        raise Suspend(Suspended("tasks", delay=left, awaits=tuple(map(str, ids))))

    async def _left(self, unique: str, timeout: float) -> float:
        """Seconds left of a wait; its end is stored, so that it is not put off by a later run."""
        checkpoints = await self._load()
        now = await self._ask(self._port.clock_time)
        if unique not in checkpoints:
            await self._save(unique, now + timedelta(seconds=timeout))
        return (datetime.fromisoformat(checkpoints[unique]) - now).total_seconds()

    async def _progress(self, done: float, total: float | None, message: str | None) -> None:
        now = time.monotonic()
        if now - self._told_at < PROGRESS_SECONDS and done != total and not self._cancelled:
            return
        if math.isfinite(done) and (total is None or math.isfinite(total)):
            self._told_at = now
            text = None if message is None else storable(message, LONGEST_MESSAGE)
            await self._ask(self._port.set_progress, self._claim.lease, self.task_id, done, total, text)


def run_on(loop: asyncio.AbstractEventLoop) -> Bridge:
    """The bridge for a thread beside `loop`."""

    def bridge(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    return bridge


def run_here(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The bridge for a port whose methods block: their coroutines come to their end in one go."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a port that blocks has waited")
