"""Settings to a running worker: what ``absurd-worker`` does."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
from collections.abc import Callable, Coroutine, Mapping
from contextlib import closing, suppress
from typing import Any

import structlog

from absurd.config import Settings
from absurd.executor import load_modules
from absurd.metrics import Sample, exposition
from absurd.metrics_server import answering
from absurd.systemd import ServiceManager, stop_signals
from absurd.telemetry import Event
from absurd.workers.host.load import resident_bytes
from absurd.workers.pump.source import Until
from absurd.workers.reloading import Seen, begin_anew, load_or_wait, watch
from absurd.workers.runs.timings import Timings
from absurd.workers.worker import AbsurdWorker

log = structlog.get_logger("absurd.worker")


def serve(settings: Settings, queues: Mapping[str, int], until: Until = "forever", *, reload: bool = False) -> None:
    """Run a worker for `queues` (weights by name) until it is done, drained or told to stop.

    The first SIGTERM, SIGINT or SIGHUP lets runs end, for `worker_grace` seconds; the second hands back
    what has not ended at once.  With `reload` this process begins anew when files of executors change.
    """
    seen: Seen | None = None
    if reload:
        seen = load_or_wait(settings)
    else:
        load_modules(list(settings.imports))  # here, so that a module that does not exist is said at once
    faulthandler.enable()  # where it stood when a watchdog ends it, or native code
    manager = ServiceManager.take()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        timings = None if settings.worker_metrics is None else Timings()
        worker = AbsurdWorker(queues=queues, settings=settings, timings=timings)
        again = runner.run(_scraped(worker, timings, _serve(worker, until, manager, seen)))
    if again:
        begin_anew({**os.environ, **manager.variables})


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where that is installed (extra `fast`); None is asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _scraped(worker: AbsurdWorker, timings: Timings | None, served: Coroutine[Any, Any, bool]) -> bool:
    """Let the worker live, with its metrics where they are asked for."""

    async def tell() -> str:
        busy, slots = worker.busy
        samples = [Sample("absurd_worker_slots", slots), Sample("absurd_worker_slots_busy", busy)]
        if (resident := resident_bytes()) is not None:
            samples.append(Sample("absurd_worker_resident_bytes", resident))
        return exposition([*samples, *(timings.samples() if timings else ())])

    with closing(served):  # should it never begin
        async with answering(worker.settings.worker_metrics, tell):
            return await served


async def _serve(worker: AbsurdWorker, until: Until, manager: ServiceManager, seen: Seen | None) -> bool:
    """Run the worker to its end; tells whether that is because its code is not as `seen` any more."""
    loop = asyncio.get_running_loop()
    leaving: list[asyncio.Task[None]] = []
    working: asyncio.Task[None] | None = None
    changed = False

    async def leave(grace: float | None) -> None:
        await worker.stop(grace)
        if working is not None:  # it has ended, unless it was only about to begin
            working.cancel()

    def asked(number: signal.Signals) -> None:
        nonlocal changed
        changed = False
        log.info(Event.WORKER_STOPPING, worker=worker.name, signal=number.name, at_once=bool(leaving))
        manager.stopping(worker.settings.worker_grace)
        leaving.append(loop.create_task(leave(0 if leaving else None)))

    def reloading() -> None:
        nonlocal changed
        if not leaving:  # else it leaves already, and what begins anew takes the files as they are then
            changed = True
            leaving.append(loop.create_task(leave(None)))

    for number in stop_signals():
        loop.add_signal_handler(number, asked, number)
    async with manager.attended(lambda: _status(worker)):
        beside = [loop.create_task(_tell_ready(worker, manager))]
        if seen is not None:
            beside.append(loop.create_task(watch(seen, reloading)))
        while not leaving:
            # Again, if it had stopped claiming to drain, and that was taken back before it had left.
            working = loop.create_task(worker.run(until))
            with suppress(asyncio.CancelledError):
                await working
            if until != "forever" or worker.drained:
                break
        await asyncio.gather(*leaving)
        for each in beside:
            each.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    return changed


async def _tell_ready(worker: AbsurdWorker, manager: ServiceManager) -> None:
    await worker.ready.wait()
    manager.tell(READY=1)
    manager.status(_status(worker))


def _status(worker: AbsurdWorker) -> str:
    """What the worker does, in a line."""
    if not worker.ready.is_set():
        return "connecting to the database"
    running, concurrency = worker.busy
    what = "draining: " if worker.drained else ""
    return f"{what}{running} of {concurrency} slots busy, queues {' '.join(worker.queues)}"
