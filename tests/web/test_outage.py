"""The interface while its database is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from fastapi.testclient import TestClient
from ready_server import ReadyServer
from web.conftest import Site

from absurd.config import load_settings
from absurd.database import AsyncDatabase
from absurd.embedded import EmbeddedServer
from absurd.web.app import build_app
from absurd.web.problems import RETRY_SECONDS


def test_a_database_that_is_away_is_told_and_comes_back(ready_server: ReadyServer, tmp_path: Path) -> None:
    """503 with `Retry-After` to everybody, and nothing of where the database is; once that is back all goes on."""
    settings = load_settings(environ={}, home=ready_server.lay(tmp_path / "home"))
    server = EmbeddedServer(settings)
    url = server.start()
    try:
        with psycopg.connect(url, autocommit=True, options="-c search_path=absurd,public") as connection:
            site = Site(url, connection)
            site.make_tokens()
        with site.http:
            assert 200 == site.get("/tasks").status_code
            server.stop("immediate")
            body: dict[str, Any] = {"name": "a.b"}
            for method, path, scope, sent in (
                ("GET", "/health", None, None),
                ("GET", "/tasks", None, None),
                ("GET", "/tasks", "admin", None),
                ("POST", "/tasks", "admin", body),
            ):
                found = site.call(method, path, scope, sent)
                assert (503, str(RETRY_SECONDS)) == (found.status_code, found.headers["retry-after"]), found.text
                assert ("database_unavailable", {}) == (found.json()["error"], found.json()["details"])
                assert str(tmp_path) not in found.text
            server.start()
            assert 200 == site.get("/health", None).status_code
            assert 201 == site.call("POST", "/tasks", "admin", body).status_code
    finally:
        server.stop("immediate")
        server.destroy()


def test_health_is_told_in_time(database_url: str) -> None:
    """Also while the database gives no answer at all: after the time-out of such checks it is told as away."""
    settings = load_settings(environ={}, database_url=database_url, timeout_health_check=0.1)
    database = AsyncDatabase(database_url, max_connections=1)
    app = build_app(settings, database)
    with TestClient(app, "http://localhost:8714", client=("127.0.0.1", 40_000)) as http:
        assert http.portal is not None
        held = database.session()
        http.portal.call(held.__aenter__)
        away = http.get("/api/v1/health")
        http.portal.call(held.__aexit__, None, None, None)

        assert (503, "database_unavailable") == (away.status_code, away.json()["error"])
        assert str(RETRY_SECONDS) == away.headers["retry-after"]
        assert 200 == http.get("/api/v1/health").status_code
