"""What a run spawns, and the tasks it waits for: what `ctx.spawn` and `ctx.wait_for` lead to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from absurd.errors import AbsurdError, InvalidOptionError, TaskCancelled, TaskFailed, TaskNotFoundError
from absurd.model import TaskSpec, TaskState
from absurd.queue import task_uuid
from absurd.spawning import prepare


class Ending(NamedTuple):
    """How a task stands that a run waits for: `state` is None for an id that is no task's."""

    task_id: UUID
    name: str | None
    state: str | None
    result: Any
    error: dict[str, Any] | None
    publishing: bool = False
    """Whether it has completed, and files of it are not in their places yet."""


def spawn_entry(spec: TaskSpec, spawner: UUID, queue: str, checkpoint: str) -> dict[str, Any]:
    """A spawn as the completion or suspension of its spawner writes it."""
    if spec.workflow is not None:
        raise InvalidOptionError(
            "option workflow: what a run spawns joins its own task's workflow, and no other", option="workflow"
        )
    spawn = prepare(spec, queue)
    return {
        "task": str(spawner),
        "checkpoint": checkpoint,
        "id": str(spawn.id),
        "queue": spawn.queue,
        "name": spawn.name,
        "params": spawn.params,
        "options": spawn.options,
    }


def awaited_ids(task_ids: Iterable[UUID | str], waiter: UUID) -> list[UUID]:
    """The ids to wait for.  Raises InvalidOptionError for what is none, and for the waiter's own."""
    if isinstance(task_ids, str | UUID):
        task_ids = [task_ids]
    ids = [task_uuid(each) for each in task_ids]
    if waiter in ids:
        raise InvalidOptionError(f"task {waiter} would wait for itself", option="task_ids")
    return ids


def outcomes(endings: Sequence[Ending]) -> list[Any] | None:
    """Results in order, TaskFailed or TaskCancelled in the place of those without; None while one has not ended.

    Raises TaskNotFoundError.
    """
    for each in endings:
        if each.state is None:
            raise TaskNotFoundError(f"there is no task {each.task_id}", id=str(each.task_id))
    if not all(TaskState(each.state).ended for each in endings if each.state):
        return None
    return [each.result if each.state == TaskState.COMPLETED else _failure(each) for each in endings]


def _failure(each: Ending) -> AbsurdError:
    message = (each.error or {}).get("message", "no reason was kept")
    if each.state == TaskState.FAILED:
        return TaskFailed(
            f"task {each.task_id} ({each.name}) failed: {message}", task_id=str(each.task_id), error=each.error
        )
    return TaskCancelled(
        f"task {each.task_id} ({each.name}) was cancelled: {message}", task_id=str(each.task_id), reason=message
    )
