"""Tasks come into being: one by one, as a workflow, by a run."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from stateful.model.limits import Limited
from stateful.model.things import NEVER, Key, Task, Workflow


class Spawning(Limited):
    """Tasks are spawned."""

    def spawn(
        self, task: Task, key: str | None = None, *, period: int | None = None, until_ended: bool = False,
        together: Sequence[UUID] = (),
    ) -> UUID:  # fmt: skip
        """Give it a place; the id of the first task under its key.  Parents of the same call are not counted late."""
        if key is not None:
            holder = self.holder(key)
            if holder is not None:
                return holder
            self.keys[key] = Key(task.id, NEVER if period is None else self.now + period, until_ended)
            task.key = key
        self.tasks[task.id] = task
        if task.parents:
            self.block(task)
            task.late = not set(task.parents) <= set(together)
        else:
            self.start(task)
        if task.workflow is not None:
            workflow = self.workflows[task.workflow]
            workflow.nodes.append(task.id)
            workflow.remaining += 1
        return task.id

    def holder(self, name: str) -> UUID | None:
        """The task that has a key; None when it is free."""
        key = self.keys.get(name)
        if key is None or key.expires_at <= self.now or (key.until_ended and self.ended(key.task)):
            return None
        return key.task

    def spawn_workflow(self, name: UUID, tasks: Sequence[Task]) -> None:
        self.workflows[name] = Workflow(state="running" if tasks else "completed")
        for task in tasks:
            task.workflow = name
            self.spawn(task, together=[each.id for each in tasks])

    def spawn_offspring(self, held: Sequence[Task], children: Sequence[tuple[UUID, Task]]) -> dict[UUID, UUID]:
        """What held runs have spawned, as (spawner, child), joins the workflow.  Whom each child turned out to be."""
        spawners = {task.id: task for task in held}
        became = {}
        for spawner, child in children:
            if spawner in spawners:
                child.workflow = spawners[spawner].workflow
                became[child.id] = self.spawn(child, child.key)
        return became
