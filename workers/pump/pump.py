"""The hot path of a worker: claim > execute > record, overlapped.

One coroutine steps the database: each step records what has finished and claims what comes next,
while what was claimed before runs.  Nothing is counted or timed between; the batches size
themselves by how much finishes during a step.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from uuid import UUID

import structlog

from absurd.errors import AbsurdError
from absurd.executor import Executor, Registry
from absurd.model import Claim
from absurd.outcome import Failed, Outcome, Returned, Suspended
from absurd.workers.failures import describe
from absurd.workers.jobs import cancel_begun
from absurd.workers.link import Link, is_refused
from absurd.workers.log.output import Output
from absurd.workers.pump.calls import Answer, Unread, read_claims, record, step, unreadable_body
from absurd.workers.pump.pace import MAX_BATCH, Pace
from absurd.workers.pump.recording import Key, Recorder
from absurd.workers.pump.reports import Report, completions, is_plain
from absurd.workers.pump.source import Source, Step, Until, choose

FLUSH_SECONDS = 0.02
"""How old an outcome may grow before it is recorded, even if nothing is to be claimed."""
END_SECONDS = 10.0
"""How long the runs of a pump that has failed are waited for, once they were stopped."""
CLAIMS = 2**32 - 2
"""How many claims a worker makes under one number: the count of them is the low half of a lease's id."""
UNKNOWN_EXECUTOR_SECONDS = 60.0
"""How long a task whose executor this worker does not know is put aside; a worker that knows it wakes it."""

log = structlog.get_logger("absurd.worker")


