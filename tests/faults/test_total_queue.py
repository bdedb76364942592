"""The total-queue proof: whatever happens to clients, workers, server and network, each task ends, and ends once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.siege import Siege
from proof import amount, seed_of


@pytest.mark.parametrize("round_", range(amount(1, 20)))
def test_nothing_is_lost_or_doubled_under_attack(tmp_path: Path, round_: int) -> None:
    """After a full drain: lost = 0, unexpected = 0, one effective completion a task, counts recounted (B111-B116)."""
    seed = seed_of("total queue") + round_
    chance = random.Random(seed)
    siege = Siege(tmp_path, seed, spawners=2, workers=3, tasks=amount(300, 3000), pause=0.02)
    try:
        siege.keep_alive()
        deadline = time.monotonic() + amount(20, 300)
        while siege.spawning and time.monotonic() < deadline:
            time.sleep(chance.uniform(0.2, 1.5))
            siege.attack(chance)
            siege.keep_alive()
        siege.drain(600)
        found = siege.judge()
        print(dict(siege.done), f"recovered {len(found.recovered)}, executed again {len(found.duplicated)}")
    finally:
        siege.end()

    assert found.lost == set()
    assert found.unexpected == set()
    assert found.problems == []


def test_what_was_never_acknowledged_is_found(tmp_path: Path, until: Callable[[Callable[[], object]], None]) -> None:
    """A client killed before it heard that its spawn was committed never asks again: its task is recovered (B113)."""
    seed = seed_of("recovered")
    chance = random.Random(seed)
    losses = amount(3, 30)
    siege = Siege(tmp_path, seed, spawners=1, workers=1, tasks=10 * losses, ask_again=False)
    siege.routes = [(siege.url, True), (siege.proxy.url, False)]  # the client's is the second
    try:
        for n in range(losses):
            siege.proxy.lose_answer("spawn_", chance.randint(1, 8), hold=True)
            siege.keep_alive()
            until(lambda n=n: siege.proxy.lost_answers > n)  # type: ignore[misc]
            siege.kill_spawner(chance)
            siege.spawners[0].wait()
            siege.proxy.resume()
        siege.drain(600)
        found = siege.judge()
    finally:
        siege.end()

    assert len(found.recovered) == losses
    assert (found.lost, found.unexpected, found.problems) == (set(), set(), [])
