"""Measurement Sets: those that sub-bands were converted to, and from which."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime
from starlette.responses import Response

from absurd.web import product_models as models
from absurd.web.answers import Limit, Number, Place, Text, answer
from absurd.web.dependencies import MeasurementSets
from absurd.web.desk import READER
from absurd.web.problems import may_fail

router = APIRouter(prefix="/ms", tags=["measurement sets"], dependencies=[READER])


@router.get("", response_model=models.page_of(models.MeasurementSet), responses=may_fail())
async def list_measurement_sets(
    sets: MeasurementSets,
    intake: Annotated[Text | None, Query(description="Only of this intake.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only those recorded then or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only those recorded before.")] = None,
    after: Place = None,
    limit: Limit = 50,
) -> Response:
    """Measurement Sets, the last recording first."""
    return answer(await sets.list_page(limit, after, intake=intake, since=since, until=until))


@router.get("/{number}", response_model=models.MeasurementSet, responses=may_fail(404))
async def get_measurement_set(number: Number, sets: MeasurementSets) -> Response:
    """A Measurement Set: where it is, when it was recorded, and what its conversion has told."""
    return answer(await sets.get(number))


@router.get("/{number}/provenance", response_model=models.MsProvenance, responses=may_fail(404))
async def get_measurement_set_provenance(number: Number, sets: MeasurementSets) -> Response:
    """The files of sub-bands that a Measurement Set was converted from."""
    return answer(await sets.trace(number))
