"""How many runs the limits of a queue leave for a claim, and which."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice, permutations, product
from uuid import UUID

from stateful.model.ends import Ends
from stateful.model.things import SECOND, Task

OFFERS = {"cpu": 2}
"""What each worker has."""
SHARED = {"token": 1}
"""What all workers share."""
MOST_ORDERS = 1_000
BURST = SECOND // 10
"""What so long a time brings at an even rate may come together."""


class Limited(Ends):
    """A queue with limits."""

    def choose(self, worker: int, wanted: int, claimed: Sequence[UUID]) -> tuple[list[UUID], int | None]:
        """What a claim takes, and in how many milliseconds the rate lets more start.

        `claimed` is what was taken: of two that became pending together either may be the first.
        """
        granted, wait = self._grant(wanted)
        free = self._free(worker)
        chosen: list[Task] | None = None
        for pending in self._arrangements(claimed):
            open_ = pending
            if self.limits.lanes:
                open_ = self._by_lanes([task for task in pending if _fits(task, free)])[:granted]
            found = _packed(open_, free)[:granted]
            if chosen is None or [task.id for task in found] == list(claimed):
                chosen = found
            if [task.id for task in chosen] == list(claimed):
                break
        assert chosen is not None
        if self.limits.lanes and chosen:
            self.last_lane = chosen[-1].lane or ""
        if self.limits.rate is not None and chosen:
            self.next_start = self._due() + len(chosen) * self._spacing()
        return [task.id for task in chosen], wait if len(chosen) == granted else None

    def _arrangements(self, claimed: Sequence[UUID]) -> Iterator[list[Task]]:
        """The orders in which pending tasks may stand, first that in which what was claimed leads its equals.

        Where that does not explain the claim, one that was passed over may have stood before its equals.
        """
        places = {task: n for n, task in enumerate(claimed)}
        pending = sorted(
            (task for task in self.tasks.values() if task.state == "pending"),
            key=lambda task: (-task.level, task.order, places.get(task.id, len(places))),
        )
        equals = [list(group) for _, group in groupby(pending, key=lambda task: (task.level, task.order))]
        yield pending
        for order in islice(product(*map(permutations, equals)), MOST_ORDERS):
            yield [task for group in order for task in group]

    def _free(self, worker: int) -> dict[str, int]:
        """What is left of what the worker has, and of what all share."""
        free = OFFERS | SHARED
        for task in self._running():
            for name, need in (task.needs or {}).items():
                if name in SHARED or (task.lease is not None and task.lease >> 32 == worker):
                    free[name] -= need
        return free

    def _running(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.lease is not None]

    def _grant(self, wanted: int) -> tuple[int, int | None]:
        if self.limits.running is not None:
            wanted = max(0, min(wanted, self.limits.running - len(self._running())))
        if self.limits.rate is None or not wanted:
            return wanted, None
        slack = max(0, BURST - self._spacing())
        starts = max(0, (self.now + slack - self._due()) // self._spacing() + 1)
        if starts >= wanted:
            return wanted, None
        first = self._due() + starts * self._spacing() - slack
        return starts, max(1, math.ceil((first - self.now) / 1000))

    def _spacing(self) -> int:
        assert self.limits.rate is not None
        return self._period() // self.limits.rate

    def _period(self) -> int:
        assert self.limits.rate_seconds is not None
        return self.limits.rate_seconds * SECOND

    def _due(self) -> int:
        return max(self.now, min(self.next_start, self.now + self._period()))

    def _by_lanes(self, pending: list[Task]) -> list[Task]:
        """Without those whose lane is full; fair: the lane with the fewest running first, then by turn."""
        running = Counter(task.lane for task in self._running())
        nth: dict[UUID, int] = {}
        seen: dict[str | None, int] = defaultdict(int)
        for task in pending:
            seen[task.lane] += 1
            nth[task.id] = running[task.lane] + seen[task.lane]
        per_lane = self.limits.per_lane
        open_ = [task for task in pending if task.lane is None or per_lane is None or nth[task.id] <= per_lane]
        if not self.limits.fair:
            return open_
        # Sorting keeps the order of equals.
        return sorted(open_, key=lambda task: (nth[task.id], self._turn(task.lane)))

    def _turn(self, lane: str | None) -> tuple[bool, str]:
        """Lanes come round in a circle that begins behind the last one; tasks without a lane are its first."""
        name = lane or ""
        return name <= self.last_lane, name


def _fits(task: Task, free: Mapping[str, int]) -> bool:
    return all(need <= free[name] for name, need in (task.needs or {}).items())


def _packed(tasks: Sequence[Task], free: Mapping[str, int]) -> list[Task]:
    """One after the other, what fits into what is left."""
    left, packed = dict(free), []
    for task in tasks:
        if _fits(task, left):
            packed.append(task)
            for name, need in (task.needs or {}).items():
                left[name] -= need
    return packed
