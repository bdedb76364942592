"""How all stands: for probes, and for people."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from starlette.responses import Response

from absurd import inspection, schedules
from absurd.errors import DatabaseUnavailableError
from absurd.web import models
from absurd.web.answers import answer
from absurd.web.desk import Reader
from absurd.web.problems import may_fail

open_router = APIRouter(tags=["health"])
"""What is there for everybody."""
router = APIRouter(tags=["health"])


@open_router.get("/health", response_model=models.Health, responses=may_fail())
async def get_health(request: Request) -> Response:
    """Whether the interface and its database answer; needs no token."""
    return answer({"status": "ok", "version": request.app.version, "time": await _clock(request)})


async def _clock(request: Request) -> datetime:
    """The time of the database, within the time-out of such checks; of this machine, where a file is served."""
    database, seconds = request.app.state.database, request.app.state.settings.timeout_health_check
    if database is None:
        return datetime.now(UTC)
    try:
        async with asyncio.timeout(seconds):
            found: datetime = await database.run(schedules.get_clock())
    except TimeoutError:
        raise DatabaseUnavailableError(f"no answer within {seconds:g} s", address=database.address) from None
    return found


@router.get("/status", response_model=models.Status, responses=may_fail())
async def get_status(desk: Reader) -> Response:
    """Queues, workers, schedules, and problems with what to do about each."""
    return answer(await desk.read(inspection.get_status()))
