"""How soon a task starts on an idle worker."""

from __future__ import annotations

import random
import statistics
import time

from absurd.bench.arena import Arena
from absurd.bench.figures import Figure, percentile


def measure(arena: Arena, *, tasks: int, concurrency: int) -> list[Figure]:
    """Spawn one task at a time into an idle worker; from the return of spawn to the start, and to its known end."""
    starts, ends = [], []
    chance = random.Random(tasks)
    with arena.workers(1, concurrency):
        for _ in range(20):  # connections, plans and caches
            arena.client.wait(arena.client.spawn("bench.stamp"))
        for _ in range(tasks):
            time.sleep(chance.uniform(0.003, 0.015))  # so that the worker is idle, and not in step with us
            task = arena.client.spawn("bench.stamp")
            spawned = time.monotonic_ns()
            ended = arena.client.wait(task)
            ends.append((time.monotonic_ns() - spawned) / 1e6)
            starts.append(max(0.0, (ended.result - spawned) / 1e6))
    return [
        Figure("spawn to start, half of them", statistics.median(starts), "ms", higher=False),
        Figure("spawn to start, 99 %", percentile(starts, 0.99), "ms", higher=False),
        Figure("spawn to known end, half of them", statistics.median(ends), "ms", higher=False),
        Figure("spawn to known end, 99 %", percentile(ends, 0.99), "ms", higher=False),
    ]
