"""What needs cost: tasks that need something are drained beside tasks that need nothing."""

from __future__ import annotations

from absurd.bench.arena import Arena, Needs
from absurd.bench.figures import Figure
from absurd.errors import ExecutionError

WARM_UP = 100
"""Runs that come before, so that connections and plans are there."""
KINDS = 200
TOTAL = 4
UNIT, SHARED = "bench.unit", "bench.shared"

NEEDS: dict[str, Needs] = {
    "no needs": lambda i: None,
    "needs of one kind": lambda i: {UNIT: 1},
    f"needs of {KINDS} kinds": lambda i: {UNIT: 1 + i % KINDS / KINDS},
    f"a share of {TOTAL}": lambda i: {SHARED: 1},
}


def measure(arena: Arena, *, tasks: int, concurrency: int) -> list[Figure]:
    """Drain tasks that do nothing with one worker, which has room for all that it has slots for."""
    arena.client.set_resource(SHARED, TOTAL)
    rates = {}
    with arena.workers(1, concurrency, "--offers", f"{UNIT}={2 * concurrency}"):
        for name, needs in NEEDS.items():
            arena.spawn(WARM_UP, needs=needs)
            arena.drained()
            rates[name] = _rate(arena, tasks, needs)
    plain = rates["no needs"]
    return [Figure(f"drained, {name}", rate, "tasks/s") for name, rate in rates.items()] + [
        Figure(f"part of the plain rate, {name}", rate / plain, "") for name, rate in rates.items() if rate is not plain
    ]


def _rate(arena: Arena, tasks: int, needs: Needs) -> float:
    """Tasks per second of the database's clock, from the first start to the last end."""
    with arena.paused():
        arena.spawn(tasks, needs=needs)
        arena.settle()
        since = arena.now()
        arena.resume()
        arena.drained()
    ran = arena.ran(since)
    if not ran.exactly(tasks):
        raise ExecutionError(f"of {tasks} tasks {ran.tasks} were completed, in {ran.runs} runs: this should never be")
    return ran.rate
