"""Whether a long queue, or a long history, slows what users feel."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from absurd.bench.arena import PADDING, QUEUE, Arena, OverdueError
from absurd.bench.figures import Figure
from absurd.bench.probe import Probe
from absurd.bench.queue import drain

BATCH = 1000
"""Tasks of a claim when a history is made."""
SECONDS = 10.0
"""How long a long queue is drained."""


def measure(arena: Arena, *, pending: int, finished: int, tasks: int, concurrency: int) -> list[Figure]:
    """Drain an empty queue's tasks; the same with a history behind; then the front of a long queue."""
    found = [Figure("drained, nothing behind", drain(arena, tasks, 1, concurrency).drained, "tasks/s")]
    if finished:
        make_history(arena, finished)
        arena.settle()
        behind = drain(arena, tasks, 1, concurrency).drained
        found.append(Figure(f"drained, {finished:,} finished behind", behind, "tasks/s"))
        found.append(Figure("part of the rate that is kept with history", behind / found[0].value, ""))
    with Probe(arena) as probe:
        found.append(Figure("empty claim", 1000 * probe.empty_claim(), "ms", higher=False))
    found.append(Figure("absurd status", 1000 * _median(arena.client.get_status), "ms", higher=False))
    if pending:
        with arena.paused():
            fill(arena, pending)
            arena.settle()
            with arena.workers(1, concurrency):
                since = arena.now()
                arena.resume()
                with suppress(OverdueError):  # more than can be drained meanwhile
                    arena.drained(SECONDS)
        rate = arena.ran(since).rate
        found.append(Figure(f"drained, {pending:,} pending before", rate, "tasks/s"))
        found.append(Figure("part of the rate that is kept with a long queue", rate / found[0].value, ""))
    return found


def fill(arena: Arena, count: int) -> None:
    """Spawn tasks inside the server."""
    for first in range(0, count, 10_000):
        arena.database.fetch(_FILL, QUEUE, min(10_000, count - first), PADDING)


_FILL = """
with ids as materialized (select array(select {schema}.new_task_id() from generate_series(1, $2::integer)) as ids)
select count(*) as spawned from ids, lateral {schema}.spawn_tasks(
    ids, array_fill($1::text, array[$2::integer]), array_fill('bench.noop'::text, array[$2::integer]),
    array(select jsonb_build_object('i', n, 'pad', $3::text) from generate_series(1, $2::integer) n)) s
"""


def make_history(arena: Arena, count: int, *, fail: bool = False) -> None:
    """Spawn, claim and complete (or fail for good) tasks inside the server, by the functions that workers call."""
    with Probe(arena) as probe:
        for first in range(0, count, 10_000):
            size = min(10_000, count - first)
            fill(arena, size)
            for at in range(0, size, BATCH):
                probe.work(min(BATCH, size - at), fail=fail)


def _median(call: Callable[[], Any], times: int = 21) -> float:
    spent = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent)
