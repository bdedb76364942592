"""How much there is of what the pipeline has made."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from absurd.web import product_models as models
from absurd.web.answers import answer
from absurd.web.dependencies import Statistics
from absurd.web.desk import READER
from absurd.web.problems import may_fail

router = APIRouter(prefix="/stats", tags=["statistics"], dependencies=[READER])


@router.get("", response_model=models.Statistics, responses=may_fail())
async def get_stats(statistics: Statistics) -> Response:
    """Products, gain sets, recordings and measures by state, sources, and sessions by type; kept for half a minute."""
    return answer(await statistics.count())
