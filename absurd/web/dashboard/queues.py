"""Queues: how they stand, their pauses and limits."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from absurd import inspection, queue
from absurd.errors import QueueNotFoundError
from absurd.limits import QueueLimits, set_queue_limits, tell_limits
from absurd.model import TaskState
from absurd.web.answers import LOOK, Name, split_page
from absurd.web.dashboard.form import Posted
from absurd.web.dashboard.render import show
from absurd.web.desk import Operator, Reader

router = APIRouter(prefix="/queues")

SHOWN = 20
"""How many of its newest tasks the page of a queue shows."""


@router.get("")
async def show_queues(request: Request, desk: Reader) -> Response:
    """All queues."""
    return show(request, "queues.html", queues=await desk.read(inspection.list_queues()), tell_limits=tell_limits)


@router.get("/{name}")
async def show_queue(request: Request, name: Name, desk: Reader) -> Response:
    """One queue, its limits to change, its newest tasks and its workers."""
    for each in await desk.read(inspection.list_queues()):
        if each["name"] == name:
            break
    else:
        raise QueueNotFoundError(f"there is no queue {name}", name=name)
    tasks, older = split_page(await desk.read(inspection.list_tasks(queue=name, limit=SHOWN + 1, look=LOOK)), SHOWN)
    workers = [one for one in await desk.read(inspection.list_workers()) if name in one["queues"]]
    return show(
        request, "queue.html", queue=each, tasks=tasks, older=older, workers=workers, states=list(TaskState),
        tell_limits=tell_limits, rate=_rate(each["limits"]),
    )  # fmt: skip


@router.post("/{name}/pause")
async def pause_queue(name: Name, desk: Operator, form: Posted) -> Response:
    """Let nothing new be claimed."""
    await desk.change(queue.set_queue_paused(name, paused=True))
    return form.go(f"/queues/{name}", f"Queue {name} is paused: what runs goes on, nothing new starts.")


@router.post("/{name}/resume")
async def resume_queue(name: Name, desk: Operator, form: Posted) -> Response:
    """End a pause."""
    await desk.change(queue.set_queue_paused(name, paused=False))
    return form.go(f"/queues/{name}", f"Queue {name} goes on.")


@router.post("/{name}/limits")
async def limit_queue(name: Name, desk: Operator, form: Posted) -> Response:
    """Set all limits; an empty field lifts one."""
    limits: QueueLimits = {
        "running": form.count("running"),
        "per_lane": form.count("per_lane"),
        "rate": form.get("rate"),
        "fair": "fair" in form,
    }
    found = await desk.change(set_queue_limits(name, limits))
    return form.go(f"/queues/{name}", f"Limits of queue {name}: {tell_limits(found) or 'none'}.")


def _rate(limits: dict[str, object]) -> str:
    """As it is written into the form."""
    return f"{limits['rate']}/{limits['rate_seconds']:g}" if "rate" in limits else ""
