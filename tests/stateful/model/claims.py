"""Runs are claimed, and what their workers report of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from stateful.model.spawning import Spawning
from stateful.model.things import DEATHS, NEVER, SECOND, Task


class Claims(Spawning):
    """Runs are claimed and reported."""

    def claim(self, lease: int, wanted: int, claimed: Sequence[UUID]) -> tuple[list[UUID], int | None]:
        """What a claim brings, and in how many milliseconds the rate lets more start."""
        expected, wait = self.choose(lease >> 32, wanted, claimed)
        for each in expected:
            self.tasks[each].state, self.tasks[each].lease = "running", lease
        if expected:
            self.claimed_at[lease] = self.now
            if len(expected) == 1:
                self.alone.add(lease)
        return expected, wait

    def _report(
        self, lease: int, tasks: Sequence[UUID], outcome: str, *, started: bool = True
    ) -> tuple[list[Task], set[UUID]]:
        """The tasks that are held under the lease, taken out of it; and those whose report is stale."""
        held, stale = [], set()
        for each in tasks:
            task = self.tasks[each]
            if task.lease == lease:
                held.append(task)
                task.lease = None
                if started:
                    task.used = max(task.used, task.attempt)
                    task.reports.add((lease, outcome))
            elif (lease, outcome) not in task.reports:
                stale.add(each)
        return held, stale

    def complete(self, lease: int, tasks: Sequence[UUID], children: Sequence[tuple[UUID, Task]] = ()) -> set[UUID]:
        """What the runs have spawned joins their workflows before these count them off."""
        held, stale = self._report(lease, tasks, "completed")
        ended = self.settle(held, "completed")
        self.spawn_offspring(held, children)
        self.count_down(ended)
        return stale

    def fail(
        self, lease: int, tasks: Sequence[UUID], delay: float | None, code: str | None = None, *,
        dead_letters: bool = True,
    ) -> set[UUID]:  # fmt: skip
        """Who has killed its process too often is not tried again, whatever the delay."""
        held, stale = self._report(lease, tasks, "failed")
        codes = {}
        for task in held:
            task.deaths += code == "child_died"
            codes[task.id] = "poison" if code == "child_died" and task.deaths >= DEATHS else code
        last = [task for task in held if delay is None or codes[task.id] == "poison"]
        goes_on = [task for task in held if task not in last]
        for task in goes_on:
            task.attempt += 1
            task.suspect = task.suspect or code == "child_died"
        self.again(goes_on, delay or 0)
        self.bury(last, [codes[task.id] for task in last], dead_letters=dead_letters)
        return stale

    def suspend(self, lease: int, tasks: Sequence[UUID], delay: float | None, event: str | None) -> set[UUID]:
        held, stale = self._report(lease, tasks, "suspended")
        if event is None or event in self.events:
            self.again(held, delay or 0 if event is None else 0)
            return stale
        for task in held:
            self.sleep(task, self.now + int(delay * SECOND) if delay is not None else NEVER)
            task.event = event
        return stale

    def await_tasks(
        self, lease: int, on: Mapping[UUID, Sequence[UUID]], seconds: float | None,
        children: Sequence[tuple[UUID, Task]] = (),
    ) -> set[UUID]:  # fmt: skip
        """Runs that wait for tasks, among them perhaps some that they have spawned; they hold no slot."""
        held, stale = self._report(lease, list(on), "suspended")
        became = self.spawn_offspring(held, children)
        for task in held:
            task.awaiting = True
            task.awaited = frozenset(became.get(each, each) for each in on[task.id])
            task.wake_at = NEVER if seconds is None else self.now + int(seconds * SECOND)
            self.block(task)
        return stale

    def give_back(self, lease: int, tasks: Sequence[UUID], *, started: bool) -> set[UUID]:
        """One that never started leaves no trace."""
        held, stale = self._report(lease, tasks, "returned", started=started)
        self.again(held, ahead=True)
        return stale

    def cancel_runs(self, lease: int, tasks: Sequence[UUID]) -> set[UUID]:
        held, stale = self._report(lease, tasks, "cancelled")
        self.end(held, "cancelled")
        return stale
