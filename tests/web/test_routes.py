"""Every route: who may call it, that it answers as it is described, and that changes are recorded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.routing import Route
from web_calls import CALLS
from world import World

from absurd.config import load_settings
from absurd.database import AsyncDatabase
from absurd.tokens import Scope
from absurd.web.access import METRICS, OPEN
from absurd.web.app import build_app
from absurd.web.pages import scope_of
from absurd.web.routes import ROUTERS

if TYPE_CHECKING:
    from web.conftest import Site

URL = "postgresql://nobody@localhost/nothing"
APP = build_app(load_settings(environ={}, database_url=URL), AsyncDatabase(URL))
OPERATIONS = {
    each["operationId"]: (method.upper(), path, each)
    for path, methods in APP.openapi()["paths"].items()
    for method, each in methods.items()
}
ROUTES = {route.name: route for each in ROUTERS for route in each.routes if isinstance(route, APIRoute)}

UNSTEADY = {
    *("get_health", "get_status", "list_queues", "watch_events", "get_log"),  # ages, streams, and text
    *("get_cache", "get_service", "list_services"),  # what the process does itself
}
JSON = "application/json"

STEADY = [name for name, (method, _, _) in OPERATIONS.items() if method == "GET" and name not in UNSTEADY]
"""Reads that are the same until something changes."""


def test_every_route_is_tested() -> None:
    """Each operation of the application has a call here; one that is added fails until it has."""
    assert set(OPERATIONS) == set(CALLS)


def test_every_route_is_described() -> None:
    """Nothing answers that the OpenAPI does not tell of, but that itself, its page, and what Prometheus reads."""
    beside = {route.path for route in APP.routes if isinstance(route, Route)}

    assert beside <= OPEN | {METRICS}
    assert set(ROUTES) == set(OPERATIONS)
    assert [route for each in ROUTERS for route in each.routes if not isinstance(route, APIRoute)] == []


def test_all_but_what_is_open_needs_a_scope() -> None:
    """And what changes something needs more than to read."""
    assert {path for _, path, each in OPERATIONS.values() if scope_of(each) is None} <= OPEN
    changing = {name: each for name, (method, _, each) in OPERATIONS.items() if method != "GET"}
    assert [name for name, each in changing.items() if scope_of(each) == "reader"] == []


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_route_asks_for_its_scope(site: Site, world: World, operation: str) -> None:
    """Without a token, or with one that is unknown: 401; with the scope below: 403; nothing is changed by these."""
    wanted = scope_of(OPERATIONS[operation][2])
    request = CALLS[operation](world)
    if wanted is None:
        assert 200 == site.ask(operation, request, None).status_code
        return
    before = site.connection.execute("select count(*) from change").fetchone()

    refused = site.ask(operation, request, None)
    assert (401, "unauthenticated", "Bearer") == (
        refused.status_code, refused.json()["error"], refused.headers["www-authenticate"]
    )  # fmt: skip
    site.tokens["unknown"] = site.tokens["admin"][:-1] + ("A" if site.tokens["admin"][-1] != "A" else "B")
    assert 401 == site.ask(operation, request, "unknown").status_code
    for below in [each for each in Scope if not each.allows(Scope(wanted))]:
        refused = site.ask(operation, request, below)
        assert (403, "forbidden") == (refused.status_code, refused.json()["error"])
        assert {"scope": below, "needs": wanted} == refused.json()["details"]
    assert before == site.connection.execute("select count(*) from change").fetchone()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_route_does_what_it_is_for(site: Site, world: World, operation: str, tmp_path: Path) -> None:
    """With its scope it answers as described; a change is recorded once with who made it, a read is not."""
    method, _, described = OPERATIONS[operation]
    here = world if method == "GET" else site.world(tmp_path)
    wanted = scope_of(described)
    request = CALLS[operation](here)
    last = _last_change(site)

    answer = site.ask(operation, request, wanted)

    assert answer.is_success, answer.text
    assert str(answer.status_code) in described["responses"]
    if (model := ROUTES[operation].response_model) is not None and answer.headers["content-type"] == JSON:
        TypeAdapter(model).validate_python(answer.json())
    if method == "GET":
        assert last == _last_change(site)
    else:
        change = site.get("/changes", limit=1).json()["items"][0]
        assert (operation, f"a-{wanted}", "127.0.0.1") == (change["action"], change["actor"], change["address"])
        assert change["id"] == last + 1
        assert change["target"] == next((str(each) for each in request.path.values()), change["target"])


@pytest.mark.parametrize("operation", STEADY)
def test_a_read_has_a_tag(site: Site, world: World, operation: str) -> None:
    """Who sends it again is told with 304, and without a body, that nothing has changed."""
    request = CALLS[operation](world)
    first = site.ask(operation, request, "admin")
    method, path = site.place(operation)
    path = path.format(**request.path).removeprefix("/api/v1")

    again = site.call(method, path, "admin", headers={"If-None-Match": first.headers["etag"]}, **request.query)

    assert (304, b"", first.headers["etag"]) == (again.status_code, again.content, again.headers["etag"])
    changed = site.call(method, path, "admin", headers={"If-None-Match": '"another"'}, **request.query)
    assert (200, first.content) == (changed.status_code, changed.content)


def test_every_get_of_a_list_goes_on_where_it_ended(site: Site, world: World) -> None:
    """Page after page gives each item once, in the order of one large page."""
    for path, given in (
        ("/tasks", {"queue": world.queue}),
        ("/dead-letters", {}),
        ("/workflows", {}),
        ("/changes", {}),
        (f"/schedules/{world.schedule}/history", {}),
    ):
        whole = site.get(path, limit=500, **given).json()
        assert whole["next"] is None
        found: list[Any] = []
        after: dict[str, Any] = {}
        while True:
            page = site.get(path, limit=2, **given, **after).json()
            assert len(page["items"]) <= 2
            found += page["items"]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert whole["items"] == found, path


def _last_change(site: Site) -> int:
    row = site.connection.execute("select coalesce(max(id), 0) from change").fetchone()
    assert row is not None
    return int(row[0])
