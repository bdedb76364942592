"""Exports: files that export tasks have published."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime
from starlette.responses import Response

from absurd.web import product_models as models
from absurd.web.answers import Limit, Place, Text, answer
from absurd.web.dependencies import Exports
from absurd.web.desk import READER
from absurd.web.files import ANSWERS, answer_file
from absurd.web.problems import may_fail

router = APIRouter(prefix="/exports", tags=["exports"], dependencies=[READER])


@router.get("", response_model=models.page_of(models.PublishedFile), responses=may_fail())
async def list_exports(
    exports: Exports,
    executor: Annotated[Text | None, Query(description="Only of this executor, such as export.query.")] = None,
    kind: Annotated[Text | None, Query(description="Only files of this kind.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only those published then or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only those published before.")] = None,
    after: Place = None,
    limit: Limit = 50,
) -> Response:
    """Files of exports, those of the last task first."""
    return answer(await exports.list_page(limit, after, executor=executor, kind=kind, since=since, until=until))


@router.get("/{task_id}", response_model=models.page_of(models.PublishedFile), responses=may_fail(404))
async def get_export(task_id: UUID, exports: Exports) -> Response:
    """What one task has published, by path."""
    return answer(await exports.list_of_task(task_id))


@router.get("/{task_id}/files/{sha256}", response_class=Response, responses=may_fail(404, 409) | ANSWERS)
async def get_export_file(task_id: UUID, sha256: str, request: Request, exports: Exports) -> Response:
    """The content of a file, named by its hash."""
    return answer_file(request.scope, await exports.get_file(task_id, sha256))
