"""Settings to a running worker: what ``absurd-worker`` does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping

import structlog

from absurd.config import Settings
from absurd.executor import load_modules
from absurd.telemetry import Event
from absurd.workers.pump import Until
from absurd.workers.worker import AbsurdWorker

log = structlog.get_logger("absurd.worker")


def serve(settings: Settings, queues: Mapping[str, int], until: Until = "forever") -> None:
    """Run a worker for `queues` (weights by name) until it is done or told to stop.

    The first SIGTERM or SIGINT lets runs end, for `worker_grace` seconds; the second hands back what
    has not ended at once.
    """
    load_modules(list(settings.imports))  # here, so that a module that does not exist is said at once
    asyncio.run(_serve(AbsurdWorker(queues=queues, settings=settings), until))


async def _serve(worker: AbsurdWorker, until: Until) -> None:
    loop = asyncio.get_running_loop()
    stops: list[asyncio.Task[None]] = []

    def stop(number: signal.Signals) -> None:
        log.info(Event.WORKER_STOPPING, worker=worker.name, signal=number.name, at_once=bool(stops))
        stops.append(loop.create_task(worker.stop(grace=0 if stops else None)))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        while True:
            await worker.run(until)
            if stops or until != "forever":
                return
            # It was given up by the others, who did not hear from it for a lease: it starts afresh.
    finally:
        await asyncio.gather(*stops)
