"""Runs in child processes: started when needed, kept warm, ended with all they have started."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from absurd.executor import Executor
from absurd.model import Claim
from absurd.outcome import Outcome
from absurd.port import Port
from absurd.workers.execution import Defaults, failure, out_of_time, time_limit
from absurd.workers.failures import describe
from absurd.workers.origin import origin_of
from absurd.workers.process import BrokenChildError, ChildProcess

log = structlog.get_logger("absurd.worker")


class Children:
    """Runs executors in child processes, one run in each at a time."""

    def __init__(
        self,
        modules: Sequence[str],
        port: Port,
        defaults: Defaults,
        environment: Mapping[str, str],
        greeting: Mapping[str, Any] | None = None,
    ) -> None:
        self._modules = list(modules)
        self._port = port
        self._defaults = defaults
        self._environment = environment
        self._greeting = dict(greeting or {})
        self._idle: list[ChildProcess] = []
        self._all: set[ChildProcess] = set()

    async def run(self, claim: Claim, executor: Executor) -> Outcome | None:
        """Run a claim to its outcome.  Cancelled, or out of time, it ends the process before it returns."""
        try:
            return await self.attempt(claim, executor)
        except BrokenChildError as broken:
            return failure(broken.described, claim, executor, self._defaults)

    async def attempt(self, claim: Claim, executor: Executor) -> Outcome | None:
        """As `run`, but raises BrokenChildError where no process can execute this executor."""
        try:
            child = await self._take() or await self._start()
        except OSError as error:  # no memory, no processes or no files left
            return failure(describe(error), claim, executor, self._defaults)
        timeout = time_limit(claim, executor, self._defaults)
        try:
            async with asyncio.timeout(timeout) as limit:
                return await child.run(claim, origin_of(executor), self._port)
        except TimeoutError:
            if timeout is None or not limit.expired():
                raise
            await self._stop(child, claim)
            late = describe(out_of_time(claim, timeout)) | {"killed_by": child.killed_by}
            return failure(late, claim, executor, self._defaults)
        except asyncio.CancelledError:
            await self._stop(child, claim)
            raise
        except EOFError:
            return failure((await child.cause_of_death()).described(), claim, executor, self._defaults)
        finally:
            if child.usable:
                self._idle.append(child)
            else:
                await self._end(child)

    async def close(self) -> None:
        """End all processes."""
        self._idle.clear()
        await asyncio.gather(*(self._end(child) for child in list(self._all)))

    async def _take(self) -> ChildProcess | None:
        """The process that was used last, if it still lives."""
        while self._idle:
            child = self._idle.pop()
            if child.usable:
                return child
            await self._end(child)
        return None

    async def _start(self) -> ChildProcess:
        child = await ChildProcess.launch(self._environment)
        self._all.add(child)
        greeting = self._greeting | {
            "path": sys.path,
            "modules": self._modules,
            "retry": self._defaults.retry.to_json(),
            "timeout": self._defaults.timeout,
        }
        try:
            await child.prepare(greeting)
        except BaseException:  # it has been ended
            self._all.discard(child)
            raise
        return child

    async def _stop(self, child: ChildProcess, claim: Claim) -> None:
        """End a process in the middle of its run, and tell what it took."""
        await self._end(child)
        log.info("run_stopped", task_id=str(claim.task_id), attempt=claim.attempt, killed_by=child.killed_by)

    async def _end(self, child: ChildProcess) -> None:
        await child.end()
        self._all.discard(child)
