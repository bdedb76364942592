"""How a run can end.  Executors may raise the signals; the worker turns every end into an Outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from absurd.errors import InvalidOptionError


@dataclass(frozen=True, slots=True)
class PendingArtifact:
    """A file written under an attempt's own name, to be published after the completion."""

    attempt_path: str
    path: str
    kind: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Completed:
    """The run returned; `result` is the JSON text to store (None: no result)."""

    result: str | None = None
    artifacts: tuple[PendingArtifact, ...] = field(default=())
    spawns: tuple[dict[str, Any], ...] = ()
    """What it spawned: task (the spawner), checkpoint, id, queue, name, params, options."""
    products: tuple[dict[str, Any], ...] = ()
    """What it told of its products: kind, row."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The run raised.  `delay` is the wait before the next attempt in seconds, None for no further one.

    `amend` changes the task before that: {queue, memory_factor, memory_max_gib}.
    """

    error: dict[str, Any]
    delay: float | None = None
    amend: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Suspended:
    """The task sleeps and goes on later; no attempt is spent.

    `delay` seconds (or until `event` is emitted, with `delay` as its timeout; None waits for ever), or
    until all tasks of `awaits` (ids as text) have ended, or `delay` is over.
    """

    reason: str
    delay: float | None = None
    event: str | None = None
    awaits: tuple[str, ...] = ()
    spawns: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Returned:
    """The run was handed back unfinished (shutdown); its attempt is not spent."""

    reason: str = "shutdown"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The executor asked to cancel its own task."""

    reason: str


Outcome = Completed | Failed | Suspended | Returned | Cancelled


class Signal(Exception):
    """Root of what an executor may raise to end its run otherwise than by failing."""


def _delay(name: str, delay: float | timedelta) -> float:
    """A delay in seconds; InvalidOptionError for one that is no time."""
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    if not seconds >= 0:
        raise InvalidOptionError(f"the delay of {name} is {delay!r}; it must be 0 seconds or more", option="delay")
    return seconds


class RetryLater(Signal):
    """End this attempt as failed and try again after `delay` seconds, whatever the policy says."""

    def __init__(self, delay: float | timedelta, reason: str = "retry later") -> None:
        super().__init__(reason)
        self.delay = _delay("RetryLater", delay)


class Snooze(Signal):
    """Put the task aside for `delay` seconds without spending an attempt."""

    def __init__(self, delay: float | timedelta, reason: str = "snooze") -> None:
        super().__init__(reason)
        self.delay = _delay("Snooze", delay)


class Reject(Signal):
    """Send the task straight to the dead letters."""


class Cancel(Signal):
    """Cancel this task."""


class Suspend(BaseException):
    """Raised by the context to unwind an executor that sleeps or waits; not for users to catch.

    A BaseException, so that an executor's own ``except Exception`` lets it pass.
    """

    def __init__(self, outcome: Suspended) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome
