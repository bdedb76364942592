"""What a run needs, as resources of Dask workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from absurd.workers.dask.cluster import Client

RESOURCE = "dask."
"""How needs begin that a Dask worker has to have: ``dask.GPU`` is what it was started with as ``--resources GPU=1``."""
THERE = ("cpu", "memory_gib", "scratch_gib", "gpu")
"""What a run takes of its Dask worker and never of the worker that sends it.  Where no Dask worker names such a
resource it is not counted: the run would wait for ever."""
LOOK_SECONDS = 5.0
"""For how long what Dask workers name is remembered: a cluster changes."""
ANSWER_SECONDS = 15.0
"""How long the scheduler may take to tell."""


class Resources:
    """Knows which resources the workers of a cluster name."""

    def __init__(self) -> None:
        self._named: set[str] = set()
        self._until = 0.0

    async def of(self, client: Client, needs: Mapping[str, float]) -> dict[str, float]:
        """What a Dask worker must have free for a run that needs `needs`."""
        wanted = {name: amount for name, amount in needs.items() if name in THERE and amount > 0}
        if wanted:
            await self._look(client)
            wanted = {name: amount for name, amount in wanted.items() if name in self._named}
        return wanted | {
            name.removeprefix(RESOURCE): amount for name, amount in needs.items() if name.startswith(RESOURCE)
        }

    async def _look(self, client: Client) -> None:
        if time.monotonic() < self._until or client.status != "running":
            return
        with suppress(OSError, TimeoutError):  # then the run finds its cluster away
            async with asyncio.timeout(ANSWER_SECONDS):
                self._named = set(await client.run_on_scheduler(_names()))
            self._until = time.monotonic() + LOOK_SECONDS


def _names() -> Callable[..., list[str]]:
    """What the scheduler executes: sent as code, for it may know no absurd."""

    def names(dask_scheduler: Any) -> list[str]:
        return [name for name, by_worker in dask_scheduler.resources.items() if by_worker]

    return names
