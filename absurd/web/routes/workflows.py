"""Workflows: find, look at, cancel, retry."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from absurd import inspection, queue
from absurd.web import models
from absurd.web.answers import LOOK, After, Limit, Page, Reason, Text, answer, answer_found
from absurd.web.desk import Reader, Spawner
from absurd.web.problems import may_fail

router = APIRouter(prefix="/workflows", tags=["workflows"])


class WorkflowCancellation(BaseModel):
    """How to cancel a workflow."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason | None = Field(None, description="Kept with the workflow.")


@router.get("", response_model=Page[models.WorkflowRow], responses=may_fail())
async def list_workflows(
    desk: Reader,
    state: Annotated[models.EndState | None, Query(description="Only in this state.")] = None,
    name: Annotated[Text | None, Query(description="Only of this name.")] = None,
    after: After = None,
    limit: Limit = 50,
) -> Response:
    """Workflows, newest first."""
    found = await desk.read(inspection.list_workflows(state=state, name=name, after=after, limit=limit + 1, look=LOOK))
    return answer_found(found, limit)


@router.get("/{workflow_id}", response_model=models.Workflow, responses=may_fail(404))
async def get_workflow(workflow_id: UUID, desk: Reader) -> Response:
    """A workflow, its nodes counted by state."""
    found = await desk.read(inspection.get_workflow(workflow_id, nodes=0))
    return answer({key: value for key, value in found.items() if key != "nodes"})


@router.get("/{workflow_id}/graph", response_model=models.Graph, responses=may_fail(404))
async def get_graph(
    workflow_id: UUID,
    desk: Reader,
    nodes: Annotated[int, Query(ge=1, le=10_000, description="How many at most; failed ones come first.")] = 1000,
) -> Response:
    """The nodes of a workflow and which waits for which."""
    found = await desk.read(inspection.get_workflow(workflow_id, nodes=nodes))
    edges = [{"parent": parent, "child": each["id"]} for each in found["nodes"] for parent in each["depends_on"]]
    return answer({"nodes": found["nodes"], "edges": edges, "complete": len(found["nodes"]) == found["size"]})


@router.post("/{workflow_id}/cancel", response_model=models.Standing, responses=may_fail(404))
async def cancel_workflow(
    workflow_id: UUID, desk: Spawner, how: Annotated[WorkflowCancellation | None, Body()] = None
) -> Response:
    """Cancel all of a workflow that has not ended."""
    state = await desk.change(queue.cancel_workflow(workflow_id, how.reason if how else None))
    return answer({"id": workflow_id, "state": state})


@router.post("/{workflow_id}/retry", response_model=models.Again, responses=may_fail(404, 409))
async def retry_workflow(workflow_id: UUID, desk: Spawner) -> Response:
    """Run what failed or was cancelled of a workflow again; what has completed is reused."""
    return answer({"id": workflow_id, "nodes": await desk.change(queue.retry_workflow(workflow_id))})
