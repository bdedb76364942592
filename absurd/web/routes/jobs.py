"""Jobs: tasks with the products they have made, and many at once: hand in, run again, cancel."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response

from absurd import inspection, queue
from absurd.call import Call
from absurd.middleware import load
from absurd.model import TaskSpec, TaskState
from absurd.redaction import discreet
from absurd.spawning import spawn_calls
from absurd.web import product_models as models
from absurd.web.answers import LOOK, After, Limit, Reason, Text, answer, split_page
from absurd.web.dependencies import Jobs
from absurd.web.desk import Desk, Reader, Spawner
from absurd.web.problems import may_fail
from absurd.web.routes.tasks import NewTask

router = APIRouter(prefix="/jobs", tags=["jobs"])

MOST = 1000
"""Of how many jobs one call may be."""


class Batch(BaseModel):
    """Jobs to hand in, all or none."""

    model_config = ConfigDict(extra="forbid")

    jobs: list[NewTask] = Field(min_length=1, max_length=MOST, description="Each as in `POST /tasks`.")


class Chosen(BaseModel):
    """Which jobs."""

    model_config = ConfigDict(extra="forbid")

    ids: list[UUID] = Field(min_length=1, max_length=MOST)


class Rerun(Chosen):
    """Which jobs to run again."""


class Cancel(Chosen):
    """Which jobs to cancel, and how."""

    reason: Reason | None = Field(None, description="Kept in their history.")
    subtree: bool = Field(False, description="Cancel all that depends on them too, even what has started.")


@router.get("", response_model=models.page_of(models.Job), responses=may_fail(404))
async def list_jobs(
    desk: Reader,
    jobs: Jobs,
    queue: Annotated[Text | None, Query(description="Only of this queue.")] = None,
    state: Annotated[TaskState | None, Query(description="Only in this state.")] = None,
    name: Annotated[Text | None, Query(description="Only of this executor.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only those handed in then or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only those handed in before.")] = None,
    after: After = None,
    limit: Limit = 50,
) -> Response:
    """Tasks with the products they have made, newest first."""
    found = await desk.read(
        inspection.list_tasks(
            queue=queue, state=state, name=name, since=since, until=until, after=after, limit=limit + 1, look=LOOK
        )
    )
    items, following = split_page(found, limit)
    return answer({"items": await jobs.add_products(items), "next": following})


@router.get("/{task_id}", response_model=models.Job, responses=may_fail(404))
async def get_job(task_id: UUID, desk: Reader, jobs: Jobs) -> Response:
    """A task with the products it has made."""
    [job] = await jobs.add_products([await _document(desk, task_id)])
    return answer(job)


@router.get("/{task_id}/provenance", response_model=models.JobProvenance, responses=may_fail(404))
async def get_job_provenance(task_id: UUID, desk: Reader, jobs: Jobs) -> Response:
    """How something came about: a task's params, parents and runs, and its products with all that is behind them."""
    return answer(await jobs.trace(await _document(desk, task_id)))


@router.post("", status_code=201, response_model=models.JobsCreated, responses=may_fail(404, 409))
async def create_jobs(batch: Batch, desk: Spawner) -> Response:
    """Hand in many tasks at once, all or none; keys make the call one that can be repeated."""
    specs = [TaskSpec(**dict(each)) for each in batch.jobs]
    calls = list(spawn_calls(specs, desk.settings.queue_name, load(desk.settings.spawn_middleware)))
    spawned = await desk.change_all(calls, f"{len(specs)} jobs")
    return answer({"jobs": [each._asdict() for part in spawned for each in part]}, 201)


@router.post("/rerun", response_model=models.JobsChanged, responses=may_fail(404, 409))
async def rerun_jobs(chosen: Rerun, desk: Spawner) -> Response:
    """Give ended tasks one more attempt, all or none."""
    ids = sorted(set(chosen.ids))
    return await _change(desk, ids, [queue.retry_task(each) for each in ids])


@router.post("/cancel", response_model=models.JobsChanged, responses=may_fail(404))
async def cancel_jobs(chosen: Cancel, desk: Spawner) -> Response:
    """Cancel tasks and what cannot run without them, all or none; what has ended stays as it is."""
    ids = sorted(set(chosen.ids))
    return await _change(desk, ids, [queue.cancel_task(each, chosen.reason, subtree=chosen.subtree) for each in ids])


async def _change(desk: Desk, ids: list[UUID], calls: list[Call[TaskState]]) -> Response:
    """Make calls, one for each id, in the order of ids: so two callers do not wait for each other."""
    states = await desk.change_all(calls, f"{len(calls)} jobs")
    return answer({"jobs": [{"id": each, "state": state} for each, state in zip(ids, states, strict=True)]})


async def _document(desk: Desk, task_id: UUID) -> dict[str, Any]:
    return discreet(await desk.read(inspection.get_task_document(task_id)))
