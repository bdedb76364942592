"""Workers: who is there, and orders to them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from absurd import inspection, orders
from absurd.web import models
from absurd.web.answers import Page, answer, answer_all
from absurd.web.desk import Operator, Reader
from absurd.web.problems import may_fail

router = APIRouter(prefix="/workers", tags=["workers"])


class Draining(BaseModel):
    """Whether to drain."""

    model_config = ConfigDict(extra="forbid")

    undo: bool = Field(False, description="Take it back, if the worker has not left yet.")


@router.get("", response_model=Page[models.Worker], responses=may_fail())
async def list_workers(
    desk: Reader, *, all: Annotated[bool, Query(description="Every one that ever was.")] = False
) -> Response:
    """Workers that are alive, and those lost within the hour."""
    return answer_all(await desk.read(inspection.list_workers(all=all)))


@router.post("/{worker}/drain", response_model=models.WorkerState, responses=may_fail(404))
async def drain_worker(
    worker: Annotated[int, Path(ge=1, le=2_147_483_647)],
    desk: Operator,
    how: Annotated[Draining | None, Body()] = None,
) -> Response:
    """Have a worker claim nothing more, and leave once its runs have ended."""
    state = await desk.change(orders.drain_worker(worker, draining=not (how and how.undo)))
    return answer({"id": worker, "state": state})