class Pump:
    """Claims, executes and records until it is told to stop."""

    def __init__(
        self,
        *,
        link: Link,
        worker_id: int,
        sources: list[Source],
        executors: dict[int, str],
        refresh_names: Callable[[], Awaitable[None]],
        registry: Registry,
        execute: Callable[[Claim, Executor], Awaitable[Outcome | None]],
        output: Output,
        publish: Callable[[Report], None],
        listen: Callable[[bool], Awaitable[None]],
        remaining: Callable[[], Awaitable[int]],
        concurrency: int,
        prefetch: int | None,
        poll_seconds: float,
        dead_letters: bool,
    ) -> None:
        self._link = link
        self._next_lease = (worker_id << 32) + 1
        self.sources = sources
        self._executors = executors
        self._refresh_names = refresh_names
        self._registry = registry
        self._execute, self._output = execute, output
        self._listen = listen
        self._remaining = remaining
        self._pace = Pace(prefetch)
        self._poll_seconds = poll_seconds
        self.recorder = Recorder(link, publish, dead_letters=dead_letters)
        self.concurrency = concurrency

        self._step_sent: tuple[Step, asyncio.Future[Answer]] | None = None
        self._unread: Unread | None = None
        self._waiting: deque[Claim] = deque()
        # By claim, not by task: a task that was lost may be claimed anew while its old run still ends.
        self.running: dict[Key, tuple[Claim, asyncio.Task[None]]] = {}
        self._lost: set[Key] = set()
        self._reports: list[Report] = []
        self._recording: list[Report] = []  # on their way to the database
        self._oldest_report = 0.0
        self._wake = asyncio.Event()
        self.listening = False
        """Whether the database notifies this worker of what becomes claimable."""
        self.listened = 0
        """How often it has begun to."""
        self._busy_since: float | None = None
        self.stopping = False
        self.spent = False
        """Whether it has stopped because all claims of this number are made."""
        self._aborted = False
        self._released = False  # reports were made without a claim behind them, which would have found what came free

    # What others tell the pump ------------------------------------------------------------------

    def wake(self, queue: str | None = None) -> None:
        """Something may be claimable in `queue` (None: in any)."""
        for source in self.sources:
            if queue is None or source.name == queue:
                source.wake()
        self._fill()  # `concurrency` may have grown
        self._wake.set()

    def leases(self) -> list[int]:
        """Every lease this worker has heard of; safe to call from another thread.

        Looks in the order in which claims go on, and each is put where it goes before it leaves where it was:
        one that is missed would be taken for never heard of.
        """
        known = set()
        if (unread := self._unread) is not None:
            known.add(unread.lease)
        known.update(claim.lease for claim in list(self._waiting))
        known.update(lease for lease, _ in list(self.running))
        known.update(report.claim.lease for report in [*self._reports, *self._recording])
        return list(known)

    def claiming(self) -> int | None:
        """The lease of a claim whose answer is not read yet; ask before `leases`, and from any thread."""
        sent = self._step_sent
        return sent[0].lease if sent is not None and sent[0].source is not None else None

    def started(self) -> list[UUID]:
        """The tasks at work; safe to call from another thread."""
        return [task_id for _, task_id in list(self.running)]

    def unrecorded(self) -> list[Report]:
        """Outcomes that the database has not acknowledged."""
        return [*self._recording, *self._reports]

    def lose(self, held: dict[int, set[UUID]]) -> None:
        """Stop what is no longer ours: `held` tells, for each lease asked about, what still is."""
        for key, (claim, job) in list(self.running.items()):
            if claim.lease in held and claim.task_id not in held[claim.lease]:
                log.warning("claim_lost", task_id=str(claim.task_id), attempt=claim.attempt)
                self._lost.add(key)
                cancel_begun(job)
        self._waiting = deque(
            claim for claim in self._waiting if claim.lease not in held or claim.task_id in held[claim.lease]
        )

    def stop(self) -> None:
        """Claim nothing more, and hand back what has not started; `run` returns when the rest has ended."""
        self.stopping = True
        self._hand_back()
        self._wake.set()

    def resume(self) -> None:
        """Claim again from the next wake on, if `run` has not returned yet."""
        self.stopping = self._aborted or self.spent

    def abort(self) -> None:
        """Hand back at once what still runs."""
        self.stop()
        self._aborted = True
        for _, job in list(self.running.values()):
            cancel_begun(job)

    async def stop_runs(self) -> None:
        """Stop all runs of a pump that has failed, and wait until they have ended; their outcomes are kept."""
        self.abort()
        if self.running:
            await asyncio.wait([job for _, job in self.running.values()], timeout=END_SECONDS)

    # The loop -----------------------------------------------------------------------------------

    async def run(self, until: Until = "forever") -> None:
        """Work until stopped, or until there is nothing left as `until` says.

        Cancelled, it may be called again: a step that was on its way is read first.
        """
        if self._step_sent is not None:
            await self._read_answer()
        elif self._recording:  # not acknowledged: told again, and recognised if it had arrived
            self._reports[:0] = self._recording
            self._recording = []
        while True:
            source = None if self.stopping else self._claimable()
            if self._stall_over() <= 0:
                self._hand_back()
                self._pace.forget()
            if source is not None or self._report_due():
                await self._step(source or self._released_into())
            elif self._unread is not None:
                await self._begin()
            elif self.stopping:
                if not self.running and not self._reports:
                    return
                await self._rest()
            elif until != "forever" and not self.running and await self._nothing_left(until):
                self.stopping = True
            else:
                await self._rest()

    async def _nothing_left(self, until: Until) -> bool:
        if until == "drain":
            return await self._remaining() == 0
        released, self._released = self._released, False
        if released:
            self.wake()
        return not released

    def _room(self) -> int:
        """How many more runs may be claimed now."""
        unread = len(self._unread.answer.task_ids) if self._unread else 0
        return self.concurrency + self._ahead() - len(self.running) - len(self._waiting) - unread

    def _ahead(self) -> int:
        """How many runs to hold beyond those that execute, so that no slot waits for the database."""
        waits = any(source.waits for source in self.sources)
        return 0 if waits else self._pace.ahead(self.concurrency)

    def _stall_over(self) -> float:
        """In how many seconds what waits for a slot is handed back, if none becomes free."""
        return self._pace.stall_over() if self._waiting else math.inf

    def _hand_back(self) -> None:
        """Give up what waits for a slot."""
        while self._waiting:
            self._add_report(Report(self._waiting[0], None, Returned()))
            self._waiting.popleft()

    def _claimable(self) -> Source | None:
        """The queue whose turn it is, among those that may have something; None without room.

        Never one run alone to be kept waiting: a lone claim counts as started when its worker is lost.
        """
        room = self._room()
        if room <= 0 or (room == 1 and self._ahead() > 1):
            return None
        return choose(self.sources, time.monotonic())

    def _released_into(self) -> Source | None:
        """The queue of what has finished: what waited for it is mostly there, and can be claimed in the same trip.

        Only into a free slot.  A lone claim counts as started when its worker is lost, so it must start at once.
        """
        if self.stopping or not self._reports or self._room() <= self._ahead():
            return None
        queue = self._reports[-1].claim.queue
        return next((source for source in self.sources if source.name == queue), None)

    def _report_due(self) -> bool:
        if not self._reports:
            return False
        return (
            not (self.running or self._unread)
            or self.stopping
            or time.monotonic() - self._oldest_report >= FLUSH_SECONDS
        )

    async def _step(self, source: Source | None) -> None:
        """Record what has finished and claim from `source`, in one round trip when nothing special is in it.

        The answer before is read while the database works on this step, and this one's with the next.
        """
        now = time.monotonic()
        reports = self._recording = self._reports
        self._reports = []
        special = [report for report in reports if not is_plain(report)]
        if special:
            reports = [report for report in reports if is_plain(report)]
            await self.recorder.record(special)
            if source is None and not reports:
                self._recording = []
                self._released = True
                return
        if source is None:
            self._released = True
            sent = Step(None, self._next_lease, 0, False, now)
            call = record(completions(reports, now))
        else:
            sent = Step(source, self._next_lease, min(self._room(), MAX_BATCH), source.marks.from_base(now), now)
            if sent.from_base:  # it will see all there is; what comes later is heard, even before the answer
                source.rest(self._poll_seconds)
            marks = source.marks.arrays(sent.from_base)
            slots = max(0, self._room() - self._ahead())
            call = step(completions(reports, now), sent.lease, source.queue_id, sent.wanted, slots, *marks)
        self._step_sent = (sent, asyncio.ensure_future(self._link.run(call)))
        await asyncio.sleep(0)  # now it is on its way
        if self._unread is not None:
            await self._begin()
        await self._read_answer()
        await self._hush(now, self._unread is not None)

    async def _read_answer(self) -> None:
        """Take the answer of the step on its way.  Shielded: what it records must not be reported twice."""
        assert self._step_sent is not None
        sent, request = self._step_sent
        try:
            answer = await asyncio.shield(request)
        except AbsurdError as error:
            reports = [report for report in self._recording if is_plain(report)]
            if not reports or not is_refused(error):
                raise
            self._step_sent = None  # it has done nothing: find out whose outcome was refused
            await self.recorder.record_apart(reports)
            self._recording = []
            self.wake()
            return
        self.recorder.tell_stale(answer.stale, self._recording)
        self._recording = []
        if sent.source is not None:
            if answer.task_ids:
                self._next_lease += 1
                if self._next_lease % 2**32 > CLAIMS:
                    self.spent = True
                    self.stop()
                self._unread = Unread(answer, sent.lease, sent.source.name)
            sent.source.learn(sent, answer, self._poll_seconds)
        self._step_sent = None  # only now: the heartbeat must find its lease in one place or the other

    # Executing ----------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Start what the last answer brought, or hand it back when stopping."""
        assert self._unread is not None
        answer, lease, queue = self._unread
        if not all(map(self._executors.__contains__, answer.executor_ids)):
            await self._refresh_names()
        if not self._waiting:
            self._pace.moved()
        claims, unreadable = read_claims(answer, lease, queue, self._executors)
        self._waiting.extend(claims)
        for claim in unreadable:
            self._add_report(Report(claim, time.monotonic(), Failed(describe(unreadable_body(claim)), None)))
        self._unread = None
        if self.stopping:
            self._hand_back()
        else:
            self._fill()

    def _fill(self) -> None:
        """Start what waits, as far as there are slots."""
        running, waiting = self.running, self._waiting
        create = partial(asyncio.Task, loop=asyncio.get_running_loop(), name="run")  # a name made up for each costs
        while waiting and len(running) < self.concurrency:
            claim = waiting[0]
            executor = self._registry.get(claim.name)
            if executor is None:
                aside = Suspended("no_executor", delay=UNKNOWN_EXECUTOR_SECONDS)
                self._add_report(Report(claim, time.monotonic(), aside))
            else:
                running[claim[:2]] = (claim, create(self._run(claim, executor)))
            waiting.popleft()

    async def _run(self, claim: Claim, executor: Executor) -> None:
        started = time.monotonic()
        try:
            outcome = await self._execute(claim, executor)
        except asyncio.CancelledError:
            outcome = Returned()
        except Exception as error:
            log.exception("run_broken", task_id=str(claim.task_id), attempt=claim.attempt)
            outcome = Failed(describe(error, claim=claim), None)
        key = claim[:2]
        if key in self._output.talking:
            await self._output.finish(claim)
        if self._aborted and type(outcome) is Failed:  # what stopping made of it is not the run's failure
            outcome = Returned()
        if key in self._lost:  # nobody to report to
            self._lost.discard(key)
            outcome = None
        self._pace.ended(started)
        if outcome is not None:
            self._add_report(Report(claim, started, outcome))
        for source in self.sources:
            source.hear_end(claim)
        del self.running[key]  # only now: the heartbeat must find its lease in one place or the other
        if self._waiting:
            self._fill()
        self._wake.set()

    def _add_report(self, report: Report) -> None:
        if not self._reports:
            self._oldest_report = time.monotonic()
        self._reports.append(report)

    # Waiting ------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        """Wait until something finishes, is due, or may be claimable."""
        self._busy_since = None
        if not self.stopping and not self.listening and self._room() > 0:
            # Announced first, then looked once more: a spawn that read the flag before that was
            # committed has notified nobody.
            await self._listen(True)
            self.listening = True
            self.listened += 1
            self.wake()
            return
        self._wake.clear()
        until = time.monotonic() + min(self._poll_seconds, self._stall_over())
        if self._reports:
            until = min(until, self._oldest_report + FLUSH_SECONDS)
        if not self.stopping and self._room() > 0:
            until = min(until, *(source.due for source in self.sources))
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self._wake.wait()

    async def _hush(self, now: float, found: bool) -> None:
        """Once busy for a while, ask for no more notifications: they cost the spawners."""
        if not found:
            self._busy_since = None
        elif self._busy_since is None:
            self._busy_since = now
        elif self.listening and now - self._busy_since > FLUSH_SECONDS:
            self.listening = False
            await self._listen(False)
