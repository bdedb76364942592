"""Settings to a running scheduler: it makes due work appear, and takes back what lost workers held.

Any number of schedulers may run on any hosts, beside workers that make the same rounds: the database
lets one do the work and the others pass by.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import structlog

from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.loop import Loop
from absurd.maintenance import make_round
from absurd.notify import Listener
from absurd.resolve import resolve_database
from absurd.telemetry import Event

log = structlog.get_logger("absurd.scheduler")


class Scheduler:
    """The rounds of `absurd.maintenance`: as often as the settings say, when a sleeper is due, and when told."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._stopping = asyncio.Event()
        self._database: AsyncDatabase | None = None

    async def run(self) -> None:
        """Go on until `stop` is called or this coroutine is cancelled.

        Raises what `AsyncDatabase.open` raises; a database that goes away later is waited for.
        """
        url = await asyncio.to_thread(resolve_database, self.settings)
        async with AsyncDatabase(
            url, schema=self.settings.schema, prepared_statements=self.settings.prepared_statements
        ) as self._database:
            loop = Loop("maintenance", self._round, pause=self.settings.worker_poll_interval)
            async with Listener(self._database, ["ready"]) as listener:
                # The empty payload: children of ended parents want to be counted, or something may have been missed.
                with listener.subscribe("ready", lambda payload: None if payload else loop.wake()):
                    await loop.start()
                    log.info(Event.SCHEDULER_STARTED, scheduler=self.name, database=self._database.address)
                    try:
                        await self._stopping.wait()
                    finally:
                        await loop.stop()
        log.info(Event.SCHEDULER_STOPPED, scheduler=self.name)

    def stop(self) -> None:
        """End after the present round."""
        self._stopping.set()

    async def _round(self) -> float | None:
        assert self._database is not None
        done = await make_round(self._database)
        if done.recovered:
            log.info(Event.MAINTENANCE_DONE, recovered=done.recovered, promoted=done.promoted, counted=done.counted)
        return done.next_wake


def serve(settings: Settings) -> None:
    """Run a scheduler until SIGTERM or SIGINT."""

    async def main() -> None:
        scheduler = Scheduler(settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, scheduler.stop)
        await scheduler.run()

    asyncio.run(main())
