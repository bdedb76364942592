"""What clients do with schedules; `absurd.scheduler.schedules_sync` has the twin for scripts and notebooks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, TypeVar, Unpack

from absurd import inspection, schedules
from absurd.call import Call
from absurd.encoding import decode, encode
from absurd.errors import InvalidOptionError, UnknownExecutorError
from absurd.executor import Executor, registry
from absurd.model import TaskSpec
from absurd.queue import moment_text
from absurd.scheduler.trigger import Site, Trigger, read_trigger, read_zone
from absurd.schedules import Change, Document
from absurd.spawning import SpawnOptions, prepare

T = TypeVar("T")
Overlap = Literal["allow", "skip", "queue", "cancel"]


class ScheduleOptions(TypedDict, total=False):
    """What else there is to a schedule.  None is the same as leaving it out."""

    zone: str | None
    """Whose clocks a cron trigger goes by, such as America/Los_Angeles.  Default: UTC."""
    site: Site | None
    """Where a trigger that follows the sky is: ``longitude``, ``latitude`` in degrees, ``height`` in metres."""
    misfire: str | None
    """What is made up for, of what nobody fired in time: skip, once (default), all, last N."""
    grace: float | timedelta | None
    """Seconds that a time due may be late and is not missed.  Default: 60."""
    look_back: float | timedelta | None
    """Seconds after which what was missed is not made up for.  Default: a day."""
    overlap: Overlap | None
    """What happens while the task before has not ended: allow (default) both, skip the new one, queue one behind it,
    or cancel it."""
    jitter: float | timedelta | None
    """The task starts up to so many seconds later, by chance that is the same for each time due."""
    starts_at: datetime | None
    """Nothing is due before; intervals count from here.  Default: now."""
    ends_at: datetime | None
    """Nothing is due after."""
    paused: bool | None
    """Make it paused, or let it go on.  Default: as it is."""
    options: SpawnOptions | None
    """Options of each task."""


_KINDS: tuple[tuple[str, type, str], ...] = (
    ("zone", str, "the name of a time zone, such as America/Los_Angeles"),
    ("site", Mapping, "a table with longitude, latitude and height"),
    ("options", Mapping, "a table of options of each task, such as priority"),
)


def describe(trigger: str, executor: str | Executor[Any], params: Any, options: ScheduleOptions) -> Document:
    """A schedule as the database takes it, checked as far as this process can.

    Raises InvalidOptionError, InvalidParamsError, InvalidNameError, ConfigurationError.
    """
    _refuse_unknown(options, ScheduleOptions, "schedule")
    for option, kind, told in _KINDS:
        if (given := options.get(option)) is not None and not isinstance(given, kind):
            raise InvalidOptionError(f"{option} is {given!r}; it must be {told}", option=option)
    wanted: dict[str, Any] = dict(options.get("options") or {})
    _refuse_unknown(wanted, SpawnOptions, "options")
    spawn = prepare(replace(TaskSpec(executor, params), **wanted))
    found: Document = {
        "trigger": trigger,
        "executor": spawn.name,
        "params": decode(spawn.params),
        "options": decode(spawn.options or "{}"),
        "queue": spawn.queue if wanted.get("queue") or spawn.name in registry else None,
        "zone": options.get("zone"),
        "site": dict(site) if (site := options.get("site")) else None,
        "misfire": options.get("misfire"),
        "overlap": options.get("overlap"),
    }
    spans = {name: options.get(name) for name in ("grace", "look_back", "jitter")}
    found |= {name: span.total_seconds() if isinstance(span, timedelta) else span for name, span in spans.items()}
    found |= {name: moment_text(options.get(name), name) for name in ("starts_at", "ends_at")}  # type: ignore[arg-type]
    start, end = options.get("starts_at"), options.get("ends_at")
    if start and end and end <= start:
        raise InvalidOptionError(f"the schedule ends at {end}, before it starts at {start}", option="ends_at")
    if options.get("paused") is not None:
        found["paused"] = options.get("paused")
    trigger_of(found)
    encode(found, "schedule", error=InvalidOptionError)
    return found


def _refuse_unknown(given: Mapping[str, Any], known: type, option: str) -> None:
    if unknown := set(given) - set(known.__annotations__):
        words = ", ".join(known.__annotations__)
        raise InvalidOptionError(f"unknown option {', '.join(sorted(unknown))}; known are {words}", option=option)


def trigger_of(document: Mapping[str, Any], origin: datetime | None = None) -> Trigger:
    """The trigger of a schedule.  Intervals count from its start, else its making, else `origin`."""
    start, made = (
        datetime.fromisoformat(text) if (text := document.get(name)) else None for name in ("starts_at", "created_at")
    )
    made = made or origin
    zone = document.get("zone") or "UTC"
    read_zone(zone)
    return read_trigger(
        document["trigger"],
        zone=zone,
        site=document.get("site"),
        origin=start or (made and made.replace(microsecond=0)),
    )


def due_times(document: Mapping[str, Any], after: datetime) -> Iterator[datetime]:
    """When a schedule is due after a time, in UTC, in order, as long as it goes on."""
    trigger = trigger_of(document, origin=after)
    start, end = (
        datetime.fromisoformat(text) if (text := document.get(name)) else None for name in ("starts_at", "ends_at")
    )
    moment: datetime | None = after if start is None else max(after, start - timedelta(microseconds=1))
    while moment is not None:
        moment = trigger.after(moment)
        if moment is not None:
            if end is not None and moment > end:
                return
            yield moment


def first_due(name: str, document: Document, now: datetime) -> datetime:
    """When it is due first.  Raises InvalidOptionError for what never is."""
    for due in due_times(document, now):
        return due
    raise InvalidOptionError(
        f"schedule {name} is never due: {document['trigger']!r} has no time after {now.isoformat(timespec='seconds')}"
        + (f" up to {document['ends_at']}" if document.get("ends_at") else ""),
        option="trigger",
    )


def check_executor(name: str, known: Iterable[str]) -> None:
    """Raises UnknownExecutorError for one that neither this process nor any worker knows."""
    if name not in registry and name not in known:
        raise UnknownExecutorError(
            f"no worker has registered the executor {name!r} and no module imported here defines it; "
            "start a worker that does, or import its module",
            name=name,
        )


class ScheduleMethods(ABC):
    """The part of `AbsurdClient` for schedules.  Raises ScheduleNotFoundError for a name that is none."""

    @abstractmethod
    async def run(self, call: Call[T]) -> T:
        """Make a call."""

    async def set_schedule(
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
        document = describe(trigger, executor, params, options)
        if document["executor"] not in registry:
            rows = await self.run(inspection.list_executors())
            check_executor(document["executor"], [row["name"] for row in rows])
        due = first_due(name, document, await self.run(schedules.get_clock()))
        return await self.run(schedules.set_schedule(name, document, due, dry_run=dry_run))

    async def list_schedules(self) -> list[Document]:
        """All schedules, by name."""
        return await self.run(schedules.list_schedules())

    async def get_schedule(self, name: str) -> Document:
        """One schedule, with when it is due next and what came of the last time."""
        return await self.run(schedules.get_schedule(name))

    async def pause_schedule(self, name: str) -> None:
        """Let nothing come of it from now on."""
        await self.run(schedules.set_schedule_paused(name, True))

    async def resume_schedule(self, name: str) -> None:
        """Let it go on from now; what was due meanwhile is not made up for."""
        await self.run(schedules.set_schedule_paused(name, False))

    async def remove_schedule(self, name: str) -> bool:
        """Remove it with its history; its tasks stay.  False if there is none."""
        return await self.run(schedules.remove_schedule(name))

    async def trigger_schedule(self, name: str, overlap: Overlap | None = None) -> Document:
        """Spawn its task now; gives the tick: ``task_id``, or ``skipped`` and ``detail``."""
        return await self.run(schedules.trigger_schedule(name, overlap))

    async def next_due(self, name: str, count: int = 10) -> list[datetime]:
        """The next times a schedule is due, in UTC."""
        document = await self.get_schedule(name)
        return take(due_times(document, await self.run(schedules.get_clock())), count)

    async def list_ticks(self, name: str, *, before: datetime | None = None, limit: int = 50) -> list[Document]:
        """What came of each time a schedule was due, the latest first."""
        return await self.run(schedules.list_ticks(name, before=before, limit=limit))


def take(times: Iterator[datetime], count: int) -> list[datetime]:
    """The first of them."""
    return [due for due, _ in zip(times, range(count), strict=False)]
