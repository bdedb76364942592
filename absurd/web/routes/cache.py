"""What this process keeps so as not to make it again: pictures, and counts."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from absurd.web import product_models as models
from absurd.web.answers import Text, answer
from absurd.web.dependencies import Kept
from absurd.web.desk import Operator, Reader
from absurd.web.problems import may_fail

router = APIRouter(prefix="/cache", tags=["cache"])


class Invalidation(BaseModel):
    """What to forget."""

    model_config = ConfigDict(extra="forbid")

    pattern: Text = Field(
        min_length=1, max_length=200, description="Keys like this: `stats`, `picture:SHA256:*`; * and ? are anything."
    )


@router.get("", response_model=models.CacheStatistics, responses=may_fail())
async def get_cache(cache: Kept, _: Reader) -> Response:
    """How much the process that answers keeps, and how often it was of use; each process has its own."""
    return answer(cache.statistics())


@router.post("/invalidate", response_model=models.Invalidated, responses=may_fail())
async def invalidate_cache(what: Invalidation, cache: Kept, desk: Operator) -> Response:
    """Forget some of it, by key."""
    await desk.record(what.pattern)
    return answer({"removed": cache.invalidate(what.pattern)})


@router.post("/clear", response_model=models.Invalidated, responses=may_fail())
async def clear_cache(cache: Kept, desk: Operator) -> Response:
    """Forget all of it."""
    await desk.record(None)
    return answer({"removed": cache.invalidate("*")})
