"""Waiting for the end of a task: what to ask, how long to pause, what to say.  Without any IO, for both clients."""

from __future__ import annotations

import time
from uuid import UUID

from absurd.call import Call
from absurd.errors import (
    DatabaseUnavailableError,
    TaskCancelled,
    TaskFailed,
    TaskNotFoundError,
    WaitTimeoutError,
)
from absurd.model import Task, TaskState
from absurd.queue import Look, look, task_uuid

OUTAGE = 30.0
"""Seconds a wait bears the database being away: a restart does not end it."""

_ANNOUNCE_AGAIN = 1800.0  # the database forgets who waits after an hour
_FIRST_PAUSE = 0.05
_POLL = 1.0
_POLL_WHEN_NOTIFIED = 5.0


class Waiting:
    """One wait.  Look, and while it is not over, pause (or be notified) and look again.

    A notification alone would not do: a task that ends while the first look is on its way does not
    see that it is waited for.  The first pauses are short to catch that, the later ones for what
    was lost on the way.
    """

    def __init__(self, task_id: UUID | str, timeout: float | None) -> None:
        self.task_id = task_id if isinstance(task_id, UUID) else task_uuid(task_id)
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._announced: float | None = None
        self._away_since: float | None = None
        self._pause = _FIRST_PAUSE
        self._state: TaskState | None = None

    def look(self) -> Call[Look]:
        """The call to make now."""
        now = time.monotonic()
        announce = self._announced is None or now - self._announced > _ANNOUNCE_AGAIN
        if announce:
            self._announced = now
        return look(self.task_id, announce=announce)

    def is_over(self, seen: Look) -> bool:
        """Whether the task has ended and its files are in place.  Raises TaskNotFoundError."""
        if seen.state is None:
            raise TaskNotFoundError(f"there is no task {self.task_id}", id=str(self.task_id))
        self._away_since = None
        self._state = seen.state
        return seen.state.ended and not seen.publishing

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
                f"task {self.task_id} {state} after {self._timeout:g} s; it goes on, only the wait ended",
                task_id=str(self.task_id),
                state=self._state,
            )
        return min(pause, left)

    def endure(self, error: DatabaseUnavailableError) -> None:
        """Raise `error` if the database has been away for too long."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since > OUTAGE:
            raise error

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
