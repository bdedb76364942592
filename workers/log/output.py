"""From what runs write to the logs of their tasks: gathered by claim, and appended in few calls.

Nothing waits for the database here: a run writes on while that is away, and of what cannot be stored a bounded
amount is kept.  Whoever executes runs, wherever that is, writes through a `Sink`.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol
from uuid import UUID

import structlog

from absurd.call import Call
from absurd.claims import append_log
from absurd.errors import AbsurdError, DatabaseUnavailableError
from absurd.model import Claim
from absurd.redaction import hide_in_lines, secrets_in
from absurd.workers.link import is_passing, is_refused
from absurd.workers.log.backlog import Backlog, Part, Raw
from absurd.workers.runs.threads import DaemonThreads

FLUSH_SECONDS = 0.2
"""How often lines are stored at most."""
BYTES_A_SECOND = 256 * 1024
"""How fast a run may write to the database once it has filled the first half of its log."""
CALL_BYTES = 1024 * 1024
"""Most bytes of one call, about."""
FINISH_SECONDS = 2.0
"""How long the outcome of a run waits for the end of its log to be stored."""
AWAY_BYTES = 32 * 1024 * 1024
"""How much of runs that have ended is kept in memory while the database is away."""
LONGEST_PAUSE = 5.0
INLINE_BYTES = 8 * 1024
"""How much is made ready on the loop at once; more in a thread."""
MOST_REFUSALS = 20
"""How many parts that the database refuses are looked for at once, each by several calls; then the rest is dropped."""

Key = tuple[int, UUID]
Batch = list[tuple["_Run", int, Part]]

log = structlog.get_logger("absurd.worker")


class Sink(Protocol):
    """Takes what runs write.  Safe to call from any thread; never blocks."""

    def write(self, claim: Claim, stream: str, data: bytes) -> None:
        """Take what the run of `claim` has written to `stream`: ``stdout``, ``stderr``, ``log``."""


class Output:
    """Stores what runs write; bound to the loop in which it is made.

    `call` makes a call to the database.  Of each attempt `limit` bytes are kept, 0 keeps nothing.
    """

    def __init__(self, call: Callable[[Call[Any]], Awaitable[Any]], *, limit: int) -> None:
        self.talking: dict[Key, _Run] = {}
        """Runs that have written something, until all of it is stored."""
        self.holds: Callable[[Key], bool] = lambda _: True
        """Whether the run of a claim is at work here."""
        self.away = False
        self._call = call
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._wake = asyncio.Event()
        self._storing: asyncio.Task[None] | None = None
        self._failures = 0
        self._tried_at = 0.0
        self._closed = False
        self._threads = DaemonThreads()

    def write(self, claim: Claim, stream: str, data: bytes) -> None:
        """As `Sink.write`."""
        if not data or not self._limit:
            return
        key = claim[:2]
        with self._lock:
            run = self.talking.get(key)
            is_first = run is None
            if run is None:
                if not self.holds(key):  # a job or a thread that its run has left behind
                    return
                run = self.talking[key] = _Run(claim, self._limit)
            if run.ended or run.lost:
                return
            rests, run.rests = run.rests, False
            run.written_at = time.monotonic()
            run.backlog.add(stream, run.written_at, data)
        if is_first or rests:
            with suppress(RuntimeError):  # the loop was closed over a thread that nobody waits for
                self._loop.call_soon_threadsafe(self._stir)

    async def finish(self, claim: Claim) -> None:
        """The run has ended: have what it wrote stored before its outcome is.

        Returns after a while in any case, at once while the database is away or when the run is told to stop, which
        must not take its outcome away.
        """
        run = self.talking.get(claim[:2])
        if run is None:
            return
        run.ended = True
        self._stir()
        if not self.away:
            with suppress(TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(FINISH_SECONDS):
                    await run.stored.wait()

    async def close(self) -> None:
        """Store what is left, unless the database is away."""
        self._closed = True
        for run in list(self.talking.values()):
            run.ended = True
        self._stir()
        if self._storing is not None:
            await asyncio.wait([self._storing], timeout=FINISH_SECONDS)
            self._storing.cancel()
            await asyncio.wait([self._storing])
        self._threads.close()
        if left := sum(each.size for each in list(self.talking.values())):
            log.warning("log_dropped", bytes=left, runs=len(self.talking), note="the database is away")

    # Storing ------------------------------------------------------------------------------------

    def _stir(self) -> None:
        self._wake.set()
        if self._storing is None:
            self._storing = self._loop.create_task(self._store(), name="absurd-output")

    async def _store(self) -> None:
        while not (self._closed and not self.talking):
            self._wake.clear()
            pause = self._pause()
            if pause is None or pause > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
            if self._failures and pause:
                await asyncio.sleep(min(pause, 0.1))  # woken by a run: that is no reason to ask again and again
                continue
            await self._flush()

    def _pause(self) -> float | None:
        """In how many seconds something is to be stored; None: nothing is."""
        now = time.monotonic()
        if not self.talking:
            self._failures = 0
        if self._failures:
            pause: float = min(LONGEST_PAUSE, 0.1 * 2.0 ** min(self._failures, 10))
            return max(0.0, self._tried_at + pause - now)
        with self._lock:
            waits = [run.waits_for(now) for run in self.talking.values()]
        return min((wait for wait in waits if wait is not None), default=None)

    async def _flush(self) -> None:
        now = self._tried_at = time.monotonic()
        taken: list[_Run] = []
        fresh = size = 0
        with self._lock:
            for run in self.talking.values():
                if (wait := run.waits_for(now)) is not None and wait <= 0 and size < CALL_BYTES:
                    fresh += run.take()
                    size += run.size
                    taken.append(run)
        if fresh > INLINE_BYTES:  # a look for secrets in a mebibyte would hold up the loop for long
            await self._threads.run(partial(_make_parts, taken, now))
        else:
            _make_parts(taken, now)
        if batch := [(run, number, part) for run in taken for number, part in run.unstored]:
            await self._append(batch, now)
        with self._lock:
            for key, run in list(self.talking.items()):
                run.ended = run.ended or not self.holds(key)
                if run.ended and run.is_whole and not run.unstored:
                    del self.talking[key]
                    run.stored.set()
            if self._failures:
                self._forget_some()

    async def _append(self, batch: Batch, now: float) -> None:
        """Store parts.  Of what the database refuses the one that is at fault is looked for, and the rest stored."""
        waiting = [batch]
        refusals = 0
        while waiting:
            some = waiting.pop()
            try:
                lost = set(await self._call(_call_for(some, now, self._limit)))
            except DatabaseUnavailableError as error:
                return self._failed(error)
            except AbsurdError as error:
                if is_passing(error):
                    return self._failed(error)
                if is_refused(error) and refusals < MOST_REFUSALS:
                    if half := len(some) // 2:
                        waiting += [some[half:], some[:half]]  # the first half comes next: parts stay in order
                        continue
                    run, number, _ = some[0]
                    if (note := run.refuse(number, error)) is not None:
                        refusals += 1
                        _tell_refused(some, error)
                        waiting.append([(run, number, note)])
                        continue
                else:
                    _tell_refused(some, error)
                lost = set()  # nothing comes of it either
            except Exception as error:  # whatever it is: storing must go on
                return self._failed(error)
            self._failures = 0
            self.away = False
            for run, number, part in some:
                run.stored_to(number)
                run.sent(now, part.bytes)
                if run.claim.task_id in lost:
                    run.lost = True
                    run.backlog.drop_all()
        return None

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if not self.away:
            reason = error.message if isinstance(error, AbsurdError) else f"{type(error).__name__}: {error}"
            log.warning("log_delayed", error=reason, note="runs go on; what they write is kept in memory")
        self.away = True
        for run in list(self.talking.values()):
            if run.ended:
                run.stored.set()  # nobody waits any longer

    def _forget_some(self) -> None:
        """Bound what is kept of runs that have ended; the oldest go first."""
        ended = [(key, run, run.size) for key, run in self.talking.items() if run.ended]
        size = sum(each for _, _, each in ended)
        dropped = 0
        for key, _, each in ended:
            if size - dropped <= AWAY_BYTES:
                break
            del self.talking[key]
            dropped += each
        if dropped:
            log.warning("log_dropped", bytes=dropped, note="the database is away")


class _Run:
    """What one run has written."""

    __slots__ = (
        "_final", "_next_part", "_pause", "_raw", "_refused", "_sent_at", "backlog", "claim", "ended", "is_whole",
        "lost", "rests", "stored", "unstored", "written_at",
    )  # fmt: skip

    def __init__(self, claim: Claim, limit: int) -> None:
        self.claim = claim
        secrets = secrets_in(claim.params, claim.headers)
        self.backlog = Backlog(limit, partial(hide_in_lines, secrets=secrets))
        self.unstored: list[tuple[int, Part]] = []
        """Taken, and on their way or to be sent again."""
        self.ended = False
        self.is_whole = False
        """Whether it has ended and all of it was taken."""
        self.lost = False
        self.stored = asyncio.Event()
        self.rests = False
        """Whether nothing of it is waited for: the next write has to say so."""
        self.written_at = 0.0
        self._next_part = 1
        self._raw: Raw | None = None
        self._final = False
        self._refused = 0
        self._sent_at = time.monotonic()
        self._pause = FLUSH_SECONDS

    @property
    def size(self) -> int:
        raw = 0 if self._raw is None else self._raw.size
        return self.backlog.size + raw + sum(part.bytes for _, part in self.unstored)

    def waits_for(self, now: float) -> float | None:
        """In how many seconds it has something to store; None: not until more is written.

        A run that floods its log is stored less often, but at once when it pauses.
        """
        if self.ended or self.unstored:
            return 0.0
        wait = self.backlog.waits_for(now)
        self.rests = wait is None or wait > FLUSH_SECONDS
        if wait is None:
            return None
        quiet = max(self._sent_at + FLUSH_SECONDS, self.written_at + FLUSH_SECONDS)
        return max(wait, min(self._sent_at + self._pause, quiet) - now)

    def take(self) -> int:
        """Take what was written, to be made ready by `make_parts`: so many bytes.

        None while parts are to be sent again: they go first, and alone.
        """
        if self.unstored:
            return 0
        if self._raw is None:
            self._raw, self._final = self.backlog.take_raw(), self.ended
        return self._raw.size

    def make_parts(self, now: float) -> None:
        """Make numbered parts of what was taken, without secrets."""
        if self._raw is not None:
            parts = self.backlog.make_parts(self._raw, now, final=self._final)
            self.unstored = [*enumerate(parts, self._next_part)]
            self._next_part += len(parts)
            self._raw, self.is_whole = None, self._final

    def stored_to(self, number: int) -> None:
        """Parts up to `number` need not be sent again."""
        self.unstored = [each for each in self.unstored if each[0] > number]

    def refuse(self, number: int, error: AbsurdError) -> Part | None:
        """What is to be stored in place of a part that the database refused: what is lost; None if it refuses that."""
        if self._refused == number:
            return None
        self._refused = number
        for place, (each, part) in enumerate(self.unstored):
            if each == number:
                note = part.replaced(f"The database refused them ({error.code}).\n")
                self.unstored[place] = number, note
                return note
        return None

    def sent(self, now: float, size: int) -> None:
        """So much was stored at `now`."""
        if self._sent_at != now:
            self._sent_at, self._pause = now, FLUSH_SECONDS
        if self.backlog.over:
            self._pause = max(FLUSH_SECONDS, self._pause + size / BYTES_A_SECOND)


def _make_parts(runs: list[_Run], now: float) -> None:
    for run in runs:
        run.make_parts(now)


def _tell_refused(batch: Batch, error: AbsurdError) -> None:
    log.error(
        "log_refused",
        code=error.code,
        error=error.message,
        tasks=sorted({str(run.claim.task_id) for run, _, _ in batch})[:10],
        runs=len({id(run) for run, _, _ in batch}),
        bytes=sum(part.bytes for _, _, part in batch),
    )


def _call_for(batch: Batch, now: float, limit: int) -> Call[list[UUID]]:
    return append_log(
        [run.claim.lease for run, _, _ in batch],
        [run.claim.task_id for run, _, _ in batch],
        [number for _, number, _ in batch],
        [part.bytes for _, _, part in batch],
        [part.breaks for _, _, part in batch],
        [part.dropped_bytes for _, _, part in batch],
        [part.dropped_lines for _, _, part in batch],
        [
            json.dumps([(stream, max(0, round((now - at) * 1000)), text) for stream, at, text in part.pieces])
            for _, _, part in batch
        ],
        limit,
    )
