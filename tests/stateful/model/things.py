"""What the model is made of: tasks, their dead letters, workflows, workers, limits.  Times are microseconds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

ENDED = frozenset({"completed", "failed", "cancelled"})
SECOND = 1_000_000
NEVER = 10**18
DEATHS = 3
"""So often may a task kill its own process."""


@dataclass
class Letter:
    """A dead letter."""

    attempts: int
    code: str | None


@dataclass
class Task:
    """A task: where it stands, and what it was given."""

    id: UUID
    priority: int = 0
    parents: tuple[UUID, ...] = ()
    condition: str = "all_success"
    max_attempts: int | None = None
    run_at: int | None = None
    lane: str | None = None
    needs: dict[str, int] | None = None
    key: str | None = None
    params: Any = None
    workflow: UUID | None = None
    deadlines: dict[str, int] = field(default_factory=dict)

    state: str = "pending"
    attempt: int = 1
    level: int = 0
    order: int = 0
    """When it became pending: by this number within a level."""
    wake_at: int = 0
    """When it wakes, or (awaiting) goes on without what it waits for."""
    event: str | None = None
    counts: tuple[int, int, int] = (0, 0, 0)
    """Parents that have not ended, have completed, have failed."""
    late: bool = False
    awaiting: bool = False
    """Whether it is blocked because its run waits for tasks."""
    awaited: frozenset[UUID] = frozenset()
    """What its last such run waited for."""
    upstream: bool = False
    """Whether it was cancelled only because of its parents."""
    suspect: bool = False
    deaths: int = 0
    lease: int | None = None
    used: int = 0
    """The highest attempt that was started."""
    reports: set[tuple[int, str]] = field(default_factory=set)
    """Leases under which an outcome arrived, and which."""
    letter: Letter | None = None
    round: int | None = None
    """How many attempts a requeue gives it."""

    @property
    def waits_for(self) -> frozenset[UUID]:
        """What must end before it goes on, while it is blocked."""
        return self.awaited if self.awaiting else frozenset(self.parents)

    @property
    def linked(self) -> frozenset[UUID]:
        """All that it depends on or has waited for."""
        return self.awaited | frozenset(self.parents)

    def verdict(self, counts: tuple[int, int, int]) -> bool | None:
        """Whether it may run (never: False; open: None)."""
        open_, good, bad = counts
        if self.awaiting or self.condition == "all_done":
            return True if open_ == 0 else None
        if self.condition == "any_failed":
            return True if bad else None if open_ else False
        match = re.fullmatch(r"quorum\((\d+)\)", self.condition)
        quorum = int(match[1]) if match else 1 if self.condition == "any_success" else len(self.parents)
        return True if good >= quorum else False if good + open_ < quorum else None


@dataclass
class Workflow:
    """A graph of tasks that is looked at as one."""

    nodes: list[UUID] = field(default_factory=list)
    remaining: int = 0
    state: str = "running"
    cancelled: bool = False


@dataclass
class Worker:
    """A worker that has not left and was not given up."""

    seen: int
    started: frozenset[UUID] = frozenset()
    max_attempts: int = 5
    dead_letters: bool = True


@dataclass
class Key:
    """Who has a key, and for how long."""

    task: UUID
    expires_at: int = NEVER
    until_ended: bool = False


@dataclass
class Limits:
    """Limits of the queue."""

    running: int | None = None
    per_lane: int | None = None
    fair: bool = False
    rate: int | None = None
    rate_seconds: int | None = None

    @property
    def lanes(self) -> bool:
        """Whether claims look at lanes."""
        return self.fair or self.per_lane is not None
