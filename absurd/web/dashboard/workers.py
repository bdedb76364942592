"""Workers: who is there, what they hold, and orders to leave."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from absurd import inspection, orders
from absurd.web.dashboard.form import Posted
from absurd.web.dashboard.render import show
from absurd.web.desk import Operator, Reader

router = APIRouter(prefix="/workers")


@router.get("")
async def show_workers(request: Request, desk: Reader) -> Response:
    """Workers that are alive, and those lost within the hour."""
    return show(request, "workers.html", workers=await desk.read(inspection.list_workers()))


@router.post("/{worker}/drain")
async def drain_worker(worker: Annotated[int, Path(ge=1, le=2_147_483_647)], desk: Operator, form: Posted) -> Response:
    """Have a worker claim nothing more and leave once its runs have ended; with `undo` take that back."""
    state = await desk.change(orders.drain_worker(worker, draining="undo" not in form))
    told = "claims again" if "undo" in form else "claims nothing more, and leaves once its runs have ended"
    return form.go("/workers", f"Worker {worker}, {state}, {told}.")
