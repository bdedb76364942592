"""The worker's sign of life, from a thread with a loop and a connection of its own.

A worker's loop that is held up, or native code that lets other threads run, loses no lease; while not even this
thread can run, the worker's `heart` beats.  And the other way round: when the database has not answered for a whole
lease, others may have taken the runs, so this worker must stop them by itself.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog

from absurd.claims import Standing, beat
from absurd.config import Settings
from absurd.database import AsyncDatabase, AsyncSession
from absurd.errors import AbsurdError, StaleClaimError
from absurd.workers.life.heart import Heart, Longest

QUIET_INTERVAL = 10.0
"""Longest interval that a worker without anything to do takes; twice its usual one where that is less."""

log = structlog.get_logger("absurd.worker")


class Heartbeat:
    """Beats every `worker_heartbeat_interval` seconds, and when told to.

    On `loop`, it calls `on_answer` after each beat with what each of `leases` still holds and the worker's
    orders, and `on_lost` once, as its last act, when the worker was given up by the others or must take
    itself for it.  `leases`, `claiming` (the lease of a claim on its way), `started` (the tasks at work), `state` and
    `load` (what the worker tells of itself) are called in the thread, and `quiet` (whether it has nothing to do).
    Each beat notifies the channel `probe`.

    While that loop is held up, all the worker holds is kept and it is told to be held up; not for longer than the
    runs in this process may take, as `longest` says, or a lease if there are none.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        *,
        worker_id: int,
        loop: asyncio.AbstractEventLoop,
        leases: Callable[[], list[int]],
        claiming: Callable[[], int | None],
        longest: Longest,
        started: Callable[[], list[UUID]],
        state: Callable[[], str],
        load: Callable[[], Mapping[str, Any]],
        quiet: Callable[[], bool],
        probe: str | None = None,
        on_answer: Callable[[Standing], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._database = AsyncDatabase(url, schema=settings.schema, prepared_statements=settings.prepared_statements)
        self._session: AsyncSession | None = None
        self._interval = min(settings.worker_heartbeat_interval, settings.worker_lease / 3)
        self._lease = settings.worker_lease
        self._worker_id = worker_id
        self._loop = loop
        self._leases = leases
        self._claiming = claiming
        self._longest = longest
        self._heart = longest.heart = Heart(url, settings, worker_id=worker_id, interval=self._interval)
        self._loop_asked = self._loop_answered = time.monotonic()
        self._started = started
        self._state = state
        self._load = load
        self._quiet = quiet
        self._probe = probe
        self._holds = True
        self.slowest = max(self._interval, min(2 * self._interval, QUIET_INTERVAL, 0.3 * settings.worker_lease))
        """Seconds between two beats of a worker that holds nothing and has nothing to do."""
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._due = asyncio.Event()
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="absurd-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._heart.start()  # before the first run could hold up its start
        self._heart.tell(time.monotonic() + self._interval)
        self._thread.start()

    def beat_now(self) -> None:
        """Beat at once: something was taken from this worker."""
        if self._own_loop is not None:
            _tell(self._own_loop, self._due.set)

    def stop(self) -> None:
        """Beat no more.  Waits for a beat that is under way, for two seconds at most."""
        self._stopping = True
        self.beat_now()
        self._thread.join(timeout=2.0)
        self._heart.stop()

    # In the thread ------------------------------------------------------------------------------

    async def _run(self) -> None:
        self._own_loop = asyncio.get_running_loop()
        alive = time.monotonic()  # when the last beat that was answered was sent
        failures = 0
        try:
            while not self._stopping:
                self._due.clear()
                begun = time.monotonic()
                alive = max(alive, self._heart.beaten())  # what came while this thread could not run
                left = alive + self._lease - begun
                if left <= 0:
                    log.error("lease_over", seconds=round(begun - alive, 1), note="no beat was answered for so long")
                    return _tell(self._loop, self._on_lost)
                patience = min(left, 2 * self._interval)
                held_up = self._held_up_for()
                if held_up > (self._longest.seconds or self._lease) + 2 * self._interval:
                    # All that runs here had its time.  Others get it when the lease is over.
                    log.error("worker_held_up", seconds=round(held_up, 1), note="past the time limits of its runs")
                    self._heart.tell(begun + left)
                    await self._rest(min(self._interval, left))
                    continue
                self._heart.tell(begun + patience)
                try:
                    async with asyncio.timeout(patience):
                        standing = await self._beat(held_up > 0)
                except StaleClaimError:
                    return _tell(self._loop, self._on_lost)
                except Exception as error:  # whatever it is: beats must go on
                    failures += 1
                    self._disconnect()
                    reason = error.message if isinstance(error, AbsurdError) else f"{type(error).__name__}: {error}"
                    log.warning("beat_failed", error=reason, failures=failures, seconds_left=round(left, 1))
                    pause = min(self._interval, 0.1 * 2 ** min(failures, 10), left)
                else:
                    alive, failures = begun, 0
                    pause = self.slowest if self._quiet() and not self._holds else self._interval
                    _tell(self._loop, lambda standing=standing: self._on_answer(standing))  # type: ignore[misc]
                self._ask_loop()
                self._heart.tell(time.monotonic() + pause)
                await self._rest(pause)
        finally:
            self._disconnect()
            self._heart.stop()

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._due.wait()

    async def _beat(self, held_up: bool) -> Standing:
        if self._session is None:
            self._session = AsyncSession(
                await self._database.connect(),
                schema=self._database.schema,
                address=self._database.address,
                prepared_statements=self._database.prepared_statements,
            )
        if held_up:
            return await self._session.run(beat(self._worker_id, None, probe=self._probe))
        claiming = self._claiming()
        leases = self._leases()
        if claiming is not None:  # what it claims is on its way, and must not go back as never heard of
            leases.append(claiming)
        self._holds = bool(leases)
        call = beat(self._worker_id, leases, self._state(), self._started(), dict(self._load()), self._probe)
        standing = await self._session.run(call)
        if claiming is not None and not standing.held[claiming]:
            del standing.held[claiming]  # the claim came later than this beat, or brought nothing
        return standing

    # Whether the worker's loop goes round -------------------------------------------------------

    def _ask_loop(self) -> None:
        if self._loop_answered >= self._loop_asked:
            self._loop_asked = time.monotonic()
            _tell(self._loop, self._answer)

    def _answer(self) -> None:
        self._loop_answered = time.monotonic()

    def _held_up_for(self) -> float:
        """For how many seconds the loop has not gone round; 0 while that is none to speak of."""
        if self._loop_answered >= self._loop_asked:
            return 0.0
        seconds = time.monotonic() - self._loop_asked
        return seconds if seconds > 1.5 * self._interval else 0.0

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.connection.terminate()


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Have `function` called on `loop`, unless that has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function)
