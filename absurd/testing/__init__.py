"""For the tests of programs that use absurd: run tasks inline, move the clock, look at what was spawned.

`absurd.testing_plugin` is a plugin of pytest over this, with a throwaway database for each test.
"""

from __future__ import annotations

from absurd.testing.clock import FakeClock
from absurd.testing.databases import ThrowawayServer
from absurd.testing.drain import Ran, drain, drain_sync
from absurd.testing.fire import fire_due, fire_due_sync
from absurd.testing.spawned import assert_not_spawned, assert_spawned, results

__all__ = [
    "FakeClock",
    "Ran",
    "ThrowawayServer",
    "assert_not_spawned",
    "assert_spawned",
    "drain",
    "drain_sync",
    "fire_due",
    "fire_due_sync",
    "results",
]
