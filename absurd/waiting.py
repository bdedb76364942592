"""Waiting for the end of a task: what to ask, how long to pause, what to say.  Without any IO, for both clients."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from absurd.call import Call
from absurd.errors import (
    DatabaseUnavailableError,
    FilesMissing,
    TaskCancelled,
    TaskFailed,
    TaskNotFoundError,
    WaitTimeoutError,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowNotFoundError,
)
from absurd.model import Task, TaskState
from absurd.queue import Look, look, look_at_workflow, task_uuid

OUTAGE = 30.0
"""Seconds a wait bears the database being away: a restart does not end it."""

_ANNOUNCE_AGAIN = 1800.0  # the database forgets who waits after an hour
_FIRST_PAUSE = 0.002
_POLL = 1.0
_POLL_WHEN_NOTIFIED = 5.0

PUBLICATION_SECONDS = 600.0
"""Seconds that files of a completed task get to be put in place: whoever reaches them does it in a few."""
SHOWN_NODES = 10
"""Failed nodes that a message names."""


class Patience:
    """One wait.  Look, and while it is not over, pause (or be notified) and look again.

    A notification alone would not do: a task that ends while the first look is on its way does not
    see that it is waited for.  The first pauses are short to catch that, the later ones for what
    was lost on the way.
    """

    kind = "task"

    def __init__(self, id: UUID | str, timeout: float | None) -> None:
        self.id = task_uuid(id)
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._announced: float | None = None
        self._away_since: float | None = None
        self._pause = _FIRST_PAUSE
        self._state: str | None = None

    def _announce(self) -> bool:
        """Whether to ask with the next look that the end be notified."""
        now = time.monotonic()
        announce = self._announced is None or now - self._announced > _ANNOUNCE_AGAIN
        if announce:
            self._announced = now
        return announce

    def _seen(self, state: str) -> None:
        self._away_since = None
        self._state = state

    def pause(self, *, notified: bool = False) -> float:
        """Seconds to wait for a notification before the next look.  Raises WaitTimeoutError when time is up."""
        pause = self._pause
        self._pause = min(2 * pause, _POLL_WHEN_NOTIFIED if notified else _POLL)
        if self._deadline is None:
            return pause
        left = self._deadline - time.monotonic()
        if left <= 0:
            state = f"is {self._state}" if self._state else "could not be looked at"
            raise WaitTimeoutError(
                f"{self.kind} {self.id} {state} after {self._timeout:g} s; it goes on, only the wait ended",
                state=self._state,
                **{f"{self.kind}_id": str(self.id)},
            )
        return min(pause, left)

    def endure(self, error: DatabaseUnavailableError) -> None:
        """Raise `error` if the database has been away for too long."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since > OUTAGE:
            raise error


class Waiting(Patience):
    """One wait for a task."""

    _publishing_since: float | None = None

    def look(self) -> Call[Look]:
        """The call to make now."""
        return look(self.id, announce=self._announce())

    def is_over(self, seen: Look) -> bool:
        """Whether the task has ended and its files are in place.  Raises TaskNotFoundError, FilesMissing."""
        if seen.state is None:
            raise TaskNotFoundError(f"there is no task {self.id}", id=str(self.id))
        self._seen(seen.state)
        if not (seen.state.ended and seen.publishing):
            self._publishing_since = None
            return seen.state.ended
        now = time.monotonic()
        self._publishing_since = self._publishing_since or now
        if now - self._publishing_since > PUBLICATION_SECONDS:
            raise FilesMissing(
                f"task {self.id} has completed, but its files were not put in place in {PUBLICATION_SECONDS:g} s: no "
                "worker that runs reaches them; start one on the machine that wrote them, or "
                f"`absurd task retry {self.id}`",
                task_id=str(self.id),
            )
        return False

    def verdict(self, task: Task) -> Task | None:
        """The task if it completed, None if it goes on after all (a retry).  Raises TaskFailed, TaskCancelled."""
        if task.state == TaskState.FAILED:
            attempts = "1 attempt" if task.attempts == 1 else f"{task.attempts} attempts"
            reason = (task.error or {}).get("message", "no reason was kept")
            raise TaskFailed(
                f"task {task.id} ({task.name}) failed after {attempts}: {reason}",
                task_id=str(task.id),
                error=task.error,
            )
        if task.state == TaskState.CANCELLED:
            raise TaskCancelled(
                f"task {task.id} ({task.name}) was cancelled: {task.reason or 'no reason was given'}",
                task_id=str(task.id),
                reason=task.reason,
            )
        return task if task.state.ended else None


class WorkflowWaiting(Patience):
    """One wait for a workflow."""

    kind = "workflow"

    def look(self) -> Call[str | None]:
        """The call to make now."""
        return look_at_workflow(self.id, announce=self._announce())

    def is_over(self, state: str | None) -> bool:
        """Whether the workflow has ended.  Raises WorkflowNotFoundError."""
        if state is None:
            raise WorkflowNotFoundError(f"there is no workflow {self.id}", id=str(self.id))
        self._seen(state)
        return state != "running"

    def verdict(self, workflow: dict[str, Any]) -> dict[str, Any] | None:
        """The workflow if it completed, None if it goes on after all.  Raises WorkflowFailed, WorkflowCancelled."""
        called = f"workflow {workflow['id']} ({workflow['name']})"
        if workflow["state"] == "failed":
            failed = [node for node in workflow["nodes"] if node["state"] == "failed"]
            told = "; ".join(f"{node['node']}: {_reason(node)}" for node in failed[:SHOWN_NODES])
            more = workflow["counts"].get("failed", 0) - len(failed[:SHOWN_NODES])
            raise WorkflowFailed(
                f"{called} failed: {told}" + (f"; and {more} more nodes" if more > 0 else ""),
                workflow_id=workflow["id"],
                nodes={node["node"]: {"task_id": node["id"], "error": node["error"]} for node in failed},
            )
        if workflow["state"] == "cancelled":
            raise WorkflowCancelled(
                f"{called} was cancelled: {workflow['reason'] or 'no reason was given'}",
                workflow_id=workflow["id"],
                reason=workflow["reason"],
            )
        return workflow if workflow["state"] == "completed" else None


def _reason(node: dict[str, Any]) -> str:
    return str((node["error"] or {}).get("message", "no reason was kept"))
