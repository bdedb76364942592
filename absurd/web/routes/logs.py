"""Logs as text, as programs and people read them without more ado."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.responses import PlainTextResponse, Response

from absurd import logs
from absurd.web.desk import Reader
from absurd.web.problems import may_fail

router = APIRouter(prefix="/logs", tags=["logs"])


@router.get(
    "/{task_id}",
    response_class=Response,
    responses=may_fail(404) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_log(
    task_id: UUID,
    desk: Reader,
    tail: Annotated[int, Query(ge=1, le=100_000, description="So many lines, the last ones.")] = 1000,
) -> Response:
    """The end of what the runs of a task have written, a line each; `/tasks/{task_id}/logs` tells more of each."""
    page = await desk.read(logs.read_log(task_id, tail=tail))
    text = "".join(f"{each.text}\n" for each in logs.last_lines(page.lines, tail))
    return PlainTextResponse(text.encode("utf-8", "replace"))
