"""What a transaction that somebody forgot to end does to a busy queue: its snapshot keeps every dead row."""

from __future__ import annotations

import time
from typing import NamedTuple

from absurd.bench.arena import PADDING, Arena
from absurd.bench.figures import Figure, percentile
from absurd.bench.probe import Probe
from absurd.bench.queue import drain
from absurd.database_sync import connect
from absurd.model import TaskSpec

OFFERED = 1000
"""Tasks a second."""


class Phase(NamedTuple):
    """Claims' seconds at 99 %, and the rate of a drain at the end."""

    claim: float
    drained: float


def measure(arena: Arena, *, minutes: float, tasks: int, concurrency: int) -> list[Figure]:
    """Offer tasks for some minutes, then drain many: clean, and beside a snapshot that is held."""
    clean = _phase(arena, min(minutes, 0.5), tasks, concurrency)
    with connect(arena.address) as holder, holder.transaction():
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select count(*) from pg_class")
        held = _phase(arena, minutes, tasks, concurrency)
    return [
        Figure("drained, clean", clean.drained, "tasks/s"),
        Figure("drained, snapshot held", held.drained, "tasks/s"),
        Figure("part of the rate that is kept", held.drained / clean.drained, ""),
        Figure("99 % of claims, clean", 1000 * clean.claim, "ms", higher=False),
        Figure("99 % of claims, snapshot held", 1000 * held.claim, "ms", higher=False),
    ]


def _phase(arena: Arena, minutes: float, tasks: int, concurrency: int) -> Phase:
    with arena.workers(1, concurrency), Probe(arena) as probe:
        begun = time.monotonic()
        ticks = max(1, round(minutes * 60 * 10))
        for tick in range(1, ticks + 1):  # ten times a second
            arena.client.spawn_many([TaskSpec("bench.noop", {"i": tick, "pad": PADDING})] * (OFFERED // 10))
            probe.work(1)
            time.sleep(max(0.0, begun + tick / 10 - time.monotonic()))
        arena.drained()
    return Phase(percentile(probe.spent, 0.99), drain(arena, tasks, 1, concurrency).drained)
