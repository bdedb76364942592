"""The web interface in this process, one for each module of tests, on a real database with something in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import observed
import psycopg
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from web_calls import ARTIFACT, Request
from world import World

from absurd.config import Settings, load_settings
from absurd.database import AsyncDatabase
from absurd.database_sync import SyncSession
from absurd.product_file import write_product_file
from absurd.product_rows import Document, Query, read_products
from absurd.tasks.cutout import portrait
from absurd.tokens import Scope, new_token, token_hash
from absurd.web.app import build_app

Connection = psycopg.Connection[Any]


class Site:
    """An interface, a token of each scope, and the connection to its database."""

    def __init__(self, url: str, connection: Connection, **changes: Any) -> None:
        given: dict[str, Any] = {"web_rate": 0, "web_services": "here=tcp://127.0.0.1:9"} | changes
        self.settings: Settings = load_settings(environ={}, database_url=url, **given)
        self.connection = connection
        self.app = build_app(self.settings, AsyncDatabase(url), portrait)
        self.described: dict[str, Any] = self.app.openapi()
        self.http = TestClient(self.app, "http://localhost:8714", client=("127.0.0.1", 40_000))
        self.tokens: dict[str, str] = {}
        self._numbers = count()

    def make_tokens(self) -> None:
        for scope in Scope:
            self.tokens[scope] = self.make_token(f"a-{scope}", scope)

    def make_token(self, name: str, scope: str, lifetime: float | None = None) -> str:
        made = new_token()
        sql = "select create_token(%s, %s, %s, %s)"
        self.connection.execute(sql, [name, scope, token_hash(made), lifetime])
        return made

    def world(self, folder: Path) -> World:
        """Tasks in every state, an executor and an artifact, apart from all others."""
        world = World(self.connection, next(self._numbers))
        registered = f'[{{"name": "{world.executor}", "runs_in": "loop", "params_schema": {{"type": "object"}}}}]'
        self.connection.execute("select register_executors(%s)", [registered])
        file = folder / "a picture.png"
        file.write_bytes(b"picture")
        self.connection.execute(
            "update artifact set path = %s, sha256 = %s, bytes = 7 where task_id = %s",
            [str(file), ARTIFACT, world.completed],
        )
        world.observed = observed.fill(self.connection, folder / "night")
        return world

    def call(
        self, method: str, path: str, scope: str | None = "admin", body: Any = None, headers: Any = (), **query: Any
    ) -> Response:
        """A request below ``/api/v1`` with the token of `scope`."""
        token = {"Authorization": f"Bearer {self.tokens[scope]}"} if scope else {}
        sent = None if body is None else body
        return self.http.request(
            method, f"/api/v1{path}", json=sent, headers=token | dict(headers), params=query or None
        )

    def get(self, path: str, scope: str | None = "admin", headers: Any = (), **query: Any) -> Response:
        return self.call("GET", path, scope, None, headers, **query)

    def ask(self, operation: str, request: Request, scope: str | None) -> Response:
        """Make a request of an operation."""
        method, path = self.place(operation)
        path = path.format(**request.path).removeprefix("/api/v1")
        return self.call(method, path, scope, request.body, **request.query)

    def place(self, operation: str) -> tuple[str, str]:
        """Method and path of an operation."""
        return next(
            (method.upper(), path)
            for path, methods in self.described["paths"].items()
            for method, each in methods.items()
            if each["operationId"] == operation
        )


@pytest.fixture(scope="module")
def open_site(module_database_url: str) -> Iterator[Callable[..., Site]]:
    """``open_site(web_rate=5)`` gives the interface with such settings on the module's database, made once."""
    with (
        psycopg.connect(module_database_url, autocommit=True, options="-c search_path=absurd,public") as connection,
        ExitStack() as opened,
    ):

        @cache
        def open_one(**changes: Any) -> Site:
            site = Site(module_database_url, connection, **changes)
            opened.enter_context(site.http)
            return site

        yield open_one


@pytest.fixture(scope="module")
def site(open_site: Callable[..., Site]) -> Site:
    """The interface of the module, without a limit of requests."""
    made = open_site()
    made.make_tokens()
    return made


@pytest.fixture(scope="module")
def world(site: Site, tmp_path_factory: pytest.TempPathFactory) -> World:
    """What the tests of the module look at."""
    return site.world(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def product_file(site: Site, world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All products of the module in a file."""
    path = tmp_path_factory.mktemp("products") / "a night?.sqlite"
    write_product_file(path, reading(site))
    return path


@pytest.fixture(scope="module")
def laptop(product_file: Path) -> Iterator[TestClient]:
    """The interface to the file, without any database."""
    settings = load_settings(environ={}, web_products=product_file, web_rate=0)
    app = build_app(settings, None, portrait)
    with TestClient(app, "http://localhost:8714", client=("127.0.0.1", 40_000)) as client:
        yield client


def reading(site: Site) -> Callable[[Query], list[Document]]:
    """As the command reads, on the connection of the tests."""
    session = SyncSession(site.connection, schema="absurd")
    return lambda query: session.run(read_products(query))
