"""The values that cross the interfaces: frozen, typed, without behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID


class TaskState(StrEnum):
    """Where a task stands.  Exactly one holds at any time."""

    BLOCKED = "blocked"
    """Waits for its parents to end."""
    PENDING = "pending"
    """May be claimed by a worker now."""
    SLEEPING = "sleeping"
    """Waits for a time, for its next attempt, or for an event."""
    RUNNING = "running"
    """Claimed by a worker, which holds a lease on it."""
    COMPLETED = "completed"
    """Ended well; its result is kept."""
    FAILED = "failed"
    """Ended badly with its attempts spent; it is in the dead letters."""
    CANCELLED = "cancelled"
    """Ended before it completed, by request or because a parent could not."""

    @property
    def ended(self) -> bool:
        """Whether the task will not change again by itself."""
        return self in (TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED)


class RunState(StrEnum):
    """How one attempt ended (`RUNNING` while it has not)."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    """It raised; another attempt may follow."""
    LOST = "lost"
    """Its worker stopped answering; another attempt may follow."""
    SUSPENDED = "suspended"
    """It went to sleep or to wait; the same task goes on later."""
    RETURNED = "returned"
    """It was handed back unfinished; the attempt is not spent."""
    CANCELLED = "cancelled"


@dataclass(slots=True)  # not frozen: that would take three times as long to make, and a bulk spawn makes many
class TaskSpec:
    """One task to spawn, for `AbsurdClient.spawn_many`; the options are those of `spawn`."""

    name: Any
    """The executor's name, or the decorated function itself."""
    params: Any = None
    queue: str | None = None
    priority: int | None = None
    delay: float | timedelta | None = None
    run_at: datetime | None = None
    key: str | None = None
    depends_on: list[UUID | str] | None = None
    headers: dict[str, Any] | None = None
    tags: list[str] | None = None
    max_attempts: int | None = None
    timeout: float | timedelta | None = None
    retry: Any = None
    needs: dict[str, float] | None = None
    lane: str | None = None
    when: str | None = None
    key_period: float | timedelta | None = None
    key_scope: str | None = None
    start_within: float | timedelta | None = None
    finish_within: float | timedelta | None = None
    workflow: UUID | str | None = None
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at a task, as its history tells it."""

    attempt: int
    state: RunState
    worker: str | None
    started_at: datetime | None
    finished_at: datetime | None
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a run published."""

    path: str
    kind: str
    sha256: str | None
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Task:
    """A task as `get_task` returns it."""

    id: UUID
    queue: str
    name: str
    state: TaskState
    priority: int
    params: Any
    headers: dict[str, Any]
    tags: list[str]
    key: str | None
    workflow_id: UUID | None
    workflow: str | None
    """Name of the workflow it belongs to."""
    node: str | None
    """Its own name there."""
    depends_on: list[UUID]
    children: list[UUID]
    """Tasks that depend on it, up to a thousand."""
    attempts: int
    max_attempts: int | None
    timeout: float | None
    created_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    result: Any
    error: dict[str, Any] | None
    reason: str | None
    progress: dict[str, Any] | None
    runs: list[Run] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How many tasks of a queue are in each state."""

    blocked: int
    pending: int
    sleeping: int
    running: int
    completed: int
    failed: int
    cancelled: int


class Claim(NamedTuple):
    """A worker's hold on one run: the epoch `lease`, and the task's body.

    A tuple, because a busy worker makes a hundred thousand of them a second.
    """

    lease: int
    task_id: UUID
    attempt: int
    name: str
    queue: str
    params: Any
    headers: Mapping[str, Any] = MappingProxyType({})
    tags: Sequence[str] = ()
    timeout: float | None = None
    max_attempts: int | None = None
    retry: Mapping[str, Any] | None = None
    parents: Mapping[str, Any] = MappingProxyType({})
    """Results of the parents that completed, by task id."""
    suspect: bool = False
    """Whether it was lost with its worker, or killed its process, and has not been cleared."""
    refers: bool = False
    """Whether the params hold references to results."""
    needs: Mapping[str, float] = MappingProxyType({})
    """What the run holds while it is at work, by name; files that it prefers to be near are in it too."""
    publishing: Sequence[str] = ()
    """Parents of which files were not in their places yet when it was claimed."""
