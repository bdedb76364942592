"""Schedules: make, change, pause, trigger, remove, and what came of them."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Body, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response

from absurd import schedules
from absurd.call import Call
from absurd.database import AsyncSession
from absurd.errors import ScheduleNotFoundError
from absurd.redaction import hide
from absurd.scheduler.schedules import Overlap, ScheduleMethods, ScheduleOptions, due_times, take
from absurd.web import models
from absurd.web.answers import Limit, Name, Page, Text, answer, answer_all, answer_page
from absurd.web.desk import Operator, Reader
from absurd.web.problems import may_fail

T = TypeVar("T")

router = APIRouter(prefix="/schedules", tags=["schedules"])


class NewSchedule(BaseModel):
    """A schedule, as in Python: `trigger` and `executor` are needed, all else has a default."""

    model_config = ConfigDict(extra="forbid")

    trigger: Text = Field(description="When: cron text such as `30 3 * * *`, `every 15m`, `at TIME`, `sun rise`, …")
    executor: Text
    params: Any = None
    zone: Text | None = Field(None, description="Whose clocks a cron text goes by.")
    site: dict[str, float] | None = Field(None, description="longitude, latitude in degrees; height in metres.")
    misfire: Text | None = Field(None, description="What is made up for: skip, once, all, last N.")
    grace: float | None = Field(None, description="Seconds that a time due may be late and is not missed.")
    look_back: float | None = Field(None, description="Seconds after which what was missed is not made up for.")
    overlap: Overlap | None = Field(None, description="While the task before has not ended.")
    jitter: float | None = Field(None, description="Seconds by which a task starts later at most.")
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    paused: bool | None = None
    options: dict[str, Any] | None = Field(None, description="Options of each task, such as queue or priority.")


class Firing(BaseModel):
    """How to trigger a schedule."""

    model_config = ConfigDict(extra="forbid")

    overlap: Overlap | None = Field(None, description="Instead of the schedule's own.")


class _Methods(ScheduleMethods):
    """What clients do with schedules, in one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def run(self, call: Call[T]) -> T:
        """Make a call."""
        return await self._session.run(call)


@router.get("", response_model=Page[models.Schedule], responses=may_fail())
async def list_schedules(desk: Reader) -> Response:
    """All schedules, by name."""
    return answer_all([_discreet(each) for each in await desk.read(schedules.list_schedules())])


@router.get("/{name}", response_model=models.Schedule, responses=may_fail(404))
async def get_schedule(name: Name, desk: Reader) -> Response:
    """One schedule, with when it is due next and what came of the last time."""
    return answer(_discreet(await desk.read(schedules.get_schedule(name))))


@router.put(
    "/{name}",
    response_model=models.ScheduleChange,
    responses=may_fail(409) | {201: {"model": models.ScheduleChange, "description": "It is new."}},
)
async def set_schedule(name: Name, wanted: NewSchedule, desk: Operator) -> Response:
    """Make a schedule, or change the one of that name."""
    given = dict(wanted)
    trigger, executor, params = (given.pop(each) for each in ("trigger", "executor", "params"))
    async with desk.changing() as session:
        options = cast("ScheduleOptions", given)
        change = await _Methods(session).set_schedule(name, trigger, executor, params, **options)
    return answer({"name": name, "change": change}, 201 if change == "created" else 200)


@router.delete("/{name}", status_code=204, response_class=Response, responses=may_fail(404))
async def remove_schedule(name: Name, desk: Operator) -> Response:
    """Remove a schedule with its history; its tasks stay."""
    async with desk.changing() as session:
        if not await session.run(schedules.remove_schedule(name)):
            raise ScheduleNotFoundError(f"there is no schedule {name}", name=name)
    return Response(status_code=204)


@router.post("/{name}/pause", response_model=models.ScheduleState, responses=may_fail(404))
async def pause_schedule(name: Name, desk: Operator) -> Response:
    """Let nothing come of it from now on."""
    await desk.change(schedules.set_schedule_paused(name, paused=True))
    return answer({"name": name, "paused": True})


@router.post("/{name}/resume", response_model=models.ScheduleState, responses=may_fail(404))
async def resume_schedule(name: Name, desk: Operator) -> Response:
    """Let it go on from now; what was due meanwhile is not made up for."""
    await desk.change(schedules.set_schedule_paused(name, paused=False))
    return answer({"name": name, "paused": False})


@router.post("/{name}/trigger", response_model=models.Tick, responses=may_fail(404, 409))
async def trigger_schedule(name: Name, desk: Operator, how: Annotated[Firing | None, Body()] = None) -> Response:
    """Spawn its task now; gives the tick."""
    return answer(await desk.change(schedules.trigger_schedule(name, how.overlap if how else None)))


@router.get("/{name}/history", response_model=Page[models.Tick], responses=may_fail(404))
async def list_ticks(
    name: Name,
    desk: Reader,
    after: Annotated[AwareDatetime | None, Query(description="`next` of the page before.")] = None,
    limit: Limit = 50,
) -> Response:
    """What came of each time it was due, the latest first."""
    found = await desk.read(schedules.list_ticks(name, before=after, limit=limit + 1))
    return answer_page(found, limit, lambda each: each["due_at"])


@router.get("/{name}/next", response_model=models.Due, responses=may_fail(404))
async def list_due(
    name: Name, desk: Reader, count: Annotated[int, Query(ge=1, le=1000, description="How many.")] = 10
) -> Response:
    """When it is due next, paused or not."""
    found = await desk.read(schedules.get_schedule(name))
    now = await desk.read(schedules.get_clock())
    return answer({"name": name, "due": [] if found["error"] else take(due_times(found, now), count)})


def _discreet(schedule: dict[str, Any]) -> dict[str, Any]:
    return schedule | {"params": hide(schedule["params"]), "options": hide(schedule["options"])}
