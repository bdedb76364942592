"""How all stands, and the way to a thing by its name."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from absurd import inspection
from absurd.errors import TaskNotFoundError
from absurd.model import TaskState
from absurd.web.answers import Text
from absurd.web.dashboard.render import show
from absurd.web.desk import Reader

router = APIRouter()

SHOWN = 8
"""How many of each list."""
AT_FIRST = 5
"""How many problems are seen before the rest is unfolded."""


@router.get("/")
async def show_overview(request: Request, desk: Reader) -> Response:
    """Problems first, then queues and what is going on."""
    status = await desk.read(inspection.get_status())
    running = await desk.read(inspection.list_tasks(state=TaskState.RUNNING, limit=SHOWN))
    workflows = await desk.read(inspection.list_workflows(limit=SHOWN))
    totals = {state.value: sum(each[state.value] for each in status["queues"]) for state in TaskState}
    alive = [each for each in status["workers"] if each["state"] in ("running", "stopping")]
    return show(
        request, "overview.html", status=status, totals=totals, alive=alive, running=running, workflows=workflows,
        shown=SHOWN, at_first=AT_FIRST,
    )  # fmt: skip


@router.get("/search")
async def search(desk: Reader, q: Annotated[Text, Query(max_length=200)] = "") -> Response:
    """To the task or workflow of an id; else to the tasks with what is told as ``word:value``, or of an executor."""
    q = q.strip()
    try:
        found = UUID(q)
    except ValueError:
        name, _, value = q.partition(":")
        if name in ("tag", "queue", "state", "name") and value:
            return RedirectResponse(f"/tasks?{urlencode({name: value})}", 303)
        if "=" in q:
            return RedirectResponse(f"/tasks?{urlencode({'params': q})}", 303)
        return RedirectResponse(f"/tasks?{urlencode({'name': q})}" if q else "/tasks", 303)
    try:
        await desk.read(inspection.get_task_document(found))
    except TaskNotFoundError:
        return RedirectResponse(f"/workflows/{found}", 303)
    return RedirectResponse(f"/tasks/{found}", 303)
