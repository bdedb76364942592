"""Places of tasks: who is pending, asleep, blocked, running; and who depends on whom."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from uuid import UUID

from stateful.model.things import ENDED, SECOND, Key, Limits, Task, Worker, Workflow


class Places:
    """One queue and its tasks, with a clock of its own."""

    def __init__(self) -> None:
        self.now = 0
        self.tasks: dict[UUID, Task] = {}
        self.workflows: dict[UUID, Workflow] = {}
        self.keys: dict[str, Key] = {}
        self.events: set[str] = set()
        self.workers: dict[int, Worker] = {}
        self.claimed_at: dict[int, int] = {}
        """By lease."""
        self.alone: set[int] = set()
        """Leases that were claimed for one task."""
        self.limits = Limits()
        self.next_start = 0
        """When the next start is due by the rate."""
        self.last_lane = ""
        self._orders = itertools.count()

    def held(self, lease: int) -> list[Task]:
        return [task for task in self.tasks.values() if task.lease == lease]

    def leases_of(self, worker: int) -> list[int]:
        leases = {task.lease for task in self.tasks.values() if task.lease is not None}
        return sorted(lease for lease in leases if lease >> 32 == worker)

    def has_certainly_started(self, task: Task) -> bool:
        """Whether a running task was claimed alone, or is among those its worker last said it had started."""
        assert task.lease is not None
        worker = self.workers.get(task.lease >> 32)
        return task.lease in self.alone or (worker is not None and task.id in worker.started)

    # Moving -------------------------------------------------------------------------------------

    def start(self, task: Task, order: int | None = None) -> None:
        """To where its own start time sends it."""
        if task.run_at is not None and task.run_at > self.now:
            self.sleep(task, task.run_at)
        else:
            self.ready(task, order=order)

    def ready(self, task: Task, *, ahead: bool = False, order: int | None = None) -> None:
        task.state, task.level, task.lease, task.event = "pending", 2 * task.priority + ahead, None, None
        task.order = next(self._orders) if order is None else order

    def sleep(self, task: Task, until: int) -> None:
        task.state, task.wake_at, task.lease, task.level = "sleeping", until, None, 2 * task.priority

    def block(self, task: Task) -> None:
        """Wait for its parents, which sweep() will count."""
        task.state, task.level, task.lease, task.late = "blocked", 2 * task.priority, None, True
        task.counts = (len(task.waits_for), 0, 0)

    def again(self, tasks: Iterable[Task], delay: float = 0, *, ahead: bool = False) -> None:
        order = next(self._orders)
        for task in tasks:
            if delay > 0:
                self.sleep(task, self.now + int(delay * SECOND))
            else:
                self.ready(task, ahead=ahead, order=order)

    def unblock(self, tasks: Sequence[Task]) -> None:
        """Its own start time counts for a task's first run only, not where its run has waited."""
        order = next(self._orders)
        for task in tasks:
            task.late = False
            if task.awaiting:
                task.awaiting = False
                self.ready(task, order=order)
            else:
                self.start(task, order)

    # Time and events ----------------------------------------------------------------------------

    def promote(self) -> int:
        due = [task for task in self.tasks.values() if task.state == "sleeping" and task.wake_at <= self.now]
        order = {wake_at: next(self._orders) for wake_at in sorted({task.wake_at for task in due})}
        for task in due:
            self.ready(task, order=order[task.wake_at])
        return len(due)

    def end_waits(self) -> None:
        """Runs that have waited for tasks long enough go on."""
        self.unblock([task for task in self.tasks.values() if task.awaiting and task.wake_at <= self.now])

    def emit(self, event: str) -> bool:
        if event in self.events:
            return False
        self.events.add(event)
        self.again([task for task in self.tasks.values() if task.state == "sleeping" and task.event == event])
        return True

    # The graph ----------------------------------------------------------------------------------

    def descendants(self, tasks: Iterable[UUID], *, awaited: bool = True) -> list[UUID]:
        """The tasks and all that depends on them; `awaited`: or has waited for them."""
        found = set(tasks)
        look = list(found)
        while look:
            above = look.pop()
            below = {
                child.id
                for child in self.tasks.values()
                if above in (child.linked if awaited else child.parents) and child.id not in found
            }
            found |= below
            look += below
        return sorted(found)

    def waits_for_itself(self, task: Task) -> bool:
        """Whether it is among the blocked tasks that it waits for, directly or not."""
        found: set[UUID] = set()
        look = [task]
        while look:
            for above in look.pop().waits_for - found:
                found.add(above)
                if self.tasks[above].state == "blocked":
                    look.append(self.tasks[above])
        return task.id in found

    def ended(self, task: UUID) -> bool:
        return self.tasks[task].state in ENDED
