"""Run what a queue holds, inline: in this process, one task after the other, until nothing more could run now."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from absurd.config import Settings
from absurd.encoding import decode
from absurd.errors import AbsurdError, TaskFailed
from absurd.executor import Executor
from absurd.maintenance import LONGEST_REST, make_round
from absurd.model import Claim
from absurd.outcome import Cancelled, Completed, Failed, Outcome, Suspended
from absurd.queue import get_queue_stats
from absurd.testing.place import HasSettings, settings_of
from absurd.workers import AbsurdWorker
from absurd.workers.life.rounds import Rounds
from absurd.workers.log.output import Output
from absurd.workers.port import DatabasePort
from absurd.workers.slots import APART, Slots

LIMIT = 10_000
"""Runs of one drain, unless told otherwise: what spawns or snoozes itself for ever would not end."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that a drain has executed."""

    task_id: UUID
    name: str
    queue: str
    attempt: int
    state: str
    """How the run ended: completed, failed, suspended, cancelled, or lost (its claim went to others)."""
    result: Any = None
    error: dict[str, Any] | None = None
    """Of a failed run: code, type, message, traceback."""
    retry_in: float | None = None
    """Seconds until the next attempt; None when there is none."""


async def drain(
    queue: str | Sequence[str] | None = None,
    source: Settings | HasSettings | None = None,
    *,
    executors: Sequence[Executor[Any]] | None = None,
    check: bool = False,
    limit: int = LIMIT,
) -> list[Ran]:
    """Execute everything claimable in a queue (or several), and what becomes so meanwhile; gives the runs in order.

    That is: pending tasks, children of those that complete, and sleepers, retries and suspended tasks that are
    due by the database's clock, unless a worker or scheduler beside it is just moving them.  What is due later stays:
    move a `FakeClock`, and drain again.  All executors run in this process, one at a time: plain functions in a
    thread, whatever `runs_in` says, so that patches and coverage reach them.
    `source` is a client or settings; without it the environment names the database.
    With `check` a task that failed for good raises TaskFailed.  Raises AbsurdError after `limit` runs.
    """
    settings = settings_of(source)
    queues = [queue] if isinstance(queue, str) else list(queue or [settings.queue_name])
    worker = _Inline(settings, queues, executors, limit)
    await worker.run("drain")
    if worker.exceeded:
        raise AbsurdError(f"the drain of {', '.join(queues)} was stopped after {limit} runs; a task goes on for ever")
    if check:
        for each in worker.ran:
            if each.error is not None and each.retry_in is None:
                told = each.error.get("traceback") or each.error["message"]
                raise TaskFailed(f"task {each.task_id} ({each.name}) failed: {told}", id=str(each.task_id))
    return worker.ran


def drain_sync(
    queue: str | Sequence[str] | None = None,
    source: Settings | HasSettings | None = None,
    *,
    executors: Sequence[Executor[Any]] | None = None,
    check: bool = False,
    limit: int = LIMIT,
) -> list[Ran]:
    """As `drain`, for tests that are not async."""
    return asyncio.run(drain(queue, source, executors=executors, check=check, limit=limit))


class _NoRounds(Rounds):
    """None beside the pump: they are made when nothing runs.  Of two at once, one passes by what the other holds."""

    async def _round(self) -> float:
        return LONGEST_REST


class _Inline(AbsurdWorker):
    """A worker that executes one run at a time, here, and leaves when nothing more can be claimed."""

    _make_rounds = _NoRounds

    def __init__(
        self, settings: Settings, queues: Sequence[str], executors: Sequence[Executor[Any]] | None, limit: int
    ) -> None:
        quick = replace(settings, worker_poll_interval=0.01)
        offers = {"dask": 1, **(settings.worker_offers or {})}
        super().__init__(queues=queues, concurrency=1, executors=executors, prefetch=0, offers=offers, settings=quick)
        self.ran: list[Ran] = []
        self.exceeded = False
        self._limit = limit
        self._seen = -1

    def note(self, claim: Claim, outcome: Outcome | None) -> None:
        """Keep what came of a run."""
        self.ran.append(_told(claim, outcome))
        if len(self.ran) >= self._limit and self._pump is not None:
            self.exceeded = True
            self._pump.stop()

    def _make_slots(self, port: DatabasePort, output: Output) -> Slots:
        return _InlineSlots(
            self,
            concurrency=1,
            settings=self.settings,
            modules=[*self.settings.imports],
            port=port,
            middleware=self.call_middleware,
            sink=output,
        )

    async def _remaining(self) -> int:
        """Whether to go on: something is pending, and since the last time it was asked something has run or moved."""
        moved = (await make_round(self._database)).moved
        stats = [await self._link.run(get_queue_stats(name)) for name in self.queues]
        pending = sum(each.pending for each in stats)
        if pending == 0 or (len(self.ran) == self._seen and not moved):
            return 0
        self._seen = len(self.ran)
        assert self._pump is not None
        self._pump.wake()
        return pending


class _InlineSlots(Slots):
    def __init__(self, worker: _Inline, **options: Any) -> None:
        super().__init__(**options)
        self._worker = worker

    def run(self, claim: Claim, executor: Executor) -> Coroutine[Any, Any, Outcome | None]:
        """The run, noted; a plain function in a thread of this process."""
        here = replace(executor, runs_in="thread") if executor.runs_in in APART else executor
        return self._noted(claim, super().run(claim, here))

    def open(self, executors: Iterable[Executor]) -> None:
        """Nothing runs in a process here."""

    async def _noted(self, claim: Claim, running: Coroutine[Any, Any, Outcome | None]) -> Outcome | None:
        outcome = await running
        self._worker.note(claim, outcome)
        return outcome


def _told(claim: Claim, outcome: Outcome | None) -> Ran:
    ran = Ran(claim.task_id, claim.name, claim.queue, claim.attempt, "lost")
    match outcome:
        case Completed(result=result):
            return replace(ran, state="completed", result=decode(result))
        case Failed(error=error, delay=delay):
            return replace(ran, state="failed", error=error, retry_in=delay)
        case Suspended():
            return replace(ran, state="suspended")
        case Cancelled():
            return replace(ran, state="cancelled")
    return ran
