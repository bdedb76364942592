"""Gain sets: what was solved, from what, and whether it may be used."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime
from starlette.responses import Response

from absurd.gains import GainSetState
from absurd.web import product_models as models
from absurd.web.answers import Limit, Number, Place, Text, answer
from absurd.web.dependencies import GainSets
from absurd.web.desk import READER
from absurd.web.problems import may_fail

router = APIRouter(prefix="/cal", tags=["calibration"], dependencies=[READER])


@router.get("", response_model=models.page_of(models.GainSet), responses=may_fail())
async def list_gain_sets(
    sets: GainSets,
    telescope: Annotated[Text | None, Query(description="Only of this telescope.")] = None,
    source: Annotated[Text | None, Query(description="Only of this calibrator.")] = None,
    state: Annotated[GainSetState | None, Query(description="Only in this state.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only those recorded then or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only those recorded before.")] = None,
    after: Place = None,
    limit: Limit = 50,
) -> Response:
    """Gain sets, the last one registered first."""
    return answer(
        await sets.list_page(limit, after, telescope=telescope, source=source, state=state, since=since, until=until)
    )


@router.get("/{number}", response_model=models.GainSet, responses=may_fail(404))
async def get_gain_set(number: Number, sets: GainSets) -> Response:
    """A gain set: where it is, for what it holds, its quality, and why it is not used if it is not."""
    return answer(await sets.get(number))


@router.get("/{number}/provenance", response_model=models.GainProvenance, responses=may_fail(404))
async def get_gain_set_provenance(number: Number, sets: GainSets) -> Response:
    """What a gain set was solved from."""
    found = await sets.get(number)
    return answer({"gain_set": found, "provenance": found["provenance"], "superseded_by": found["superseded_by"]})
