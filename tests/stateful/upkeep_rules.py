"""Rules of time, of workers' lives, of upkeep and of limits."""

from __future__ import annotations

import json
import random
from typing import Any

from stateful.claim_rules import ClaimRules
from stateful.model import SECOND

LIMITS: tuple[dict[str, Any], ...] = (
    {"running": None, "per_lane": None, "fair": None, "rate": None, "rate_seconds": None},
    {"running": 2}, {"running": 3}, {"running": None},
    {"per_lane": 1}, {"per_lane": 2}, {"per_lane": None},
    {"fair": True}, {"fair": True}, {"fair": False},
    {"rate": 1, "rate_seconds": 10}, {"rate": 40, "rate_seconds": 1}, {"rate": None, "rate_seconds": None},
)  # fmt: skip


class UpkeepRules(ClaimRules):
    """Time passes, workers come and go."""

    def wait(self, chance: random.Random) -> None:
        """Time passes."""
        self.wait_seconds(chance.choice((0, 10, 10, 25, 50)))

    def wait_seconds(self, seconds: int) -> None:
        self.log.append(f"-- {seconds} seconds pass")
        self.pass_time(seconds * SECOND)

    def limit(self, chance: random.Random) -> None:
        """Limits change, one at a time or all."""
        limits = chance.choice(LIMITS)
        self.call("set_queue_limits('default', %s)", json.dumps(limits))
        for name, value in limits.items():
            setattr(self.model.limits, name, bool(value) if name == "fair" else value)

    def promote(self, chance: random.Random) -> None:
        """Sleepers wake."""
        assert self.call("promote_timers()") == self.model.promote()

    def end_waits(self, chance: random.Random) -> None:
        """Runs that have waited for tasks long enough go on."""
        self.call("_end_waits()")
        self.model.end_waits()

    def sweep(self, chance: random.Random) -> None:
        """Late children are counted, tallies folded, marks advanced."""
        self.call("sweep_late()")
        self.call("fold_tallies()")
        self.call("advance_marks()")
        self.model.sweep()

    def overdue(self, chance: random.Random) -> None:
        """Deadlines."""
        assert self.call("cancel_overdue()") == self.model.cancel_overdue()

    def maintain(self, chance: random.Random) -> None:
        """The regular round, which notices when the database was away."""
        expected = self.model.maintain()
        got = self.call("maintain()")
        assert {name: got[name] for name in expected} == expected

    # Workers ------------------------------------------------------------------------------------

    def beat(self, chance: random.Random) -> None:
        """A sign of life."""
        if self.workers:
            self._beat(chance, chance.choice(self.workers))

    def _beat(self, chance: random.Random, worker: int) -> None:
        """It tells what was started and learns what is still held; leases that it does not know may go back."""
        mine = self.model.leases_of(worker)
        known = [lease for lease in mine if chance.random() < 0.7]
        started = [task.id for lease in mine for task in self.model.held(lease) if chance.random() < 0.5]
        expected = self.model.beat(worker, known, started)
        sql = "leases, tasks from beat(%s, %s::bigint[], 'running', %s::uuid[])"
        if expected is None:
            assert self.refused(sql, worker, known, started) == "AB002"
        else:
            ((leases, tasks),) = self.rows(sql, worker, known, started)
            assert dict(zip(tasks, leases, strict=True)) == expected

    def silence(self, chance: random.Random) -> None:
        """All but one worker are silent for a while, and then perhaps everybody: the database was away."""
        if not self.workers:
            return
        worker = chance.choice(self.workers)
        for _ in range(chance.choice((1, 4))):
            self.wait_seconds(10)
            self._beat(chance, worker)
        if chance.random() < 0.6:
            self.wait_seconds(25)

    def recover(self, chance: random.Random) -> None:
        """Silent workers are given up."""
        assert self.call("recover_runs()") == self.model.recover()

    def give_up(self, chance: random.Random) -> None:
        """A worker is certainly gone, as its machine can tell."""
        if self.workers:
            worker = chance.choice(self.workers)
            expected = self.model.give_up(worker) if worker in self.model.workers else 0
            assert self.call("give_up_worker(%s)", worker) == expected

    def leave(self, chance: random.Random) -> None:
        """A worker leaves in good order."""
        if self.workers:
            worker = chance.choice(self.workers)
            self.call("unregister_worker(%s)", worker)
            if worker in self.model.workers:
                self.model.leave(worker)
