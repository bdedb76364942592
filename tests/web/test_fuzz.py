"""Requests by chance, made from the OpenAPI: all are answered as it tells, and none finds a mistake of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web_calls import CALLS, PRODUCT_CALLS
from world import World

if TYPE_CHECKING:
    from web.conftest import Site

Strategy = st.SearchStrategy[Any]

KNOWN = ["default", "q0", "world.0", "", "\0", "a" * 300, "every 60 s", "-1", "🛰"]
TEXTS = st.text(max_size=40) | st.sampled_from(KNOWN)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
NUMBERS = st.integers(-3, 3) | st.integers(-(2**70), 2**70)


def fits(about: dict[str, Any], described: dict[str, Any]) -> Strategy:
    """Values that a JSON schema tells of, or nearly; lengths and limits are for the interface to check."""
    if "$ref" in about:
        return fits(described["components"]["schemas"][about["$ref"].rpartition("/")[2]], described)
    if "anyOf" in about:
        return st.one_of([fits(each, described) for each in about["anyOf"]])
    if "enum" in about:
        return st.sampled_from(about["enum"])
    match about.get("type"):
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return NUMBERS
        case "number":
            return NUMBERS | st.floats(allow_nan=False, allow_infinity=False)
        case "string" if about.get("format") == "uuid":
            return st.uuids().map(str)
        case "string" if about.get("format") == "date-time":
            return st.datetimes().map(lambda each: f"{each.isoformat()}Z") | TEXTS
        case "string":
            return TEXTS
        case "array":
            return st.lists(fits(about.get("items", {}), described), max_size=3)
        case "object" if "properties" in about:
            required = about.get("required", [])
            known = {name: fits(each, described) | ANYTHING for name, each in about["properties"].items()}
            return st.fixed_dictionaries(
                {name: each for name, each in known.items() if name in required},
                optional={name: each for name, each in known.items() if name not in required},
            )
        case "object":
            inner = about.get("additionalProperties")
            return st.dictionaries(TEXTS, fits(inner if isinstance(inner, dict) else {}, described), max_size=3)
    return ANYTHING


@st.composite
def requests(draw: st.DrawFn, described: dict[str, Any], operation: dict[str, Any], known: dict[str, Any]) -> Any:
    """Values for the path (mostly of things that exist), the query and the body."""
    path, query = {}, {}
    for each in operation.get("parameters", ()):
        values = fits(each["schema"], described)
        if each["in"] == "path":
            path[each["name"]] = quote(str(draw(st.just(known[each["name"]]) | values)), safe="") or "x"
        elif draw(st.booleans()):
            query[each["name"]] = draw(values | TEXTS)
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    body = None if content is None else draw(fits(content, described) | ANYTHING)
    return path, query, body


@pytest.mark.parametrize("operation", sorted(CALLS))
def test_whatever_is_sent_is_answered_as_described(site: Site, world: World, operation: str) -> None:
    """No 5xx, and no status that the OpenAPI does not tell of, with a token and without."""
    method, path = site.place(operation)
    told = site.described["paths"][path][method.lower()]
    known = dict(CALLS[operation](world).path)

    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(requests(site.described, told, known), st.sampled_from(["admin", "admin", "admin", "reader", None]))
    def ask(request: Any, scope: str | None) -> None:
        parts, query, body = request
        if operation == "watch_events":
            query["once"] = "true"  # else it would not end
        found = site.call(method, path.format(**parts).removeprefix("/api/v1"), scope, body, **query)
        if {".", ".."} & set(parts.values()):  # which a client resolves: another route was asked
            return
        assert found.status_code < 500, f"{method} {path} {request} {scope}: {found.text}"
        assert str(found.status_code) in told["responses"], f"{method} {path} {request} {scope}: {found.status_code}"
        if not found.is_success and found.status_code != 304:
            assert {"error", "message", "details"} == set(found.json())

    ask()


@pytest.mark.parametrize("operation", sorted(PRODUCT_CALLS))
def test_a_file_of_products_may_be_asked_anything(site: Site, world: World, laptop: TestClient, operation: str) -> None:
    """The same holds of what is answered from a file; and what is found there is found in the database."""
    _, path = site.place(operation)
    told = site.described["paths"][path]["get"]
    known = dict(PRODUCT_CALLS[operation](world).path)

    @settings(max_examples=5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(requests(site.described, told, known))
    def ask(request: Any) -> None:
        parts, query, _ = request
        if "." in parts.values() or ".." in parts.values():  # which a client resolves
            return
        found = laptop.get(path.format(**parts), params=query)
        there = site.get(path.format(**parts).removeprefix("/api/v1"), "reader", **query)
        assert str(found.status_code) in told["responses"], f"{path} {request}: {found.status_code}"
        assert there.status_code == found.status_code < 500, f"{path} {request}: {found.text} {there.text}"

    ask()
