"""The worker's sign of life, from a thread with a connection of its own.

A loop that is blocked, or C code that keeps everything else waiting but lets threads run, loses no
lease.  And the other way round: when the database has not been reached for a whole lease, others
may have taken the runs, so this worker must stop them by itself.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from uuid import UUID

import structlog

from absurd.claims import beat
from absurd.config import Settings
from absurd.database_sync import SyncDatabase
from absurd.errors import AbsurdError, DatabaseUnavailableError, StaleClaimError

log = structlog.get_logger("absurd.worker")


class Heartbeat:
    """Beats every `worker_heartbeat_interval` seconds, and when told to."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        *,
        worker_id: int,
        loop: asyncio.AbstractEventLoop,
        leases: Callable[[], list[int]],
        running: Callable[[], int],
        state: Callable[[], str],
        on_held: Callable[[dict[int, set[UUID]]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._database = SyncDatabase(url, schema=settings.schema)
        self._interval = min(settings.worker_heartbeat_interval, settings.worker_lease / 3)
        self._lease = settings.worker_lease
        self._worker_id = worker_id
        self._loop = loop
        self._leases = leases
        self._running = running
        self._state = state
        self._on_held = on_held
        self._on_lost = on_lost
        self._due = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="absurd-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def beat_now(self) -> None:
        """Beat at once: something was taken from this worker."""
        self._due.set()

    def stop(self) -> None:
        """Beat no more.  Does not wait for a beat that hangs in the network."""
        self._stopping = True
        self._due.set()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        alive = time.monotonic()
        failing = False
        try:
            while not self._stopping:
                self._due.clear()
                begun = time.monotonic()
                try:
                    self._beat()
                except StaleClaimError:
                    self._call(self._on_lost)
                    return
                except AbsurdError as error:
                    if not isinstance(error, DatabaseUnavailableError) or not failing:
                        log.warning("beat_failed", code=error.code, error=error.message)
                    failing = True
                    if time.monotonic() - alive > self._lease:
                        self._call(self._on_lost)
                        return
                else:
                    alive, failing = begun, False
                self._due.wait(self._interval / 5 if failing else self._interval)
        finally:
            self._database.close()

    def _beat(self) -> None:
        leases = self._leases()
        self._database.open()
        held: dict[int, set[UUID]] = {lease: set() for lease in leases}
        for lease, task_id in self._database.run(beat(self._worker_id, leases, self._running(), self._state())):
            held[lease].add(task_id)
        self._call(lambda: self._on_held(held))

    def _call(self, function: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)
