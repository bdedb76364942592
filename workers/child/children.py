"""Runs in child processes: started when needed or ahead, kept warm, ended with all they have started."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import astuple
from typing import Any

import structlog

from absurd.config import Settings
from absurd.errors import OutOfMemoryError
from absurd.executor import Executor
from absurd.middleware import CallMiddleware, check_importable
from absurd.model import Claim
from absurd.outcome import Failed, Outcome
from absurd.port import Port
from absurd.workers.child.process import BrokenChildError, ChildNotReadyError, ChildProcess
from absurd.workers.child.starting import NotNowError, Starts, put_off
from absurd.workers.failures import describe
from absurd.workers.host.memory import GIB, GuardSilentError, MemoryLimits
from absurd.workers.host.pinning import cpu_threads, thread_variables
from absurd.workers.log.capture import Capture, Mirror
from absurd.workers.log.output import Sink
from absurd.workers.runs.execution import Defaults, failure, out_of_time, time_limit
from absurd.workers.runs.origin import Elsewhere, Origin, origin_of, origin_of_function

GUARD_PAUSE = 30.0
"""How long a run is put off whose process got no time to take its memory limit."""

log = structlog.get_logger("absurd.worker")


class Children:
    """Runs executors in child processes, one run in each at a time."""

    def __init__(
        self,
        modules: Sequence[str],
        port: Port,
        defaults: Defaults,
        settings: Settings,
        *,
        concurrency: int,
        middleware: Sequence[CallMiddleware | Elsewhere] = (),
        sink: Sink | None = None,
    ) -> None:
        self._modules = list(modules)
        self._port = port
        self._defaults = defaults
        self._settings = settings
        self._sink = sink
        self._mirror = Mirror()
        self.concurrency = concurrency
        self._limits = MemoryLimits(settings.worker_memory_limit)
        memory_gib = settings.worker_recycle_memory_gib
        self._greeting = {
            "log": [settings.log_level, settings.log_format],
            "spawn_middleware": list(settings.spawn_middleware),
            "middleware": [astuple(_origin_of(each)) for each in middleware],
            "recycle": [settings.worker_recycle_runs, None if memory_gib is None else int(memory_gib * GIB)],
        }
        self._idle: dict[int, list[tuple[float, ChildProcess]]] = {}
        """By the number of threads they were started for: since when they are idle, the last one last."""
        self._all: set[ChildProcess] = set()
        self._beside: set[asyncio.Task[None]] = set()
        self.starts = Starts()
        self._ahead: dict[int, list[asyncio.Task[None]]] = {}
        """Processes that are being started ahead, and that no run waits for."""
        self._look: asyncio.TimerHandle | None = None
        self._closed = False

    async def run(self, claim: Claim, executor: Executor) -> Outcome | None:
        """Run a claim to its outcome.  Cancelled, or out of time, it ends the process before it returns."""
        try:
            return await self.attempt(claim, executor)
        except BrokenChildError as broken:
            return failure(broken.described, claim, executor, self._defaults)
        except NotNowError as paused:
            return put_off(paused.seconds)

    async def attempt(self, claim: Claim, executor: Executor) -> Outcome | None:
        """As `run`, but raises BrokenChildError where no process can execute this executor, and NotNowError."""
        threads = cpu_threads(claim, executor, self.concurrency)
        try:
            child = await self._take(threads) or await self._take_turn(threads)
            return await self._run_in(child, threads, claim, executor)
        except ChildNotReadyError as error:
            return failure(error.described(), claim, executor, self._defaults)

    async def _run_in(self, child: ChildProcess, threads: int, claim: Claim, executor: Executor) -> Outcome | None:
        timeout = time_limit(claim, executor, self._defaults)
        size = self._limits.size(claim, executor)
        origin = origin_of(executor)
        try:
            await child.find(claim, origin)  # not within its time: it has not begun
            await child.restrain(self._limits, size)
            async with asyncio.timeout(timeout) as limit:
                outcome = await child.run(claim, origin, self._port)
            return self._amended(outcome, claim, executor)
        except GuardSilentError as silent:
            log.warning("guard_silent", task_id=str(claim.task_id), pid=child.pid, error=str(silent))
            return put_off(GUARD_PAUSE)  # handed back it would be claimed again at once, for another process
        except TimeoutError:
            if timeout is None or not limit.expired():
                raise
            await self._stop(child, claim)
            late = describe(out_of_time(claim, timeout)) | {"killed_by": child.killed_by} | child.used()
            return failure(late, claim, executor, self._defaults)
        except asyncio.CancelledError:
            await self._stop(child, claim)
            raise
        except EOFError:
            return failure(await child.cause_of_death(), claim, executor, self._defaults)
        finally:
            await self._put_back(child, threads)

    def warm(self, count: int) -> None:
        """Start processes ahead, beside what else goes on, so that the first runs need not wait for them."""
        for _ in range(min(count, self.concurrency)):
            self._start_beside(cpu_threads(None, None, self.concurrency))

    async def close(self) -> None:
        """End all processes."""
        self._closed = True
        self._idle.clear()
        if self._look is not None:
            self._look.cancel()
        await asyncio.gather(*(self._end(child) for child in list(self._all)))
        await asyncio.gather(*self._beside)

    def _amended(self, outcome: Outcome | None, claim: Claim, executor: Executor) -> Outcome | None:
        """What is to be done about a run that exceeded its memory, where its own process could not know."""
        if isinstance(outcome, Failed) and outcome.error["code"] == OutOfMemoryError.code:
            return failure(outcome.error, claim, executor, self._defaults)
        return outcome

    # Processes ----------------------------------------------------------------------------------

    async def _take(self, threads: int) -> ChildProcess | None:
        """The process that was used last, if it still lives, or one that was started ahead."""
        while True:
            child = await self._take_idle(threads)
            ahead = self._ahead.get(threads)
            if child is not None or not ahead:
                return child
            await asyncio.wait([ahead.pop()])

    async def _take_idle(self, threads: int) -> ChildProcess | None:
        idle = self._idle.get(threads, [])
        while idle:
            child = idle.pop()[1]
            if child.usable:
                return child
            await self._end(child)
        return None

    async def _take_turn(self, threads: int) -> ChildProcess:
        """A new process when it is its turn, or one that has become idle meanwhile."""
        async with self.starts.turn():
            child = await self._take_idle(threads)
            if child is None:
                with self.starts.counted():
                    child = await self._start(threads)
            return child

    async def _start(self, threads: int) -> ChildProcess:
        self._make_room()
        environment = self._settings.environment() | thread_variables(threads)
        try:
            child = await ChildProcess.launch(environment, Capture(self._sink, self._mirror))
        except OSError as error:  # no memory, no processes or no files left
            raise ChildNotReadyError(f"no process can be started for a run: {error}") from error
        self._all.add(child)
        if self._closed:  # meanwhile: `close` did not see it, and waits for this
            await self._end(child)
            raise NotNowError(0.0, ChildNotReadyError("the worker is leaving"))
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

    def _start_beside(self, threads: int) -> None:
        ahead = self._ahead.setdefault(threads, [])
        job = self._go_on(self._start_ahead(threads))
        ahead.append(job)
        job.add_done_callback(lambda _: self._started(job, ahead))

    def _started(self, job: asyncio.Task[None], ahead: list[asyncio.Task[None]]) -> None:
        self._beside.discard(job)
        if job in ahead:
            ahead.remove(job)

    async def _start_ahead(self, threads: int) -> None:
        try:
            async with self.starts.turn():
                child = await self._start(threads)
        except (BrokenChildError, ChildNotReadyError, NotNowError) as error:  # the run that needs one will tell it
            if not self._closed:
                log.info("child_not_warm", reason=str(error))
            return
        await self._put_back(child, threads)

    async def _put_back(self, child: ChildProcess, threads: int) -> None:
        """Keep a process for the next run, or end it."""
        if child.usable and not self._closed:
            self._idle.setdefault(threads, []).append((time.monotonic(), child))
            if self._look is None:
                self._look_in(self._settings.worker_child_idle)
            return
        if child.recycled is not None and not self._closed:  # nothing of the run goes on: nobody has to wait
            log.debug("child_retired", pid=child.pid, runs=child.runs, reason=child.recycled)
            self._end_beside(child)
            self._start_beside(threads)
            return
        if child.retires is not None:
            log.debug("child_retired", pid=child.pid, runs=child.runs, reason=child.retires)
        await self._end(child)

    def _make_room(self) -> None:
        """End the process that is idle longest, if there are more than twice as many as can be at work."""
        if len(self._all) < 2 * self.concurrency:
            return
        waiting = [idle for idle in self._idle.values() if idle]
        if waiting:
            self._end_beside(min(waiting, key=lambda idle: idle[0][0]).pop(0)[1])

    def _look_in(self, seconds: float) -> None:
        self._look = asyncio.get_running_loop().call_later(seconds, self._end_idle)

    def _end_idle(self) -> None:
        """End what was idle for too long; look again when the next one would be."""
        self._look = None
        before = time.monotonic() - self._settings.worker_child_idle
        for idle in self._idle.values():
            while idle and idle[0][0] <= before:
                self._end_beside(idle.pop(0)[1])
        oldest = [idle[0][0] for idle in self._idle.values() if idle]
        if oldest:
            self._look_in(max(0.001, min(oldest) - before))

    def _end_beside(self, child: ChildProcess) -> None:
        self._go_on(self._end(child)).add_done_callback(self._beside.discard)

    def _go_on(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do this beside the runs; `close` waits for it."""
        job = asyncio.get_running_loop().create_task(work)
        self._beside.add(job)
        return job

    async def _stop(self, child: ChildProcess, claim: Claim) -> None:
        """End a process in the middle of its run, and tell what it took."""
        await self._end(child)
        log.info("run_stopped", task_id=str(claim.task_id), attempt=claim.attempt, killed_by=child.killed_by)

    async def _end(self, child: ChildProcess) -> None:
        await child.end()
        self._all.discard(child)


def _origin_of(middleware: CallMiddleware | Elsewhere) -> Origin:
    return origin_of_function(middleware if isinstance(middleware, Elsewhere) else check_importable(middleware))
