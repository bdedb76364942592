"""How fast tasks are spawned and drained."""

from __future__ import annotations

import time
from typing import NamedTuple

from absurd.bench.arena import PADDING, Arena
from absurd.bench.figures import Figure
from absurd.errors import ExecutionError


class Drain(NamedTuple):
    """Tasks per second and bytes of write-ahead log per task, of spawning and of draining."""

    spawned: float
    spawn_wal: float
    drained: float
    drain_wal: float


def drain(arena: Arena, tasks: int, processes: int, concurrency: int) -> Drain:
    """Spawn tasks that do nothing, then let worker processes that wait already have at them.

    Timed by the database's clock from the first start to the last end.  Raises ExecutionError unless each has run once.
    """
    with arena.paused():
        before = arena.wal()
        spawned = arena.spawn(tasks)
        spawn_wal = (arena.wal() - before) / tasks
        with arena.workers(processes, concurrency):
            before, since = arena.wal(), arena.now()
            arena.resume()
            arena.drained()
            wal = (arena.wal() - before) / tasks
    ran = arena.ran(since)
    if not ran.exactly(tasks):
        raise ExecutionError(f"of {tasks} tasks {ran.tasks} were completed, in {ran.runs} runs: this should never be")
    return Drain(spawned, spawn_wal, ran.rate, wal)


def measure(arena: Arena, *, tasks: int, concurrency: int) -> list[Figure]:
    """Spawn one at a time and many at once; drain with one worker process, then with two."""
    ones = min(2000, tasks)
    with arena.paused():
        begun = time.perf_counter()
        for i in range(ones):
            arena.client.spawn("bench.noop", {"i": i, "pad": PADDING})
        one_rate = ones / (time.perf_counter() - begun)
        arena.purge()
    one, two = (drain(arena, tasks, processes, concurrency) for processes in (1, 2))
    return [
        Figure("spawned one at a time", one_rate, "tasks/s"),
        Figure("spawned 10,000 a call", (one.spawned + two.spawned) / 2, "tasks/s"),
        Figure("drained by 1 process", one.drained, "tasks/s"),
        Figure("drained by 2 processes", two.drained, "tasks/s"),
        Figure("WAL per spawned task", one.spawn_wal, "bytes", higher=False),
        Figure("WAL per drained task", one.drain_wal, "bytes", higher=False),
    ]
