"""What a run costs in a process, beside what it costs in a thread."""

from __future__ import annotations

from absurd.bench.arena import Arena
from absurd.bench.figures import Figure
from absurd.errors import ExecutionError

WARM_UP = 50
"""Runs that come before, so that processes and connections are there."""


def measure(arena: Arena, *, tasks: int, concurrency: int) -> list[Figure]:
    """Drain tasks that do nothing with one worker, first in threads, then in processes."""
    thread, process = (_seconds(arena, name, tasks, concurrency) * 1000 for name in ("bench.thread", "bench.process"))
    return [
        Figure("a run in a thread", thread, "ms", higher=False),
        Figure("a run in a process", process, "ms", higher=False),
        Figure("a process over a thread", process - thread, "ms", higher=False),
    ]


def _seconds(arena: Arena, name: str, tasks: int, concurrency: int) -> float:
    """Seconds of the database's clock for one run, from the first start to the last end; each slot at work."""
    with arena.workers(1, concurrency):
        arena.spawn(WARM_UP, name)
        arena.drained()
        with arena.paused():
            arena.spawn(tasks, name)
            since = arena.now()
            arena.resume()
            arena.drained()
    ran = arena.ran(since)
    if not ran.exactly(tasks):
        raise ExecutionError(f"of {tasks} tasks {ran.tasks} were completed, in {ran.runs} runs: this should never be")
    return ran.seconds / tasks * concurrency
