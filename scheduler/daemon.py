"""Settings to a running scheduler: it makes due work appear, and takes back what lost workers held.

Any number of schedulers may run on any hosts, beside workers that make the same rounds: the database
lets one do the work and the others pass by.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from contextlib import suppress

import structlog

from absurd import inspection
from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.errors import DatabaseUnavailableError
from absurd.loop import Loop
from absurd.maintenance import LONGEST_BACKOFF, LONGEST_REST, Rest, make_round
from absurd.metrics import Sample, exposition
from absurd.metrics_server import answering
from absurd.notify import Listener
from absurd.readings import read_queue
from absurd.resolve import resolve_database
from absurd.scheduler.alerter import Alerter
from absurd.scheduler.ticker import LONGEST_LOOK, Ticker
from absurd.systemd import ServiceManager, stop_signals
from absurd.telemetry import Event

log = structlog.get_logger("absurd.scheduler")


class Scheduler:
    """Ticks of schedules when they are due, alerts, and the rounds of `absurd.maintenance`, each in its own loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(2)}"
        self._stopping = asyncio.Event()
        self._database: AsyncDatabase | None = None
        self._ticker: Ticker | None = None
        self.ready = asyncio.Event()
        """Set while it makes its rounds."""

    async def run(self) -> None:
        """Go on until `stop` is called or this coroutine is cancelled.

        Raises what `AsyncDatabase.open` raises; a database that goes away later is waited for.
        """
        url = await asyncio.to_thread(resolve_database, self.settings)
        async with AsyncDatabase(
            url, schema=self.settings.schema, prepared_statements=self.settings.prepared_statements
        ) as self._database:
            poll = self.settings.worker_poll_interval
            loop = Loop("maintenance", self._round, pause=poll, longest=LONGEST_REST, longest_backoff=LONGEST_BACKOFF)
            self._rest = Rest(poll=poll, pulse=LONGEST_LOOK)
            self._listener = Listener(self._database, ["ready", "due", "schedule"])
            ticker = self._ticker = Ticker(self._database, self.name, self._listener)
            ticks = Loop("ticks", ticker.round, pause=LONGEST_LOOK, longest_backoff=LONGEST_BACKOFF)
            alerter = Alerter(self._database, self.name, self.settings)
            alerts = Loop("alerts", alerter.round, pause=self.settings.alert_interval, longest_backoff=LONGEST_BACKOFF)
            self._listener.on_deaf = loop.wake
            async with self._listener as listener:
                with (
                    # The empty payload: children of ended parents want to be counted, or something may have
                    # been missed.
                    listener.subscribe("ready", lambda payload: None if payload else loop.wake()),
                    listener.subscribe("due", lambda at: loop.wake_in(self._rest.until(at))),
                    listener.subscribe("schedule", lambda _: ticks.wake()),
                ):
                    await loop.start()
                    await ticks.start()
                    await alerts.start()
                    log.info(Event.SCHEDULER_STARTED, scheduler=self.name, database=self._database.address)
                    self.ready.set()
                    try:
                        await self._stopping.wait()
                    finally:
                        self.ready.clear()
                        await alerts.stop()
                        await ticks.stop()
                        await loop.stop()
            with suppress(DatabaseUnavailableError):  # then the lead runs out by itself
                await ticker.resign()
                await alerter.resign()
        log.info(Event.SCHEDULER_STOPPED, scheduler=self.name)

    async def tell_metrics(self) -> str:
        """A page for Prometheus.  Raises DatabaseUnavailableError, also before `run` has reached the database."""
        if self._database is None or self._ticker is None:
            raise DatabaseUnavailableError("the database was not reached yet")
        samples = read_queue(
            await self._database.run(inspection.get_status()), await self._database.run(inspection.get_metrics())
        )
        leads = Sample("absurd_scheduler_leads", self._ticker.leads)
        return exposition([*samples, leads, *self._ticker.lateness.samples()])

    def stop(self) -> None:
        """End after the present round."""
        self._stopping.set()

    async def _round(self) -> float:
        assert self._database is not None
        hears = self._listener.listening
        done = await make_round(self._database)
        if done.recovered:
            log.info(Event.MAINTENANCE_DONE, recovered=done.recovered, promoted=done.promoted, counted=done.counted)
        return self._rest.after(done, idle=hears and self._listener.listening)


def serve(settings: Settings) -> None:
    """Run a scheduler until SIGTERM, SIGINT or SIGHUP."""
    asyncio.run(_serve(Scheduler(settings), ServiceManager.take()))


async def _serve(scheduler: Scheduler, manager: ServiceManager) -> None:
    def asked() -> None:
        manager.stopping(0)
        scheduler.stop()

    for number in stop_signals():
        asyncio.get_running_loop().add_signal_handler(number, asked)

    async def tell_ready() -> None:
        await scheduler.ready.wait()
        manager.tell(READY=1, STATUS="fires schedules and makes the rounds of upkeep")

    telling = asyncio.create_task(tell_ready())
    async with manager.attended(), answering(scheduler.settings.scheduler_metrics, scheduler.tell_metrics):
        await scheduler.run()
    telling.cancel()
