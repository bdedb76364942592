"""Announcing a worker to the database: its row, and what its executors are."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from collections.abc import Coroutine, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from absurd import claims
from absurd.call import Call
from absurd.config import Settings
from absurd.errors import ConfigurationError
from absurd.executor import Executor, Registry
from absurd.retry import RetryPolicy
from absurd.workers.host.machine import describe_process
from absurd.workers.jobs import to_its_end
from absurd.workers.link import Link
from absurd.workers.runs.origin import refuse_in_child

BEGINNING_SECONDS = 1.0
"""How long a worker that is stopped goes on announcing itself, so as to leave no announcement behind."""


class Beginning:
    """A worker's announcement, which can be called off: it may have to wait, and nothing is at work before."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._job: asyncio.Task[None] | None = None

    async def run(self, announcing: Coroutine[Any, Any, None]) -> bool:
        """Announce to the end, even if cancelled: what that leaves in the database has to be known.

        False if it was called off.
        """
        job = self._job = asyncio.create_task(announcing)
        try:
            await to_its_end(job)
        except asyncio.CancelledError:
            if not job.cancelled():
                raise
            await self._link.call_off()
            if (caller := asyncio.current_task()) is not None and caller.cancelling():
                raise
            return False
        return True

    async def call_off(self) -> None:
        """Give it a moment to end, and then end it."""
        if self._job is not None and not self._job.done():
            await asyncio.wait([self._job], timeout=BEGINNING_SECONDS)
            self._job.cancel()


async def register(
    link: Link,
    name: str,
    *,
    queues: Sequence[str],
    concurrency: int,
    offers: Mapping[str, float],
    settings: Settings,
    registry: Registry,
    home: Path,
    cluster: bool = False,
    former: int | None = None,
) -> int:
    """Announce a worker and the executors of `registry`; returns its number.

    `home` is the folder of the receipts that workers of this machine leave to one another, `cluster` as in `announce`,
    `former` its number before it was given up.  Raises ConfigurationError while a child process imports the program.
    """
    refuse_in_child()
    number = await link.run(
        claims.register_worker(
            name,
            socket.gethostname(),
            os.getpid(),
            list(queues),
            concurrency,
            versions={"absurd": version("absurd"), "python": platform.python_version()},
            offers=dict(offers),
            lease_seconds=settings.worker_lease,
            reserve_after=settings.worker_reserve_after,
            machine=describe_process(home),
            defaults={"max_attempts": settings.max_attempts, "dead_letters": settings.dlq_enabled},
            former=former,
        )
    )
    await link.run(announce(settings, registry, cluster=cluster))
    return number


def announce(
    settings: Settings, registry: Registry, queues: Sequence[str] = (), *, cluster: bool = False
) -> Call[None]:
    """Tell what a worker can run; with a Dask `cluster` tasks that were put aside for want of one wake up.

    What is missing of `queues` is made, unless that would have to wait.
    """
    default = RetryPolicy(max_attempts=settings.max_attempts)
    described = [
        {
            "name": each.name,
            "queue": each.queue,
            "runs_in": each.runs_in,
            "reached": each.runs_in != "dask" or cluster,
            "description": each.description,
            "max_attempts": (each.retry or default).max_attempts,
            "retry": (each.retry or default).to_json(),
            "timeout": each.timeout,
            "needs": dict(each.needs or {}),
            "params_schema": each.params_schema(),
        }
        for each in registry
    ]
    return claims.register_executors(described, queues)


def registry_of(executors: Sequence[Any]) -> Registry:
    """A registry of `executors` alone.  Raises ConfigurationError."""
    chosen = Registry()
    for each in executors:
        if not isinstance(each, Executor):
            raise ConfigurationError(f"executors of a worker hold {each!r}; each must be decorated with @executor")
        chosen.add(each)
    return chosen
