"""Workflows: find, look at as a graph and over time, cancel, retry."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from absurd import inspection, queue
from absurd.web.answers import LOOK, After, Text, split_page
from absurd.web.dashboard import gantt, graph
from absurd.web.dashboard.form import Posted
from absurd.web.dashboard.render import show
from absurd.web.desk import Reader, Spawner

router = APIRouter(prefix="/workflows")

PAGE = 50
"""How many workflows a page shows."""
NODES = 2000
"""How many tasks of a workflow are drawn; failed ones come first."""
LISTED = 200
"""How many of them are listed."""
STATES = ("running", "completed", "failed", "cancelled")


@router.get("")
async def show_workflows(
    request: Request, desk: Reader, state: Text = "", name: Text = "", after: After = None
) -> Response:
    """Workflows, newest first, a page at a time."""
    call = inspection.list_workflows(state=state or None, name=name or None, after=after, limit=PAGE + 1, look=LOOK)
    found, last = split_page(await desk.read(call), PAGE)
    filters = {key: value for key, value in {"state": state, "name": name}.items() if value}
    following = urlencode(filters | {"after": last}) if last else None
    return show(
        request, "workflows.html", workflows=found, given={"state": state, "name": name}, states=STATES,
        filters=urlencode(filters), following=following, paged=after is not None,
    )  # fmt: skip


@router.get("/{workflow_id}")
async def show_workflow(request: Request, workflow_id: UUID, desk: Reader) -> Response:
    """One workflow."""
    found = await desk.read(inspection.get_workflow(workflow_id, nodes=NODES))
    nodes = found["nodes"]
    return show(
        request, "workflow.html", workflow=found, graph=graph, drawing=graph.draw(nodes), gantt=gantt, listed=LISTED,
        chart=gantt.chart(nodes, found["created_at"], found["ended_at"], datetime.now(UTC)),
    )  # fmt: skip


@router.post("/{workflow_id}/cancel")
async def cancel_workflow(workflow_id: UUID, desk: Spawner, form: Posted) -> Response:
    """Cancel all of it that has not ended."""
    state = await desk.change(queue.cancel_workflow(workflow_id, form.get("reason", "")[:1000] or None))
    return form.go(f"/workflows/{workflow_id}", f"The workflow is {state}.")


@router.post("/{workflow_id}/retry")
async def retry_workflow(workflow_id: UUID, desk: Spawner, form: Posted) -> Response:
    """Run what failed or was cancelled of it again."""
    again = await desk.change(queue.retry_workflow(workflow_id))
    return form.go(f"/workflows/{workflow_id}", f"Tasks that run again: {again}.")
