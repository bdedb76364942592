"""What the functions of the schema should do, as plain Python on dicts: the model that the database is held against."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

ENDED = frozenset({"completed", "failed", "cancelled"})
DEFAULT_ATTEMPTS = 5


@dataclass
class Task:
    """A task: where it stands, and what it was given."""

    id: UUID
    priority: int = 0
    parents: tuple[UUID, ...] = ()
    condition: str = "all_success"
    max_attempts: int | None = None
    run_at: float | None = None
    state: str = "pending"
    attempt: int = 1
    level: int = 0
    order: int = 0
    """When it became pending: by this number within a level."""
    wake_at: float = 0.0
    event: str | None = None
    counts: tuple[int, int, int] = (0, 0, 0)
    """Parents that have not ended, have completed, have failed."""
    late: bool = False
    upstream: bool = False
    """Whether it was cancelled only because of its parents."""
    lease: int | None = None
    used: int = 0
    """The highest attempt that was started."""
    reports: set[tuple[int, str]] = field(default_factory=set)
    """Leases under which an outcome arrived, and which."""

    def verdict(self, counts: tuple[int, int, int]) -> bool | None:
        """Whether it may run (never: False; open: None)."""
        open_, good, bad = counts
        if self.condition == "all_done":
            return True if open_ == 0 else None
        if self.condition == "any_failed":
            return True if bad else None if open_ else False
        match = re.fullmatch(r"quorum\((\d+)\)", self.condition)
        quorum = int(match[1]) if match else 1 if self.condition == "any_success" else len(self.parents)
        return True if good >= quorum else False if good + open_ < quorum else None


class QueueModel:
    """One queue and its tasks, with a clock of its own."""

    def __init__(self) -> None:
        self.tasks: dict[UUID, Task] = {}
        self.keys: dict[str, UUID] = {}
        self.events: set[str] = set()
        self.leases: dict[int, list[UUID]] = {}
        self.claimed_at: dict[int, float] = {}
        self.seen: dict[int, float] = {}
        """Workers that are alive, and when they were last heard of."""
        self.now = 0.0
        self._orders = itertools.count()

    def states(self) -> dict[UUID, str]:
        return {task.id: task.state for task in self.tasks.values()}

    # Spawning -----------------------------------------------------------------------------------

    def spawn(self, task: Task, key: str | None) -> UUID:
        """Give it a place; the id of the first task under its key."""
        if key is not None:
            if key in self.keys:
                return self.keys[key]
            self.keys[key] = task.id
        self.tasks[task.id] = task
        if task.parents:
            task.state, task.late = "blocked", True
            task.level = 2 * task.priority
            task.counts = (len(task.parents), 0, 0)
        else:
            self._start(task)
        return task.id

    def _start(self, task: Task) -> None:
        """To where its own start time sends it."""
        if task.run_at is not None and task.run_at > self.now:
            self._sleep(task, task.run_at)
        else:
            self._ready(task)

    def _ready(self, task: Task, *, ahead: bool = False, order: int | None = None) -> None:
        task.state, task.level, task.lease = "pending", 2 * task.priority + ahead, None
        task.order = next(self._orders) if order is None else order

    def _sleep(self, task: Task, until: float) -> None:
        task.state, task.wake_at, task.lease = "sleeping", until, None

    # Claims -------------------------------------------------------------------------------------

    def claim(self, lease: int, wanted: int, claimed: Sequence[UUID]) -> None:
        """Check what a claim brought: all that comes first, in the order in which it became pending."""
        pending = [task for task in self.tasks.values() if task.state == "pending"]
        best = sorted((-task.level, task.order) for task in pending)[:wanted]
        assert [(-self.tasks[each].level, self.tasks[each].order) for each in claimed] == best
        for each in claimed:
            task = self.tasks[each]
            assert task.state == "pending"
            task.state, task.lease = "running", lease
        if claimed:
            self.leases[lease] = list(claimed)
            self.claimed_at[lease] = self.now

    def report(self, lease: int, tasks: Sequence[UUID], outcome: str) -> tuple[list[Task], set[UUID]]:
        """The tasks that are held under the lease, taken out of it; and those whose report is stale."""
        held, stale = [], set()
        for each in tasks:
            task = self.tasks[each]
            if task.lease == lease:
                held.append(task)
                task.lease = None
                task.used = max(task.used, task.attempt)
                task.reports.add((lease, outcome))
            elif (lease, outcome) not in task.reports:
                stale.add(each)
        return held, stale

    def complete(self, lease: int, tasks: Sequence[UUID]) -> set[UUID]:
        held, stale = self.report(lease, tasks, "completed")
        self._end(held, "completed")
        return stale

    def fail(self, lease: int, tasks: Sequence[UUID], delay: float | None) -> set[UUID]:
        held, stale = self.report(lease, tasks, "failed")
        if delay is None:
            self._end(held, "failed")
        else:
            self._again(held, delay, spend=True)
        return stale

    def _again(self, tasks: list[Task], delay: float, *, spend: bool = False, ahead: bool = False) -> None:
        order = next(self._orders)
        for task in tasks:
            task.attempt += spend
            if delay > 0:
                self._sleep(task, self.now + delay)
            else:
                self._ready(task, ahead=ahead, order=order)

    def suspend(self, lease: int, tasks: Sequence[UUID], delay: float | None, event: str | None) -> set[UUID]:
        held, stale = self.report(lease, tasks, "suspended")
        if event is None:
            self._again(held, delay or 0)
            return stale
        order = next(self._orders)
        for task in held:
            if event in self.events:
                self._ready(task, order=order)
            else:
                self._sleep(task, self.now + delay if delay is not None else float("inf"))
                task.event = event
        return stale

    def give_back(self, lease: int, tasks: Sequence[UUID]) -> set[UUID]:
        held, stale = self.report(lease, tasks, "returned")
        self._again(held, 0, ahead=True)
        return stale

    def cancel_runs(self, lease: int, tasks: Sequence[UUID]) -> set[UUID]:
        held, stale = self.report(lease, tasks, "cancelled")
        self._end(held, "cancelled")
        return stale

    # Time ---------------------------------------------------------------------------------------

    def promote(self) -> None:
        due = [task for task in self.tasks.values() if task.state == "sleeping" and task.wake_at <= self.now]
        order = {wake_at: next(self._orders) for wake_at in sorted({task.wake_at for task in due})}
        for task in due:
            self._ready(task, order=order[task.wake_at])
            task.event = None

    def recover(self, lease_seconds: float) -> None:
        """Workers that were not heard of for longer than their lease are given up."""
        for worker, seen in sorted(self.seen.items()):
            if seen < self.now - lease_seconds:
                del self.seen[worker]
                for lease in sorted({task.lease for task in self.tasks.values() if task.lease is not None}):
                    if lease >> 32 == worker:
                        self._lose(lease)

    def _lose(self, lease: int) -> None:
        lost = [task for task in self.tasks.values() if task.lease == lease]
        for task in lost:
            task.lease = None
            task.used = max(task.used, task.attempt)
        last = [task for task in lost if task.attempt >= (task.max_attempts or DEFAULT_ATTEMPTS)]
        self._again([task for task in lost if task not in last], 0, spend=True, ahead=True)
        self._end(last, "failed")

    def beat(self, worker: int, known: Iterable[int], lease_seconds: float) -> dict[UUID, int] | None:
        """What the worker still holds; None when it was given up."""
        if worker not in self.seen:
            return None
        self.seen[worker] = self.now
        known = set(known)
        for lease in sorted({task.lease for task in self.tasks.values() if task.lease is not None}):
            if lease >> 32 == worker and lease not in known and self.claimed_at[lease] < self.now - lease_seconds:
                self._again([task for task in self.tasks.values() if task.lease == lease], 0, ahead=True)
        return {task.id: task.lease for task in self.tasks.values() if task.lease in known}

    def emit(self, event: str) -> bool:
        if event in self.events:
            return False
        self.events.add(event)
        order = next(self._orders)
        for task in self.tasks.values():
            if task.state == "sleeping" and task.event == event:
                self._ready(task, order=order)
                task.event = None
        return True

    # Ends ---------------------------------------------------------------------------------------

    def children(self, task: UUID) -> list[Task]:
        return [each for each in self.tasks.values() if task in each.parents]

    def descendants(self, task: UUID) -> list[UUID]:
        """The task and all that depends on it."""
        found, look = {task}, [task]
        while look:
            below = {child.id for child in self.children(look.pop())} - found
            found |= below
            look += below
        return sorted(found)

    def _end(self, tasks: Sequence[Task], state: str, *, upstream: bool = False) -> None:
        """Tasks have ended, all in one state; their dependents follow, a generation at a time."""
        for task in tasks:
            task.state, task.lease, task.event, task.upstream, task.late = state, None, None, upstream, False
        ended = {task.id for task in tasks}
        order = next(self._orders)
        while ended:
            never = []
            for child in self.tasks.values():
                n = len(ended.intersection(child.parents))
                if child.state != "blocked" or not n:
                    continue
                open_, good, bad = child.counts
                counts = (open_ - n, good + n * (state == "completed"), bad + n * (state == "failed"))
                verdict = child.verdict(counts)
                if verdict is None:
                    child.counts = child.counts if child.late else counts
                    continue
                child.late = False
                if verdict:
                    self._start(child)
                    child.order = order
                else:
                    never.append(child)
            for child in never:
                child.state, child.upstream = "cancelled", True
            ended, state, order = {child.id for child in never}, "cancelled", next(self._orders)

    def cancel(self, task: UUID, *, subtree: bool) -> None:
        chosen = [self.tasks[each] for each in (self.descendants(task) if subtree else [task])]
        for each in chosen:
            if each.lease is not None:
                each.used = max(each.used, each.attempt)
                each.reports.add((each.lease, "cancelled"))
        self._end([each for each in chosen if each.state not in ENDED], "cancelled")

    def sweep(self) -> None:
        """Count the parents of late children, all at one moment."""
        judged = []
        for child in self.tasks.values():
            if child.late:
                states = [self.tasks[parent].state for parent in child.parents]
                good, bad = states.count("completed"), states.count("failed")
                child.counts = (sum(each not in ENDED for each in states), good, bad)
                child.late = False
                judged.append((child, child.verdict(child.counts)))
        order = next(self._orders)
        for child, verdict in judged:
            if verdict:
                self._start(child)
                child.order = order
        never = [child for child, verdict in judged if verdict is False]
        self._end(never, "cancelled", upstream=True)

    # Back again ---------------------------------------------------------------------------------

    def may_retry(self, task: UUID) -> bool:
        return self.tasks[task].state in ENDED

    def retry(self, task: UUID) -> None:
        below = [self.tasks[each] for each in self.descendants(task) if each != task]
        self._revive(self.tasks[task], [each for each in below if each.state == "cancelled" and each.upstream])

    def may_rerun(self, task: UUID) -> bool:
        states = [self.tasks[each].state for each in self.descendants(task)]
        return self.tasks[task].state != "blocked" and all(each in ENDED or each == "blocked" for each in states)

    def rerun(self, task: UUID) -> int:
        below = [self.tasks[each] for each in self.descendants(task) if each != task]
        ended = [each for each in below if each.state in ENDED]
        self._revive(self.tasks[task], ended)
        return 1 + len(ended)

    def _revive(self, first: Task, others: list[Task]) -> None:
        revived = [first, *others]
        for task in revived:
            # An attempt that was cancelled before it started is used again.
            task.attempt = task.used + 1
            task.upstream = False
        self._ready(first)
        for task in others:
            task.state, task.level = "blocked", 2 * task.priority
        ids = {task.id for task in revived}
        for task in self.tasks.values():
            if task.state == "blocked" and (task in others or ids.intersection(task.parents)):
                task.counts, task.late = (len(task.parents), 0, 0), True
