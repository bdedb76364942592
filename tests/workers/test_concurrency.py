"""As many runs at once as a worker may have, no fewer and no more; and queues by their weights."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from live import working

from absurd import AbsurdClient, TaskSpec, executor
from absurd.config import Settings


class Gauge:
    """How many runs are at work, and how many there were at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.now = self.most = 0
        self.order: list[str] = []

    def change(self, by: int) -> None:
        with self._lock:
            self.now += by
            self.most = max(self.most, self.now)


gauge = Gauge()


@executor("gauge.loop")
async def in_loop(ctx: Any, params: Any) -> None:
    """Be at work for a moment."""
    gauge.change(1)
    gauge.order.append(ctx.queue)
    await asyncio.sleep(0.01)
    gauge.change(-1)


@executor("gauge.thread", runs_in="thread")
def in_thread(ctx: Any, params: Any) -> None:
    """As `in_loop`, without awaiting."""
    gauge.change(1)
    time.sleep(0.01)
    gauge.change(-1)


@pytest.mark.parametrize("name", ["gauge.loop", "gauge.thread"])
async def test_concurrency_k_runs_k(settings: Settings, client: AbsurdClient, name: str) -> None:
    """The high-water mark of runs at work is the concurrency, however many are claimed ahead."""
    gauge.reset()
    ids = await client.spawn_many(TaskSpec(name) for _ in range(200))
    async with working(settings, concurrency=7):
        for each in ids:
            await client.wait(each, timeout=60)

    assert (7, 0) == (gauge.most, gauge.now)


async def test_concurrency_k_runs_k_processes(settings: Settings, client: AbsurdClient, tmp_path: Path) -> None:
    """Child processes at work are as many at once as the concurrency, no fewer and no more."""
    notes = tmp_path / "notes"
    async with working(replace(settings, imports=("slot_executors",)), concurrency=3):
        params = {"notes": str(notes), "together": 3}
        for each in await client.spawn_many(TaskSpec("slots.gauge", params) for _ in range(24)):
            await client.wait(each, timeout=60)
    at_work = list(accumulate(1 if line == "+" else -1 for line in notes.read_text().split()))

    assert (3, 0, 48) == (max(at_work), at_work[-1], len(at_work))


async def test_queues_are_claimed_by_their_weights(settings: Settings, client: AbsurdClient) -> None:
    """While both have tasks, a queue of weight 3 gets three times as many runs as one of weight 1."""
    gauge.reset()
    ids = [
        each
        for queue in ("heavy", "light")
        for each in await client.spawn_many(TaskSpec("gauge.loop", queue=queue) for _ in range(120))
    ]
    async with working(settings, queues={"heavy": 3, "light": 1}, concurrency=1, prefetch=0):
        for each in ids:
            await client.wait(each, timeout=60)
    shares = Counter(gauge.order[:120])

    assert shares["heavy"] == pytest.approx(90, abs=6), shares
