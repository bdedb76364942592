"""Ends of tasks, and what they mean for dependents, workflows and dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from stateful.model.places import Places
from stateful.model.things import ENDED, SECOND, Letter, Task


class Ends(Places):
    """Tasks end."""

    def end(self, tasks: Sequence[Task], state: str, *, upstream: bool = False) -> None:
        self.count_down(self.settle(tasks, state, upstream=upstream))

    def settle(self, tasks: Sequence[Task], state: str, *, upstream: bool = False) -> list[Task]:
        """Tasks have ended, all in one state, and dependents follow, by generations.  Returns all that ended."""
        for task in tasks:
            self._close(task, state, upstream=upstream)
        return self._cascade(tasks, state)

    def _cascade(self, tasks: Sequence[Task], state: str) -> list[Task]:
        ended, all_ended = {task.id for task in tasks}, list(tasks)
        while ended:
            free: list[Task] = []
            never: list[Task] = []
            for child in self.tasks.values():
                n = len(ended & child.waits_for)
                if child.state != "blocked" or not n:
                    continue
                open_, good, bad = child.counts
                counts = (open_ - n, good + n * (state == "completed"), bad + n * (state == "failed"))
                verdict = child.verdict(counts)
                if verdict is None:
                    child.counts = child.counts if child.late else counts
                else:
                    (free if verdict else never).append(child)
            self.unblock(free)
            for child in never:
                self._close(child, "cancelled", upstream=True)
            ended, state = {child.id for child in never}, "cancelled"
            all_ended += never
        return all_ended

    def _close(self, task: Task, state: str, *, upstream: bool = False) -> None:
        task.state, task.upstream = state, upstream
        task.lease, task.event, task.late, task.awaiting = None, None, False, False
        task.suspect, task.deaths = False, 0

    def bury(self, tasks: Sequence[Task], codes: Sequence[str | None], *, dead_letters: bool) -> None:
        """The last run of tasks has failed."""
        for task, code in zip(tasks, codes, strict=True):
            task.letter = Letter(task.attempt, code) if dead_letters else None
        self.end(tasks, "failed")

    # Cancelling ---------------------------------------------------------------------------------

    def cancel(self, task: UUID, *, subtree: bool) -> None:
        chosen = self.descendants([task], awaited=False) if subtree else [task]
        self.cancel_all([self.tasks[each] for each in chosen])

    def cancel_all(self, tasks: Sequence[Task]) -> int:
        """Those that have not ended, wherever they stand; what runs has been started."""
        chosen = [task for task in tasks if task.state not in ENDED]
        for task in chosen:
            if task.lease is not None:
                task.used = max(task.used, task.attempt)
                task.reports.add((task.lease, "cancelled"))
        self.end(chosen, "cancelled")
        return len(chosen)

    def cancel_overdue(self) -> int:
        """Of one kind at a time, that of the one that is overdue for the longest time."""
        due = sorted(
            (at, kind) for task in self.tasks.values() for kind, at in task.deadlines.items() if at <= self.now
        )
        if not due:
            return 0
        kind = due[0][1]
        tasks = [task for task in self.tasks.values() if task.deadlines.get(kind, self.now + 1) <= self.now]
        for task in tasks:
            if kind == "start" and task.used == 0 and task.lease is not None and not self.has_certainly_started(task):
                task.deadlines[kind] = self.now + 5 * SECOND  # the claim may still be handed back as it came
            else:
                del task.deadlines[kind]
        return self.cancel_all([task for task in tasks if kind == "finish" or (task.lease is None and task.used == 0)])

    # Late children ------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Count the parents of late children, all at one moment."""
        judged = []
        for child in self.tasks.values():
            if child.late:
                states = [self.tasks[parent].state for parent in child.waits_for]
                good, bad = states.count("completed"), states.count("failed")
                child.counts = (sum(each not in ENDED for each in states), good, bad)
                child.late = False
                judged.append((child, child.verdict(child.counts)))
        self.unblock([child for child, verdict in judged if verdict])
        never = [child for child, verdict in judged if verdict is False]
        for child in never:
            self._close(child, "cancelled", upstream=True)
        circle = [child for child, verdict in judged if verdict is None and self.waits_for_itself(child)]
        for child in circle:
            self._close(child, "cancelled")
        self.count_down(self._cascade([*never, *circle], "cancelled"))

    # Workflows ----------------------------------------------------------------------------------

    def count_down(self, tasks: Sequence[Task]) -> None:
        """Ended nodes are counted off; the last one decides how the workflow ended."""
        for name, workflow in self.workflows.items():
            ended = sum(task.workflow == name for task in tasks)
            workflow.remaining -= ended
            if ended and workflow.remaining == 0:
                workflow.state = self._verdict_of(workflow.nodes, cancelled=workflow.cancelled)

    def _verdict_of(self, nodes: Sequence[UUID], *, cancelled: bool) -> str:
        """Failed if a node failed and none that depends on it took the failure on."""
        if cancelled:
            return "cancelled"
        unheard = [each for each in nodes if self.tasks[each].state == "failed" and not self._taken_on(each)]
        return "failed" if unheard else "completed"

    def _taken_on(self, node: UUID) -> bool:
        return any(
            node in child.parents and child.condition != "all_success" and not child.upstream
            for child in self.tasks.values()
        )

    def count_up(self, tasks: Sequence[Task]) -> None:
        """Ended nodes are back: their workflows run again."""
        for name, workflow in self.workflows.items():
            back = sum(task.workflow == name for task in tasks)
            if back:
                workflow.remaining += back
                workflow.state, workflow.cancelled = "running", False
