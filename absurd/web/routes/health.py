"""How all stands: for probes, and for people."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from absurd import inspection, schedules
from absurd.web import models
from absurd.web.answers import answer
from absurd.web.desk import Reader
from absurd.web.problems import may_fail

router = APIRouter(tags=["health"])


@router.get("/health", response_model=models.Health, responses=may_fail())
async def get_health(request: Request) -> Response:
    """Whether the interface and its database answer; needs no token."""
    time = await request.app.state.database.run(schedules.get_clock())
    return answer({"status": "ok", "version": request.app.version, "time": time})


@router.get("/status", response_model=models.Status, responses=may_fail())
async def get_status(desk: Reader) -> Response:
    """Queues, workers, schedules, and problems with what to do about each."""
    return answer(await desk.read(inspection.get_status()))
