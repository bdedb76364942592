"""``/metrics`` of the web interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scraping import parse
from world import World

from absurd.metrics import METRICS
from absurd.tokens import Scope

if TYPE_CHECKING:
    from web.conftest import Site


def test_metrics_are_for_who_may_read(site: Site, world: World) -> None:
    """Each scope may; without a token it is 401, as programs get it; all of the queue's metrics are there."""
    site.connection.execute(
        "update schedule set next_due = clock_time() - interval '1 min' where name = %s", [world.schedule]
    )
    pages = [site.http.get("/metrics", headers={"Authorization": f"Bearer {site.tokens[each]}"}) for each in Scope]
    refused = site.http.get("/metrics")

    assert [200] * len(Scope) == [each.status_code for each in pages]
    assert (401, "application/json") == (refused.status_code, refused.headers["content-type"])
    found = {name for name, _ in parse(pages[0].text)}
    assert {name for name, metric in METRICS.items() if metric.source == "queue"} == found
