"""Cut-outs: files that cut-out tasks have published."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime
from starlette.responses import Response

from absurd.web import product_models as models
from absurd.web.answers import Limit, Place, Text, answer
from absurd.web.dependencies import Cutouts, Pictures
from absurd.web.desk import READER
from absurd.web.files import ANSWERS, answer_file
from absurd.web.problems import may_fail

router = APIRouter(prefix="/cutouts", tags=["cutouts"], dependencies=[READER])


@router.get("", response_model=models.page_of(models.PublishedFile), responses=may_fail())
async def list_cutouts(
    cutouts: Cutouts,
    executor: Annotated[Text | None, Query(description="Only of this executor, such as cutout.batch.")] = None,
    kind: Annotated[Text | None, Query(description="Only files of this kind.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only those published then or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only those published before.")] = None,
    after: Place = None,
    limit: Limit = 50,
) -> Response:
    """Files of cut-outs, those of the last task first."""
    return answer(await cutouts.list_page(limit, after, executor=executor, kind=kind, since=since, until=until))


@router.get("/{task_id}", response_model=models.page_of(models.PublishedFile), responses=may_fail(404))
async def get_cutout(task_id: UUID, cutouts: Cutouts) -> Response:
    """What one task has published, by path."""
    return answer(await cutouts.list_of_task(task_id))


@router.get("/{task_id}/files/{sha256}", response_class=Response, responses=may_fail(404, 409) | ANSWERS)
async def get_cutout_file(task_id: UUID, sha256: str, request: Request, cutouts: Cutouts) -> Response:
    """The content of a file, named by its hash."""
    return answer_file(request.scope, await cutouts.get_file(task_id, sha256))


@router.get(
    "/{task_id}/files/{sha256}/thumbnail",
    response_class=Response,
    responses=may_fail(404, 409) | {200: {"content": {"image/png": {}}}, 304: ANSWERS[304]},
)
async def get_cutout_thumbnail(
    task_id: UUID,
    sha256: str,
    request: Request,
    cutouts: Cutouts,
    pictures: Pictures,
    size: Annotated[int, Query(ge=32, le=2048, description="Pixels of the longer side, at most.")] = 256,
) -> Response:
    """A FITS file as a small picture."""
    return await pictures.answer_picture(request.scope, await cutouts.get_file(task_id, sha256), size)
