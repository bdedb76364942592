"""Queues: how they stand, their pauses and limits."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from absurd import inspection, queue
from absurd.limits import QueueLimits, set_queue_limits
from absurd.web import models
from absurd.web.answers import Name, Page, Text, answer, answer_all
from absurd.web.desk import Operator, Reader
from absurd.web.problems import may_fail

router = APIRouter(prefix="/queues", tags=["queues"])


class Limits(BaseModel):
    """Limits to change: what is left out stays as it is, null lifts one."""

    model_config = ConfigDict(extra="forbid")

    running: int | None = Field(None, description="How many of its tasks run at once.")
    per_lane: int | None = Field(None, description="How many tasks of one lane run at once.")
    rate: Text | None = Field(None, description="How many start in a time: 100/minute, 5/30 (seconds).")
    fair: bool | None = Field(None, description="Whether lanes take turns.")


@router.get("", response_model=Page[models.Queue], responses=may_fail())
async def list_queues(desk: Reader) -> Response:
    """Queues by name, with their counts."""
    return answer_all(await desk.read(inspection.list_queues()))


@router.get("/{name}/stats", response_model=models.QueueStats, responses=may_fail(404))
async def get_queue_stats(name: Name, desk: Reader) -> Response:
    """How many tasks of a queue are in each state; costs the same however many there are."""
    found = await desk.read(queue.get_queue_stats(name))
    return answer(asdict(found))


@router.post("/{name}/pause", response_model=models.Paused, responses=may_fail(404))
async def pause_queue(name: Name, desk: Operator) -> Response:
    """Let nothing new be claimed; what runs goes on."""
    await desk.change(queue.set_queue_paused(name, paused=True))
    return answer({"name": name, "paused": True})


@router.post("/{name}/resume", response_model=models.Paused, responses=may_fail(404))
async def resume_queue(name: Name, desk: Operator) -> Response:
    """End a pause."""
    await desk.change(queue.set_queue_paused(name, paused=False))
    return answer({"name": name, "paused": False})


@router.patch("/{name}/limits", response_model=dict[str, Any], responses=may_fail(404))
async def limit_queue(name: Name, limits: Limits, desk: Operator) -> Response:
    """Change limits; gives those now in force."""
    given = cast("QueueLimits", limits.model_dump(exclude_unset=True))
    return answer(await desk.change(set_queue_limits(name, given)))
