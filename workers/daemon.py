"""Settings to a running worker: what ``absurd-worker`` does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress

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
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(AbsurdWorker(queues=queues, settings=settings), until))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where that is installed (extra `fast`); None is asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(worker: AbsurdWorker, until: Until) -> None:
    loop = asyncio.get_running_loop()
    leaving: list[asyncio.Task[None]] = []
    working: asyncio.Task[None] | None = None

    async def leave(grace: float | None) -> None:
        await worker.stop(grace)
        if working is not None:  # it has ended, unless it was only about to begin
            working.cancel()

    def asked(number: signal.Signals) -> None:
        log.info(Event.WORKER_STOPPING, worker=worker.name, signal=number.name, at_once=bool(leaving))
        leaving.append(loop.create_task(leave(0 if leaving else None)))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    while not leaving:
        # Again, if the others gave it up because they did not hear from it for a lease.
        working = loop.create_task(worker.run(until))
        with suppress(asyncio.CancelledError):
            await working
        if until != "forever":
            break
    await asyncio.gather(*leaving)
