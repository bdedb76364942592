"""How soon a task starts on an idle worker."""

from __future__ import annotations

import asyncio
import random
import statistics
import time

from absurd.bench.arena import Arena
from absurd.bench.figures import Figure, percentile
from absurd.client import AbsurdClient


def measure(arena: Arena, *, tasks: int, concurrency: int) -> list[Figure]:
    """Spawn one task at a time into an idle worker; from the return of spawn to the start, and to its known end."""
    with arena.workers(1, concurrency):
        return asyncio.run(_measure(arena, tasks))


async def _measure(arena: Arena, tasks: int) -> list[Figure]:
    starts, ends = [], []
    chance = random.Random(tasks)
    async with AbsurdClient(settings=arena.settings) as client:
        for n in range(-20, tasks):  # the first are for connections, plans and caches
            await asyncio.sleep(chance.uniform(0.003, 0.015))  # so that the worker is idle, and not in step with us
            task = await client.spawn("bench.stamp")
            spawned = time.monotonic_ns()
            ended = await client.wait(task)
            if n >= 0:
                ends.append((time.monotonic_ns() - spawned) / 1e6)
                starts.append(max(0.0, (ended.result - spawned) / 1e6))
    return [
        Figure("spawn to start, half of them", statistics.median(starts), "ms", higher=False),
        Figure("spawn to start, 99 %", percentile(starts, 0.99), "ms", higher=False),
        Figure("spawn to known end, half of them", statistics.median(ends), "ms", higher=False),
        Figure("spawn to known end, 99 %", percentile(ends, 0.99), "ms", higher=False),
    ]
