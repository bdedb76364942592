"""``spawn --here``: a worker in this process, for one task, in a queue that nobody else uses and that goes with it."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from absurd.cli.output import duration, in_order, note
from absurd.cli.queue import HERE
from absurd.cli.waiting import ENDED, Document, Painter
from absurd.errors import AbsurdError, WaitTimeoutError
from absurd.model import Task
from absurd.redaction import discreet

if TYPE_CHECKING:
    from absurd.client import AbsurdClient
    from absurd.config import Settings

LOOK_SECONDS = 0.05


def run_here(
    settings: Settings, name: str, params: Any, options: dict[str, Any], *, timeout: float | None, show: bool
) -> Document:
    """Spawn the task, run it to its end in this process, and return its document.

    If this is interrupted, or `timeout` seconds pass, the task is cancelled: nobody else would run it.
    Raises WaitTimeoutError, KeyboardInterrupt.
    """
    try:
        return asyncio.run(_spawn_and_serve(settings, name, params, options, timeout, show))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _spawn_and_serve(
    settings: Settings, name: str, params: Any, options: dict[str, Any], timeout: float | None, show: bool
) -> Document:
    from absurd.client import AbsurdClient
    from absurd.telemetry import configure_logging
    from absurd.workers import AbsurdWorker

    configure_logging(replace(settings, log_level="warning") if settings.log_level == "info" else settings)
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    queue = f"{HERE}.{uuid4()}"
    async with AbsurdClient(settings=settings) as client:
        task_id = await client.spawn(name, params, **options | {"queue": queue})
        if show:
            note(f"Task {task_id}")
        worker = AbsurdWorker(queues=[queue], settings=settings, offers={"dask": 1, **(settings.worker_offers or {})})
        serving = asyncio.create_task(worker.run())
        try:
            await _watch(client, task_id, serving, timeout, show)
        except BaseException:
            with suppress(AbsurdError):
                await client.cancel(task_id, reason="interrupted")
            await worker.stop(grace=0)
            raise
        finally:
            await worker.stop()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await _tidy(client, queue, task_id)
        return await _document(client, task_id)


async def _tidy(client: AbsurdClient, queue: str, task_id: UUID) -> None:
    """Keep what has ended in the queue of all that ran here; one that others hold, or with tasks left, stays."""
    from absurd.queue import move_ended

    with suppress(AbsurdError):
        await client.run(move_ended(queue, HERE, task_id))
        await client.drop_queue(queue)


async def _watch(
    client: AbsurdClient, task_id: UUID, serving: asyncio.Task[None], timeout: float | None, show: bool
) -> None:
    """Return when the task has ended; raise what ended the worker before."""
    deadline = None if timeout is None else time.monotonic() + timeout
    painter = Painter()
    try:
        while (document := await _document(client, task_id))["state"] not in ENDED:
            if show:
                painter.paint(document)
            if serving.done():
                await serving
                raise AbsurdError("the worker in this process stopped before the task ended", id=str(task_id))
            if deadline is not None and time.monotonic() > deadline:
                raise WaitTimeoutError(
                    f"task {task_id} did not end within {duration(timeout)} and was cancelled", id=str(task_id)
                )
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        painter.clear()


async def _document(client: AbsurdClient, task_id: UUID) -> Document:
    from absurd.inspection import get_task_document

    return discreet(in_order(await client.run(get_task_document(task_id)), *Task.__dataclass_fields__))
