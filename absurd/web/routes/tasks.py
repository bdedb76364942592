"""Tasks: hand in, find, look at, cancel, retry."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from absurd import inspection, logs, queue
from absurd.errors import InvalidOptionError, NotFoundError
from absurd.middleware import load
from absurd.model import TaskSpec, TaskState
from absurd.redaction import discreet
from absurd.spawning import spawn_calls
from absurd.web import models
from absurd.web.access import API
from absurd.web.answers import LOOK, After, Limit, Page, Reason, Text, answer, answer_all, answer_found
from absurd.web.desk import Desk, Reader, Spawner
from absurd.web.files import ANSWERS, answer_file
from absurd.web.problems import may_fail

router = APIRouter(prefix="/tasks", tags=["tasks"])


class NewTask(BaseModel):
    """A task to hand in: an executor's name, its params, and the options of a spawn, as in Python."""

    model_config = ConfigDict(extra="forbid")

    name: Text = Field(description="Name of the executor.")
    params: Any = Field(None, description="The executor's arguments.")
    queue: Text | None = None
    priority: int | None = Field(None, description="Higher goes first; -10000 to 10000.")
    delay: float | None = Field(None, description="Seconds from now before which it does not start.")
    run_at: AwareDatetime | None = Field(None, description="The time before which it does not start.")
    key: Text | None = Field(None, description="The same queue and key mean the same task.")
    depends_on: list[UUID] | None = Field(None, description="Tasks that must complete before.")
    headers: dict[str, Any] | None = None
    tags: list[Text] | None = None
    max_attempts: int | None = None
    timeout: float | None = Field(None, description="Longest time of a run, in seconds.")
    retry: dict[str, Any] | None = Field(None, description="Policy: max_attempts, base, factor, maximum, jitter.")
    needs: dict[str, float] | None = Field(None, description="What it holds while it runs, such as cpu.")
    lane: Text | None = None
    when: Text | None = Field(None, description="Which ends of its parents let it run.")
    key_period: float | None = Field(None, description="For how many seconds the key counts.")
    key_scope: Text | None = None
    start_within: float | None = Field(None, description="Seconds in which it must have started.")
    finish_within: float | None = Field(None, description="Seconds in which it must have ended.")
    workflow: UUID | None = None
    node: Text | None = None


class Cancellation(BaseModel):
    """How to cancel."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason | None = Field(None, description="Kept in the task's history.")
    subtree: bool = Field(False, description="Cancel all that depends on it too, even what has started.")


@router.post(
    "",
    status_code=201,
    response_model=models.Spawned,
    responses=may_fail(404, 409) | {200: {"model": models.Spawned, "description": "The key was taken."}},
)
async def spawn_task(wanted: NewTask, desk: Spawner) -> Response:
    """Hand in a task; with a key the call can be repeated: it spawns once."""
    spec = TaskSpec(**dict(wanted))
    calls = list(spawn_calls([spec], desk.settings.queue_name, load(desk.settings.spawn_middleware)))
    [[spawned]] = await desk.change_all(calls, spec.key or wanted.name)
    return answer(spawned._asdict(), 201 if spawned.created else 200, {"Location": f"{API}/tasks/{spawned.id}"})


@router.get("", response_model=Page[models.TaskRow], responses=may_fail(404))
async def list_tasks(
    desk: Reader,
    queue: Annotated[Text | None, Query(description="Only of this queue.")] = None,
    state: Annotated[TaskState | None, Query(description="Only in this state.")] = None,
    name: Annotated[Text | None, Query(description="Only of this executor.")] = None,
    tag: Annotated[Text | None, Query(description="Only with this tag.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only those spawned then or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only those spawned before.")] = None,
    after: After = None,
    limit: Limit = 50,
) -> Response:
    """Tasks, newest first; where filters fit few, a page may be short, even empty, and `next` tells where to go on."""
    found = await desk.read(
        inspection.list_tasks(
            queue=queue,
            state=state,
            name=name,
            tag=tag,
            since=since,
            until=until,
            after=after,
            limit=limit + 1,
            look=LOOK,
        )
    )
    return answer_found(found, limit)


@router.get("/{task_id}", response_model=models.Task, responses=may_fail(404))
async def get_task(task_id: UUID, desk: Reader) -> Response:
    """Everything about a task."""
    return answer(await _document(desk, task_id))


@router.get("/{task_id}/why", response_model=models.Why, responses=may_fail(404))
async def get_why(task_id: UUID, desk: Reader) -> Response:
    """What a task waits for, or how it ended, in a sentence."""
    return answer({"id": task_id, "why": await desk.read(inspection.task_why(task_id))})


@router.get("/{task_id}/logs", response_model=models.LogPage, responses=may_fail(404))
async def get_logs(
    task_id: UUID,
    desk: Reader,
    attempt: Annotated[int | None, Query(ge=1, le=32_767, description="Only of this attempt.")] = None,
    tail: Annotated[int | None, Query(ge=0, le=100_000, description="Only so many lines, the last ones.")] = None,
    after: Annotated[
        str | None, Query(pattern=r"^\d{1,5}\.\d{1,15}\.\d{1,15}$", description="`next` of the page before.")
    ] = None,
) -> Response:
    """What the runs of a task have written, about a mebibyte a page."""
    if tail is not None and after is not None:
        raise InvalidOptionError(
            "tail and after exclude each other: the last lines, or those behind a place", option="tail"
        )
    cursor = logs.Cursor(*map(int, after.split("."))) if after else None
    page = await desk.read(logs.read_log(task_id, attempt=attempt, after=cursor, tail=tail))
    lines = [asdict(each) for each in logs.last_lines(page.lines, tail)]
    place = ".".join(map(str, page.end)) if page.end else None
    return answer({"lines": lines, "state": page.state, "more": page.more, "next": place})


@router.get("/{task_id}/artifacts", response_model=Page[models.Artifact], responses=may_fail(404))
async def list_artifacts(task_id: UUID, desk: Reader) -> Response:
    """The files that a task has published, by path."""
    return answer_all((await _document(desk, task_id))["artifacts"])


@router.get(
    "/{task_id}/artifacts/{sha256}",
    response_class=Response,
    responses=may_fail(404, 409) | ANSWERS,
)
async def get_artifact(task_id: UUID, sha256: str, request: Request, desk: Reader) -> Response:
    """The content of a file that a task has published, named by its hash."""
    for each in (await _document(desk, task_id))["artifacts"]:
        if each["sha256"] == sha256:
            return answer_file(request.scope, each)
    raise NotFoundError(f"task {task_id} has published no file with that SHA-256", id=str(task_id))


@router.post("/{task_id}/cancel", response_model=models.Standing, responses=may_fail(404))
async def cancel_task(task_id: UUID, desk: Spawner, how: Annotated[Cancellation | None, Body()] = None) -> Response:
    """Cancel a task and what cannot run without it; one that has ended stays as it is."""
    how = how or Cancellation.model_validate({})
    state = await desk.change(queue.cancel_task(task_id, how.reason, subtree=how.subtree))
    return answer({"id": task_id, "state": state})


@router.post("/{task_id}/retry", response_model=models.Standing, responses=may_fail(404, 409))
async def retry_task(task_id: UUID, desk: Spawner) -> Response:
    """Give an ended task one more attempt."""
    return answer({"id": task_id, "state": await desk.change(queue.retry_task(task_id))})


async def _document(desk: Desk, task_id: UUID) -> dict[str, Any]:
    return discreet(await desk.read(inspection.get_task_document(task_id)))
