"""``/metrics``: the whole queue in the text format of Prometheus."""

from __future__ import annotations

from starlette.responses import Response

from absurd import inspection
from absurd.metrics import CONTENT_TYPE, exposition
from absurd.readings import read_queue
from absurd.web.desk import Reader


async def tell_metrics(desk: Reader) -> Response:
    """Counters, counts, ages and the database's health, for who may read."""
    samples = read_queue(await desk.read(inspection.get_status()), await desk.read(inspection.get_metrics()))
    return Response(exposition(samples), headers={"Content-Type": CONTENT_TYPE})
