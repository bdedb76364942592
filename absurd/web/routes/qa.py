"""Quality: what gates have measured of products."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime
from starlette.responses import Response

from absurd.products import FileKind
from absurd.web import product_models as models
from absurd.web.answers import Limit, Number, Place, Text, answer
from absurd.web.dependencies import Measures, Products
from absurd.web.desk import READER
from absurd.web.problems import may_fail

router = APIRouter(prefix="/qa", tags=["quality"], dependencies=[READER])


@router.get("", response_model=models.page_of(models.Measure), responses=may_fail())
async def list_measures(
    measures: Measures,
    verdict: Annotated[Literal["ok", "warn", "fail", "none"] | None, Query(description="Only so judged.")] = None,
    gate: Annotated[Text | None, Query(description="Only of this gate.")] = None,
    kind: Annotated[FileKind | None, Query(description="Only of products of this kind.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only those measured then or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only those measured before.")] = None,
    after: Place = None,
    limit: Limit = 50,
) -> Response:
    """What gates have measured, of the last product first."""
    return answer(
        await measures.list_page(limit, after, verdict=verdict, gate=gate, kind=kind, since=since, until=until)
    )


@router.get("/{number}", response_model=models.Image, responses=may_fail(404))
async def get_measures(number: Number, products: Products) -> Response:
    """A product of any kind with what gates have measured of it; none is an empty list."""
    return answer(await products.show(number))
