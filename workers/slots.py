"""Where runs execute: on the worker's loop, in a thread, or in a child process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from absurd.config import Settings
from absurd.context import Port, RunContext, run_on
from absurd.executor import Executor
from absurd.model import Claim
from absurd.outcome import Completed, Outcome
from absurd.retry import RetryPolicy
from absurd.workers.artifacts import collect, discard
from absurd.workers.children import Children
from absurd.workers.execution import Defaults, encoded, out_of_time, outcome_of, run_in_loop, time_limit


class Slots:
    """Executes claims; `concurrency` is what the pump keeps to, here it only sizes the threads."""

    def __init__(self, *, concurrency: int, settings: Settings, modules: Sequence[str], port: Port) -> None:
        self._port = port
        self._defaults = Defaults(RetryPolicy(max_attempts=settings.max_attempts), settings.task_timeout)
        self._concurrency = concurrency
        self._threads: ThreadPoolExecutor | None = None
        self._children = Children(modules, port, self._defaults)

    def run(self, claim: Claim, executor: Executor) -> Any:
        """A coroutine that runs the claim to its Outcome; None when the claim was lost meanwhile.

        Cancelling it stops the run: at the next await in the loop, by SIGTERM and SIGKILL in a
        process.  A thread cannot be stopped; it is told by `ctx.cancelled` and left behind.
        """
        if executor.runs_in == "loop":
            return run_in_loop(claim, executor, self._port, self._defaults)
        if executor.runs_in == "thread":
            return self._run_in_thread(claim, executor)
        return self._children.run(claim, executor)

    async def close(self) -> None:
        """End the child processes; threads still at work are left behind."""
        await self._children.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run_in_thread(self, claim: Claim, executor: Executor) -> Outcome | None:
        loop = asyncio.get_running_loop()
        context = RunContext(claim, self._port, run_on(loop))
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="absurd-run")
        timeout = time_limit(claim, executor, self._defaults)
        running = loop.run_in_executor(self._threads, run_sync, context, claim, executor, self._defaults)
        try:
            async with asyncio.timeout(timeout) as limit:
                return await asyncio.shield(running)
        except asyncio.CancelledError:
            context.cancel()
            raise
        except TimeoutError:
            if not limit.expired():
                raise
            context.cancel()
            return outcome_of(out_of_time(claim, timeout or 0), claim, executor, self._defaults)


def run_sync(context: RunContext, claim: Claim, executor: Executor, defaults: Defaults) -> Outcome | None:
    """Run a plain function to its Outcome, in whichever thread or process this is."""
    try:
        result = executor.function(context, executor.load_params(claim.params))
        return Completed(encoded(result), collect(context.artifacts))
    except BaseException as error:  # noqa: BLE001 - whatever an executor raises is an outcome
        discard(context.artifacts)
        return outcome_of(error, claim, executor, defaults)
