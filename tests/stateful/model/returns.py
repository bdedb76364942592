"""Ended tasks come back: retried, run anew, out of the dead letters, or with their workflow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from stateful.model.things import ENDED, SECOND, Task
from stateful.model.workers import Workers


class Returns(Workers):
    """Tasks come back to life."""

    def may_retry(self, task: UUID) -> bool:
        return self.ended(task)

    def retry(self, task: UUID) -> None:
        self._revive([self.tasks[task]], self._upstream_of([task]))

    def may_rerun(self, task: UUID) -> bool:
        states = [self.tasks[each].state for each in self.descendants([task], awaited=False)]
        return self.tasks[task].state != "blocked" and all(each in ENDED or each == "blocked" for each in states)

    def rerun(self, task: UUID) -> int:
        below = [self.tasks[each] for each in self.descendants([task], awaited=False) if each != task]
        ended = [each for each in below if each.state in ENDED]
        self._revive([self.tasks[task]], ended)
        return 1 + len(ended)

    def _upstream_of(self, tasks: Iterable[UUID]) -> list[Task]:
        """Descendants that were cancelled only because these could not complete."""
        below = [self.tasks[each] for each in self.descendants(tasks) if each not in tasks]
        return [each for each in below if each.state == "cancelled" and each.upstream]

    def _revive(self, at_once: Sequence[Task], waiting: Sequence[Task]) -> None:
        revived = [*at_once, *waiting]
        for task in revived:
            # An attempt that was cancelled before it started is used again.
            task.attempt = task.used + 1
            task.upstream, task.letter = False, None
        self.again(at_once)
        for task in waiting:
            self.block(task)
        for task in sorted(revived, key=lambda each: each.id):
            key = self.keys[task.key] if task.key is not None else None
            if key is not None and key.until_ended and self.ended(key.task):
                key.task = task.id  # its own again
        ids = {task.id for task in revived}
        for task in self.tasks.values():
            if task.state == "blocked" and ids & task.linked:
                self.block(task)
        missed = self._upstream_of(ids)
        if missed:
            self._revive([], missed)
        self.count_up(revived)

    # Dead letters -------------------------------------------------------------------------------

    def letters(self, code: str | None = None) -> list[UUID]:
        """Dead letters, the oldest task first; `code`: only those of this error."""
        return sorted(
            task.id
            for task in self.tasks.values()
            if task.letter is not None and (code is None or task.letter.code == code)
        )

    def purge(self, tasks: Iterable[UUID]) -> None:
        for task in tasks:
            self.tasks[task].letter = None

    def requeue(
        self, tasks: Sequence[UUID], patch: dict[str, Any] | None, rate: float | None, delay: float
    ) -> list[UUID]:
        """Each gets as many attempts again as it had; those whose key another one holds stay.  Returns who went."""
        chosen = [self.tasks[task] for task in tasks if not self._key_is_held(self.tasks[task])]
        for task in chosen:
            assert task.letter is not None
            task.round = max(1, task.round or (5 if task.max_attempts is None else task.max_attempts))
            task.max_attempts = task.letter.attempts + task.round
            if patch is not None:
                task.params = (task.params if isinstance(task.params, dict) else {}) | patch
        ids = [task.id for task in chosen]
        if chosen:
            self._revive(chosen, self._upstream_of(ids))
        for n, task in enumerate(chosen):
            later = delay + (n / rate if rate is not None else 0)
            if later > 0:
                self.sleep(task, self.now + int(later * SECOND))
        return ids

    def _key_is_held(self, task: Task) -> bool:
        holder = self.keys[task.key].task if task.key is not None else task.id
        return holder != task.id and not self.ended(holder)

    # Workflows ----------------------------------------------------------------------------------

    def cancel_workflow(self, name: UUID) -> None:
        workflow = self.workflows[name]
        workflow.cancelled = workflow.cancelled or workflow.state == "running"
        self.cancel_all([self.tasks[node] for node in workflow.nodes])

    def retry_workflow(self, name: UUID) -> int:
        """What failed or was cancelled runs again; only a failed node has had its parents."""
        nodes = [self.tasks[node] for node in self.workflows[name].nodes]
        back = [node for node in nodes if node.state in {"failed", "cancelled"}]
        at_once = [node for node in back if node.state == "failed" or not node.parents]
        if back:
            self._revive(at_once, [node for node in back if node not in at_once])
        return len(back)
