"""Where runs execute: on the worker's loop, in a thread, in a child process, or on a Dask cluster."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

import structlog

from absurd.config import Settings
from absurd.context import RunContext, run_on
from absurd.disk import ask_disk
from absurd.errors import AbsurdError
from absurd.executor import Executor
from absurd.middleware import CallMiddleware, around
from absurd.model import Claim
from absurd.outcome import Outcome
from absurd.port import Port
from absurd.retry import RetryPolicy
from absurd.scratch import sweep
from absurd.telemetry import LINES
from absurd.workers.child.apart import Apart
from absurd.workers.child.children import Children
from absurd.workers.child.process import BrokenChildError
from absurd.workers.dask.cluster import Cluster
from absurd.workers.dask.runs import DaskRuns
from absurd.workers.failures import describe
from absurd.workers.life.heart import Longest
from absurd.workers.log.output import Sink
from absurd.workers.runs.execution import Defaults, failure, out_of_time, run_in_loop, run_sync, time_limit
from absurd.workers.runs.origin import refuse_in_child
from absurd.workers.runs.room import find_room
from absurd.workers.runs.threads import DaemonThreads

CLOSE_SECONDS = 5.0
"""How long the scratch disk may take to have the worker's folder removed; what is left the next worker removes."""
SHIPPED = "absurd."
APART = ("process", "dask")
"""Where a run is outside of the worker's own process."""

T = TypeVar("T")

log = structlog.get_logger("absurd.worker")


class Slots:
    """Executes claims.  How many at once is the pump's to say: here it only tells what each may take of the machine."""

    def __init__(
        self,
        *,
        concurrency: int,
        settings: Settings,
        modules: Sequence[str],
        port: Port,
        middleware: Sequence[CallMiddleware] = (),
        sink: Sink | None = None,
        on_cluster: Callable[[], Awaitable[None]] | None = None,
        stand_in: bool = False,
    ) -> None:
        """`on_cluster` is awaited each time that the Dask cluster of the settings was reached.

        `stand_in`: runs that belong on one execute in child processes.
        """
        refuse_in_child()
        self._stand_in = stand_in
        self._port = port
        self._sink = sink
        self._middleware = middleware
        self._surrounded: dict[str, tuple[Executor, Executor]] = {}
        self._defaults = Defaults(RetryPolicy(max_attempts=settings.max_attempts), settings.task_timeout)
        self.longest = Longest(self._defaults)
        self._threads = DaemonThreads()
        self._min_free_gib = settings.worker_min_free_gib
        self._warm = settings.worker_warm
        self._children = Children(
            modules, port, self._defaults, settings, concurrency=concurrency, middleware=middleware, sink=sink
        )
        self._apart = Apart(self._children)
        cluster = None
        if settings.worker_dask is not None:
            cluster = Cluster(settings.worker_dask, name=f"absurd-{os.getpid()}", on_connected=on_cluster)
        self._dask = DaskRuns(cluster, port, self._defaults, settings, modules, middleware, sink)

    def resize(self, concurrency: int) -> None:
        """Share the machine among so many from now on; what runs keeps what it has."""
        self._children.concurrency = concurrency

    @property
    def defaults(self) -> Defaults:
        """What holds where neither the task nor its executor says otherwise."""
        return self._defaults

    def run(self, claim: Claim, executor: Executor) -> Coroutine[Any, Any, Outcome | None]:
        """A coroutine that runs the claim to its Outcome; None when the claim was lost meanwhile.

        Cancelling it stops the run, and it ends by CancelledError once that is done: at the next
        await in the loop, by SIGTERM and SIGKILL in a process.  A thread cannot be stopped; it is
        told by `ctx.cancelled`, nothing it asks for is done any more, and it is left behind.
        """
        if claim.publishing:
            return self._run_after_files(claim, executor)
        return self._run_anywhere(claim, executor)

    def _run_anywhere(self, claim: Claim, executor: Executor) -> Coroutine[Any, Any, Outcome | None]:
        there = executor.runs_in == "dask" and not self._stand_in  # where a Dask worker looks itself
        if (self._min_free_gib or "scratch_gib" in claim.needs) and not there:
            return self._run_in_room(claim, executor)
        return self._run(claim, executor)

    def _run(self, claim: Claim, executor: Executor) -> Coroutine[Any, Any, Outcome | None]:
        if claim.suspect and executor.runs_in not in APART:
            return self._run_apart(claim, executor)
        return self._run_where_it_belongs(claim, executor)

    def open(self, executors: Iterable[Executor]) -> None:
        """Make ready for runs of `executors`, beside what else goes on.

        What killed workers have left on the scratch disk is removed; a child process is started ahead if one of these
        runs in one, unless it is of those that come with absurd, which a worker knows anyhow.  The Dask cluster is
        connected to.
        """
        self._dask.start()
        # Nobody waits for it: a large folder takes minutes, a disk that hangs for ever.
        threading.Thread(target=self._sweep, name="absurd-sweep", daemon=True).start()
        if any(each.runs_in == "process" and not each.function.__module__.startswith(SHIPPED) for each in executors):
            self._children.warm(self._warm)

    def _sweep(self) -> None:
        with suppress(OSError):  # no disk to be swept; a run that needs it will tell
            for folder in sweep(self._port.scratch.root):
                log.info("scratch_swept", folder=str(folder))

    async def _run_after_files(self, claim: Claim, executor: Executor) -> Outcome | None:
        """Run once the files of its parents have their names, which they get a moment after these have completed."""
        try:
            await self._port.await_files([UUID(each) for each in claim.publishing])
        except AbsurdError as error:
            return failure(describe(error), claim, executor, self._defaults)
        return await self._run_anywhere(claim, executor)

    async def _run_in_room(self, claim: Claim, executor: Executor) -> Outcome | None:
        """Run where the scratch disk has what the run needs; else put it off."""
        without = await find_room(self._port.scratch, claim, self._min_free_gib)
        return await self._run(claim, executor) if without is None else without

    def _run_where_it_belongs(self, claim: Claim, executor: Executor) -> Coroutine[Any, Any, Outcome | None]:
        if executor.runs_in in ("loop", "thread"):
            self.longest.note(claim, executor)
        if self._middleware and executor.runs_in not in APART:
            executor = self._around(executor)
        if executor.runs_in == "dask" and not self._stand_in:
            return self._dask.run(claim, executor)
        if executor.runs_in in APART:
            return self._children.run(claim, executor)
        if self._sink is not None:
            LINES.set((self._sink, claim))  # in the context of the run's own job
        if executor.runs_in == "loop":
            return run_in_loop(claim, executor, self._port, self._defaults)
        return self._run_in_thread(claim, executor)

    def _around(self, executor: Executor) -> Executor:
        found = self._surrounded.get(executor.name)
        if found is None or found[0] is not executor:
            found = self._surrounded[executor.name] = (executor, around(executor, self._middleware))
        return found[1]

    async def close(self) -> None:
        """End the child processes, and remove scratch folders; threads still at work are left behind."""
        self._threads.close()
        await self._dask.close()
        await self._children.close()
        gone = False
        with suppress(TimeoutError):
            gone = await ask_disk(self._port.scratch.close, CLOSE_SECONDS)
        if not gone:
            log.warning("scratch_left", folder=self._port.scratch.place)

    async def _run_apart(self, claim: Claim, executor: Executor) -> Outcome | None:
        """Run a suspect in a child process: if it kills that, the worker lives, and knows who it was."""
        try:
            return await self._apart.run(claim, executor)
        except BrokenChildError as broken:
            log.warning("suspect_in_worker", task_id=str(claim.task_id), name=claim.name, reason=str(broken))
        return await self._run_where_it_belongs(claim, executor)

    async def _run_in_thread(self, claim: Claim, executor: Executor) -> Outcome | None:
        context = RunContext(claim, self._port, run_on(asyncio.get_running_loop()))
        timeout = time_limit(claim, executor, self._defaults)
        try:
            async with asyncio.timeout(timeout) as limit:
                work = partial(run_sync, context, claim, executor, self._defaults)
                return await self._threads.run(partial(_telling, LINES.get(), work))
        except TimeoutError:
            if timeout is None or not limit.expired():
                raise
            log.warning("thread_left_behind", task_id=str(claim.task_id), name=claim.name, timeout=timeout)
            return failure(describe(out_of_time(claim, timeout)), claim, executor, self._defaults)
        finally:
            context.cancel()


def _telling(lines: tuple[Sink, Claim] | None, function: Callable[[], T]) -> T:
    """The value of ``function()``, whose log lines go to `lines`: a thread does not see the context of its starter."""
    token = LINES.set(lines)
    try:
        return function()
    finally:
        LINES.reset(token)
