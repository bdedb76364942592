"""Alerts: how each stands, what was told to whom, silences, and a message to try its targets."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from absurd import alerts
from absurd.web.answers import Name
from absurd.web.dashboard.form import Posted
from absurd.web.dashboard.render import show
from absurd.web.dashboard.words import tell_seconds
from absurd.web.desk import Operator, Reader
from absurd.web.services.alerts import send_trial

router = APIRouter(prefix="/alerts")

EVENTS = 50
"""How many times that one fired or recovered a page shows."""


@router.get("")
async def show_alerts(request: Request, desk: Reader) -> Response:
    """All alerts, and what was told last."""
    found = await desk.read(alerts.list_alerts())
    events = await desk.read(alerts.list_alert_events(limit=EVENTS))
    return show(request, "alerts.html", alerts=found, events=events)


@router.get("/{name}")
async def show_alert(request: Request, name: Name, desk: Reader) -> Response:
    """One alert, and when it fired and recovered."""
    found = await desk.read(alerts.get_alert(name))
    return show(
        request, "alert.html", alert=found, events=await desk.read(alerts.list_alert_events(name, limit=EVENTS))
    )


@router.post("/{name}/silence")
async def silence_alert(name: Name, desk: Operator, form: Posted) -> Response:
    """Have nobody told that it fires for so many hours; without them that ends."""
    seconds = 3600 * (form.number("hours") or 0.0)
    await desk.change(alerts.silence_alert(name, seconds, form.get("reason")))
    told = f"nobody is told for {tell_seconds(seconds)} that it fires" if seconds else "it is told again when it fires"
    return form.go(f"/alerts/{name}", f"Alert {name}: {told}.")


@router.post("/{name}/test")
async def try_alert(name: Name, desk: Operator, form: Posted) -> Response:
    """Send its targets a message that is marked as a test."""
    found = await send_trial(desk, name)
    told = [found["message"], *(f"{each['target']}: {each['error'] or 'has taken it'}" for each in found["sent"])]
    return form.go(f"/alerts/{name}", f"{'; '.join(told)}.")
