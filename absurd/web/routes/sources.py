"""Sources of the sky: find, look at, light curves and variability."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime
from starlette.responses import Response

from absurd.web import product_models as models
from absurd.web.answers import Limit, Number, Place, Text, answer
from absurd.web.dependencies import Sources
from absurd.web.desk import READER
from absurd.web.problems import may_fail

router = APIRouter(prefix="/sources", tags=["sources"], dependencies=[READER])


@router.get("", response_model=models.page_of(models.Source), responses=may_fail())
async def list_sources(
    sources: Sources,
    name: Annotated[Text | None, Query(description="Only of this name.")] = None,
    ra: Annotated[float | None, Query(ge=0, le=360, description="Around this position: degrees, ICRS.")] = None,
    declination: Annotated[float | None, Query(ge=-90, le=90, description="Degrees, ICRS.")] = None,
    radius: Annotated[float, Query(gt=0, le=648_000, description="Arcseconds around the position.")] = 60.0,
    after: Place = None,
    limit: Limit = 50,
) -> Response:
    """Sources, the last one found first; around a position the nearest first, on one page, with `arcsec`."""
    if ra is not None or declination is not None:
        return answer(await sources.list_around(ra, declination, radius, limit))
    return answer(await sources.list_page(limit, after, name=name))


@router.get("/{number}", response_model=models.Source, responses=may_fail(404))
async def get_source(number: Number, sources: Sources) -> Response:
    """Where a source is, and what it is called."""
    return answer(await sources.get(number))


@router.get("/{number}/lightcurve", response_model=models.LightCurve, responses=may_fail(404))
async def get_light_curve(
    number: Number,
    sources: Sources,
    since: Annotated[AwareDatetime | None, Query(description="Only from then on.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only before.")] = None,
    after: Place = None,
    limit: Limit = 500,
) -> Response:
    """What a source was in each image it was measured in, by time: a flux density with its error, or a limit."""
    return answer(await sources.list_light_curve(number, limit, after, since=since, until=until))


@router.get("/{number}/variability", response_model=models.page_of(models.Variability), responses=may_fail(404))
async def get_variability(number: Number, sources: Sources) -> Response:
    """How much a source changes, by each table that tells it, the latest first."""
    return answer(await sources.list_variability(number))


@router.get("/{number}/images", response_model=models.page_of(models.Product), responses=may_fail(404))
async def list_source_images(number: Number, sources: Sources, after: Place = None, limit: Limit = 50) -> Response:
    """The images that a source was measured in, by time."""
    return answer(await sources.list_images(number, limit, after))
