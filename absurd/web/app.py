"""The application: routes behind access and guard, and its description."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.web.access import API, Access
from absurd.web.guard import Bodies, Guard, Tags
from absurd.web.pages import show_docs
from absurd.web.problems import answer_http, answer_invalid
from absurd.web.routes import ROUTERS

ABOUT = """
Durable tasks on PostgreSQL for observatories. Every call but those of `/health` and of this description needs
`Authorization: Bearer TOKEN`; a token's scope is one of reader, spawner, operator, admin, and each allows what those
before it do. Lists are pages: `next` of one is `after` of the next. Errors are `{error, message, details}`.
"""


def build_app(settings: Settings, database: AsyncDatabase) -> FastAPI:
    """The web interface to `database`, which is opened with it unless it is open, and closed with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with database:
            yield

    app = FastAPI(
        title="absurd",
        version=version("absurd"),
        description=ABOUT.strip(),
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
        middleware=_middleware(settings),
        exception_handlers={RequestValidationError: answer_invalid, HTTPException: answer_http},
    )
    app.state.settings = settings
    app.state.database = database
    api = APIRouter(prefix=API)
    for each in ROUTERS:
        api.include_router(each)
    app.include_router(api)
    app.add_api_route(f"{API}/docs", show_docs, include_in_schema=False)
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    return app


def _middleware(settings: Settings) -> list[Middleware]:
    """Outermost first."""
    pages = Middleware(
        CORSMiddleware,
        allow_origins=list(settings.web_origins),
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "If-None-Match"],
        expose_headers=["ETag", "Location", "Retry-After"],
    )
    return [
        *([pages] if settings.web_origins else []),
        Middleware(Guard),
        Middleware(Access, settings=settings),
        Middleware(Bodies, limit=settings.web_body_limit),
        Middleware(Tags),
    ]


def _describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with what every read does by `Tags`."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        for path in found["paths"].values():
            if "get" in path:
                told = {"ETag": {"description": "Of this answer.", "schema": {"type": "string"}}}
                path["get"]["responses"]["200"].setdefault("headers", {}).update(told)
                path["get"]["responses"].setdefault("304", {"description": "The caller has it: see `If-None-Match`."})
        app.openapi_schema = found
    return app.openapi_schema
