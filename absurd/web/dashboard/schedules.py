"""Schedules: when they are due, what came of it, pause, trigger."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from absurd import schedules
from absurd.redaction import hide
from absurd.scheduler.schedules import due_times, take
from absurd.web.answers import Name
from absurd.web.dashboard.form import Posted
from absurd.web.dashboard.render import show
from absurd.web.desk import Operator, Reader

router = APIRouter(prefix="/schedules")

TICKS = 50
"""How many times that it was due a page shows."""


@router.get("")
async def show_schedules(request: Request, desk: Reader) -> Response:
    """All schedules."""
    return show(request, "schedules.html", schedules=await desk.read(schedules.list_schedules()))


@router.get("/{name}")
async def show_schedule(request: Request, name: Name, desk: Reader) -> Response:
    """One schedule, when it is due next, and what came of the last times."""
    found = await desk.read(schedules.get_schedule(name))
    now = await desk.read(schedules.get_clock())
    return show(
        request, "schedule.html", schedule=found | {"params": hide(found["params"]), "options": hide(found["options"])},
        due=[] if found["error"] else take(due_times(found, now), 5),
        ticks=await desk.read(schedules.list_ticks(name, limit=TICKS)),
    )  # fmt: skip


@router.post("/{name}/pause")
async def pause_schedule(name: Name, desk: Operator, form: Posted) -> Response:
    """Let nothing come of it from now on."""
    await desk.change(schedules.set_schedule_paused(name, paused=True))
    return form.go(f"/schedules/{name}", f"Schedule {name} is paused.")


@router.post("/{name}/resume")
async def resume_schedule(name: Name, desk: Operator, form: Posted) -> Response:
    """Let it go on from now."""
    await desk.change(schedules.set_schedule_paused(name, paused=False))
    return form.go(f"/schedules/{name}", f"Schedule {name} goes on; what was due meanwhile is not made up.")


@router.post("/{name}/trigger")
async def trigger_schedule(name: Name, desk: Operator, form: Posted) -> Response:
    """Spawn its task now."""
    tick = await desk.change(schedules.trigger_schedule(name))
    told = f"task …{str(tick['task_id'])[-8:]} is spawned" if tick["task_id"] else "no task was spawned: one still runs"
    return form.go(f"/schedules/{name}", f"Schedule {name} was triggered: {told}.")
