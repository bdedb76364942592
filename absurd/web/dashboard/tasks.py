"""Tasks: find, look at, cancel, retry."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from absurd import inspection, logs, queue
from absurd.errors import InvalidInputError, NotFoundError
from absurd.model import TaskState
from absurd.redaction import discreet
from absurd.web.answers import LOOK, After, Text, split_page
from absurd.web.dashboard.form import Posted
from absurd.web.dashboard.pictures import answer_picture, showable
from absurd.web.dashboard.render import show
from absurd.web.desk import Desk, Reader, Spawner
from absurd.web.files import answer_file

router = APIRouter(prefix="/tasks")

PAGE = 50
"""How many tasks a page shows."""
TAIL = 200
"""How many of the last lines of a log."""


@router.get("")
async def show_tasks(
    request: Request,
    desk: Reader,
    queue: Text = "",
    state: Text = "",
    name: Text = "",
    tag: Text = "",
    params: Annotated[Text, Query(max_length=1000)] = "",
    since: Text = "",
    until: Text = "",
    after: After = None,
) -> Response:
    """Tasks, newest first, a page at a time."""
    given = {"queue": queue, "state": state, "name": name, "tag": tag}
    found = await desk.read(
        inspection.list_tasks(
            **{key: value or None for key, value in given.items()},
            params=_params(params),
            since=_time(since, "since"),
            until=_time(until, "until"),
            after=after,
            limit=PAGE + 1,
            look=LOOK,
        )
    )
    given |= {"params": params, "since": since, "until": until}
    filters = {key: value for key, value in given.items() if value}
    tasks, last = split_page(found, PAGE)
    following = urlencode(filters | {"after": last}) if last else None
    return show(
        request, "tasks.html", tasks=tasks, given=given, filters=urlencode(filters), following=following,
        paged=after is not None, states=list(TaskState),
        queues=[each["name"] for each in await desk.read(inspection.list_queues())],
        executors=[each["name"] for each in await desk.read(inspection.list_executors())],
    )  # fmt: skip


@router.get("/{task_id}")
async def show_task(request: Request, task_id: UUID, desk: Reader) -> Response:
    """All about a task."""
    task = await _document(desk, task_id)
    page = await desk.read(logs.read_log(task_id, tail=TAIL))
    return show(
        request, "task.html", task=task, why=await desk.read(inspection.task_why(task_id)),
        lines=logs.last_lines(page.lines, TAIL), tail=TAIL, ended=TaskState(task["state"]).ended,
        showable=showable(request),
    )  # fmt: skip


@router.get("/{task_id}/artifacts/{sha256}")
async def get_artifact(request: Request, task_id: UUID, sha256: str, desk: Reader) -> Response:
    """The content of a file that a task has published, named by its hash."""
    return answer_file(request.scope, await _artifact(desk, task_id, sha256))


@router.get("/{task_id}/artifacts/{sha256}/preview")
async def get_preview(request: Request, task_id: UUID, sha256: str, desk: Reader) -> Response:
    """A picture of a file that a task has published."""
    return await answer_picture(request, await _artifact(desk, task_id, sha256))


@router.post("/{task_id}/cancel")
async def cancel_task(task_id: UUID, desk: Spawner, form: Posted) -> Response:
    """Cancel a task and what cannot run without it."""
    call = queue.cancel_task(task_id, form.get("reason", "")[:1000] or None, subtree="subtree" in form)
    state = await desk.change(call)
    return form.go(f"/tasks/{task_id}", f"The task is {state}.")


@router.post("/{task_id}/retry")
async def retry_task(task_id: UUID, desk: Spawner, form: Posted) -> Response:
    """Give an ended task one more attempt."""
    state = await desk.change(queue.retry_task(task_id))
    return form.go(f"/tasks/{task_id}", f"The task is {state} again.")


async def _document(desk: Desk, task_id: UUID) -> dict[str, Any]:
    return discreet(await desk.read(inspection.get_task_document(task_id)))


async def _artifact(desk: Desk, task_id: UUID, sha256: str) -> dict[str, Any]:
    for each in (await _document(desk, task_id))["artifacts"]:
        if each["sha256"] == sha256:
            return dict(each)
    raise NotFoundError(f"task {task_id} has published no file with that SHA-256", id=str(task_id))


def _params(text: str) -> dict[str, Any] | None:
    """``a.b=1, c=x`` as paths with values; what is no JSON is text."""
    found: dict[str, Any] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        path, equals, value = part.partition("=")
        if not equals:
            raise InvalidInputError(f"params hold {part!r}; write path=value, such as tile=12 or config.mode=fast")
        try:
            found[path.strip()] = json.loads(value)
        except ValueError:
            found[path.strip()] = value.strip()
    return found or None


def _time(text: str, what: str) -> datetime | None:
    """What a field for a time holds; without a zone it is UTC."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(f"{what} is {text!r}; it must be a time such as 2026-03-01T22:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
