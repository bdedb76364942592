"""The twin of `absurd.scheduler.schedules.ScheduleMethods` for scripts, notebooks and the command line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, Protocol, TypeVar, Unpack

from absurd.call import Call
from absurd.executor import Executor
from absurd.scheduler.schedules import Overlap, ScheduleMethods, ScheduleOptions
from absurd.schedules import Change, Document

T = TypeVar("T")


class SyncScheduleMethods(ABC):
    """The part of `SyncAbsurdClient` for schedules: each method does what the one of `ScheduleMethods` does."""

    @abstractmethod
    def run(self, call: Call[T]) -> T:
        """Make a call."""

    def set_schedule(
        self,
        name: str,
        trigger: str,
        executor: str | Executor[Any],
        params: Any = None,
        *,
        dry_run: bool = False,
        **options: Unpack[ScheduleOptions],
    ) -> Change:
        """Make a schedule, or change the one of that name; tells which, or that it is so already.

        Raises InvalidOptionError, InvalidParamsError, UnknownExecutorError.
        """
        return done(Waiting(self).set_schedule(name, trigger, executor, params, dry_run=dry_run, **options))

    def list_schedules(self) -> list[Document]:
        """All schedules, by name."""
        return done(Waiting(self).list_schedules())

    def get_schedule(self, name: str) -> Document:
        """One schedule, with when it is due next and what came of the last time."""
        return done(Waiting(self).get_schedule(name))

    def pause_schedule(self, name: str) -> None:
        """Let nothing come of it from now on."""
        done(Waiting(self).pause_schedule(name))

    def resume_schedule(self, name: str) -> None:
        """Let it go on from now; what was due meanwhile is not made up for."""
        done(Waiting(self).resume_schedule(name))

    def remove_schedule(self, name: str) -> bool:
        """Remove it with its history; its tasks stay.  False if there is none."""
        return done(Waiting(self).remove_schedule(name))

    def trigger_schedule(self, name: str, overlap: Overlap | None = None) -> Document:
        """Spawn its task now; gives the tick: ``task_id``, or ``skipped`` and ``detail``."""
        return done(Waiting(self).trigger_schedule(name, overlap))

    def next_due(self, name: str, count: int = 10) -> list[datetime]:
        """The next times a schedule is due, in UTC."""
        return done(Waiting(self).next_due(name, count))

    def list_ticks(self, name: str, *, before: datetime | None = None, limit: int = 50) -> list[Document]:
        """What came of each time a schedule was due, the latest first."""
        return done(Waiting(self).list_ticks(name, before=before, limit=limit))


class Runner(Protocol):
    """Makes calls and waits for them: a `SyncAbsurdClient`, or a `SyncDatabase`."""

    def run(self, call: Call[T]) -> T:
        """Make a call."""


class Waiting(ScheduleMethods):
    """Methods for asyncio that never let anybody else run: their calls are made by one who waits."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def run(self, call: Call[T]) -> T:
        """Make a call."""
        return self._runner.run(call)


def done(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("a call was not made at once")
