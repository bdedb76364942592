"""Where runs execute: on the worker's loop, in a thread, or in a child process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import astuple
from functools import partial
from typing import Any

import structlog

from absurd.config import Settings
from absurd.context import RunContext, run_on
from absurd.executor import Executor
from absurd.middleware import CallMiddleware, around, check_importable
from absurd.model import Claim
from absurd.outcome import Outcome
from absurd.port import Port
from absurd.retry import RetryPolicy
from absurd.workers.children import Children
from absurd.workers.execution import Defaults, failure, out_of_time, run_in_loop, run_sync, time_limit
from absurd.workers.failures import describe
from absurd.workers.origin import origin_of_function, refuse_in_child
from absurd.workers.process import BrokenChildError
from absurd.workers.threads import DaemonThreads

log = structlog.get_logger("absurd.worker")


class Slots:
    """Executes claims.  How many at once is the pump's to say: `concurrency` is not counted here."""

    def __init__(
        self,
        *,
        concurrency: int,
        settings: Settings,
        modules: Sequence[str],
        port: Port,
        middleware: Sequence[CallMiddleware] = (),
    ) -> None:
        refuse_in_child()
        self.concurrency = concurrency
        self._port = port
        self._middleware = middleware
        self._surrounded: dict[str, tuple[Executor, Executor]] = {}
        self._defaults = Defaults(RetryPolicy(max_attempts=settings.max_attempts), settings.task_timeout)
        self._threads = DaemonThreads()
        greeting = {
            "log": [settings.log_level, settings.log_format],
            "spawn_middleware": list(settings.spawn_middleware),
            "middleware": [astuple(origin_of_function(check_importable(each))) for each in middleware],
        }
        self._children = Children(modules, port, self._defaults, settings.environment(), greeting)

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
        if claim.suspect and executor.runs_in != "process":
            return self._run_apart(claim, executor)
        return self._run_where_it_belongs(claim, executor)

    def _run_where_it_belongs(self, claim: Claim, executor: Executor) -> Coroutine[Any, Any, Outcome | None]:
        if self._middleware and executor.runs_in != "process":
            executor = self._around(executor)
        if executor.runs_in == "loop":
            return run_in_loop(claim, executor, self._port, self._defaults)
        if executor.runs_in == "thread":
            return self._run_in_thread(claim, executor)
        return self._children.run(claim, executor)

    def _around(self, executor: Executor) -> Executor:
        found = self._surrounded.get(executor.name)
        if found is None or found[0] is not executor:
            found = self._surrounded[executor.name] = (executor, around(executor, self._middleware))
        return found[1]

    async def close(self) -> None:
        """End the child processes; threads still at work are left behind."""
        self._threads.close()
        await self._children.close()

    async def _run_apart(self, claim: Claim, executor: Executor) -> Outcome | None:
        """Run a suspect in a child process: if it kills that, the worker lives, and knows who it was."""
        try:
            return await self._children.attempt(claim, executor)
        except BrokenChildError as broken:
            log.warning("suspect_in_worker", task_id=str(claim.task_id), name=claim.name, reason=str(broken))
        return await self._run_where_it_belongs(claim, executor)

    async def _run_in_thread(self, claim: Claim, executor: Executor) -> Outcome | None:
        context = RunContext(claim, self._port, run_on(asyncio.get_running_loop()))
        timeout = time_limit(claim, executor, self._defaults)
        try:
            async with asyncio.timeout(timeout) as limit:
                return await self._threads.run(partial(run_sync, context, claim, executor, self._defaults))
        except TimeoutError:
            if timeout is None or not limit.expired():
                raise
            log.warning("thread_left_behind", task_id=str(claim.task_id), name=claim.name, timeout=timeout)
            return failure(describe(out_of_time(claim, timeout)), claim, executor, self._defaults)
        finally:
            context.cancel()
