"""Alerts: make, change, silence, try, remove, and what was told."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from absurd import alerts
from absurd.errors import AlertNotFoundError
from absurd.web import models
from absurd.web.answers import Limit, Name, Page, Reason, Text, answer, answer_all, answer_page
from absurd.web.desk import Operator, Reader
from absurd.web.problems import may_fail
from absurd.web.services.alerts import send_trial

router = APIRouter(prefix="/alerts", tags=["alerts"])

Before = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="`next` of the page before.")]


class NewAlert(BaseModel):
    """An alert: what is measured, and when that is too much, or for `disk_free` and `workers` too little."""

    model_config = ConfigDict(extra="forbid")

    measure: Text = Field(description="Such as `queue_age` or `failure_rate`; each takes its own of the options below.")
    threshold: float = Field(allow_inf_nan=False, description="Seconds, a number, or a fraction.")
    hold: float | None = Field(None, alias="for", description="Seconds that it must be passed before it fires.")
    severity: Literal["warning", "critical"] | None = None
    targets: list[Text] | None = Field(None, description="Who is told, by names of the setting `alert_targets`.")
    queue: Text | None = None
    executor: Text | None = None
    schedule: Text | None = None
    telescope: Text | None = None
    folder: Text | None = Field(None, description="Whose disk, on the machine of the scheduler.")
    code: Text | None = Field(None, description="Of problems.")
    window: float | None = Field(None, description="Seconds to look back.")
    least: int | None = Field(None, description="Of fewer nothing is concluded.")


class Silence(BaseModel):
    """For how long nobody is told."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(ge=0, le=31_536_000, description="0 ends the silence.")
    reason: Reason | None = None


class Trial(BaseModel):
    """How to try an alert."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(False, description="Send nothing.")


@router.get("", response_model=Page[models.Alert], responses=may_fail())
async def list_alerts(desk: Reader) -> Response:
    """All alerts by name, with how each stands and what was measured last."""
    return answer_all(await desk.read(alerts.list_alerts()))


@router.get("/{name}", response_model=models.Alert, responses=may_fail(404))
async def get_alert(name: Name, desk: Reader) -> Response:
    """One alert."""
    return answer(await desk.read(alerts.get_alert(name)))


@router.put(
    "/{name}",
    response_model=models.AlertChange,
    responses=may_fail() | {201: {"model": models.AlertChange, "description": "It is new."}},
)
async def set_alert(name: Name, wanted: NewAlert, desk: Operator) -> Response:
    """Make an alert, or change the one of that name."""
    change = await desk.change(alerts.set_alert(name, wanted.model_dump(by_alias=True, exclude_none=True)))
    return answer({"name": name, "change": change}, 201 if change == "created" else 200)


@router.delete("/{name}", status_code=204, response_class=Response, responses=may_fail(404))
async def remove_alert(name: Name, desk: Operator) -> Response:
    """Remove an alert with its history."""
    async with desk.changing() as session:
        if not await session.run(alerts.remove_alert(name)):
            raise AlertNotFoundError(f"there is no alert {name}", name=name)
    return Response(status_code=204)


@router.post("/{name}/silence", response_model=models.Alert, responses=may_fail(404))
async def silence_alert(name: Name, wanted: Silence, desk: Operator) -> Response:
    """Have nobody told that it fires; it goes on being measured."""
    return answer(await desk.change(alerts.silence_alert(name, wanted.seconds, wanted.reason)))


@router.post("/{name}/test", response_model=models.AlertTrial, responses=may_fail(404))
async def try_alert(name: Name, desk: Operator, how: Annotated[Trial | None, Body()] = None) -> Response:
    """Measure it now, and send its targets a message that is marked as a test, with this server's settings."""
    return answer(await send_trial(desk, name, dry_run=how is not None and how.dry_run))


@router.get("/{name}/history", response_model=Page[models.AlertEvent], responses=may_fail(404))
async def list_alert_events(name: Name, desk: Reader, after: Before = None, limit: Limit = 50) -> Response:
    """When it began to fire and recovered, the latest first, and what became of each message."""
    found = await desk.read(alerts.list_alert_events(name, before=after, limit=limit + 1))
    return answer_page(found, limit, lambda each: each["id"])
