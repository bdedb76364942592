"""Services beside this one, as the settings name them."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from absurd.web import product_models as models
from absurd.web.answers import Name, answer, answer_all
from absurd.web.dependencies import Neighbours
from absurd.web.desk import READER
from absurd.web.problems import may_fail

router = APIRouter(prefix="/services", tags=["services"], dependencies=[READER])


@router.get("", response_model=models.page_of(models.Neighbour), responses=may_fail())
async def list_services(neighbours: Neighbours) -> Response:
    """Whether each service of the setting `web_services` answers, and how fast: they are asked now."""
    return answer_all(await neighbours.probe_all())


@router.get("/{name}", response_model=models.Neighbour, responses=may_fail(404))
async def get_service(name: Name, neighbours: Neighbours) -> Response:
    """Whether one of them answers."""
    return answer(await neighbours.probe(name))
