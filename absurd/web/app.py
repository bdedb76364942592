"""The application: routes behind access and guard, and its description."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from absurd.config import Settings
from absurd.database import AsyncDatabase
from absurd.errors import AbsurdError
from absurd.web import dashboard
from absurd.web.access import API, METRICS, Access
from absurd.web.adapters import create_adapter
from absurd.web.cookie import Signer
from absurd.web.dashboard.problems import answer_page, is_page
from absurd.web.feed import Feed
from absurd.web.guard import Bodies, Guard, Tags
from absurd.web.metrics import tell_metrics
from absurd.web.pages import show_docs
from absurd.web.problems import answer_error, answer_http, answer_internal, answer_invalid
from absurd.web.routes import PRODUCT_ROUTERS, ROUTERS
from absurd.web.routes.events import watch_socket
from absurd.web.services.cache import Cache
from absurd.web.services.pictures import Painter, PictureService

ABOUT = """
Durable tasks on PostgreSQL for observatories. Every call but those of `/health` and of this description needs
`Authorization: Bearer TOKEN`; a token's scope is one of reader, spawner, operator, admin, and each allows what those
before it do. Lists are pages: `next` of one is `after` of the next. Errors are `{error, message, details}`.
"""


def build_app(settings: Settings, database: AsyncDatabase | None, painter: Painter | None = None) -> FastAPI:
    """The web interface to `database`, which is opened with it unless it is open, and closed with it.

    Without a database it is that to the file of products that the settings name: only what products there are.
    `painter` makes pictures of FITS files; without it there are none of these.
    """
    signer = Signer(settings.web_secret, settings.web_login)
    products = create_adapter(settings, database)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with database or nullcontext():
            await products.connect()
            try:
                yield
            finally:
                await products.close()

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
        middleware=_middleware(settings, signer),
        exception_handlers={RequestValidationError: _answer_refused, HTTPException: _answer_refused},
    )
    app.state.settings = settings
    app.state.database = database
    app.state.signer = signer
    app.state.products = products
    app.state.cache = cache = Cache(settings.web_cache, time.monotonic)
    app.state.pictures = PictureService(painter, cache)
    api = APIRouter(prefix=API)
    for each in ROUTERS if database else PRODUCT_ROUTERS:
        api.include_router(each)
    app.include_router(api)
    app.add_api_route(f"{API}/docs", show_docs, include_in_schema=False)
    for each in dashboard.ROUTERS if database else dashboard.PRODUCT_ROUTERS:
        app.include_router(each, include_in_schema=False)
    if database is None:
        app.add_api_route("/", show_first_page, include_in_schema=False)
    else:
        app.state.feed = Feed(database)
        app.add_api_websocket_route(f"{API}/events", watch_socket)
        app.add_api_route(METRICS, tell_metrics, include_in_schema=False)
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    return app


async def show_first_page() -> Response:
    """Where there is no queue to show, the sky is first."""
    return RedirectResponse("/sky", 303)


def _middleware(settings: Settings, signer: Signer) -> list[Middleware]:
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
        Middleware(Guard, answer=_answer),
        Middleware(Access, settings=settings, signer=signer),
        Middleware(Bodies, limit=settings.web_body_limit),
        Middleware(Tags),
    ]


def _answer(scope: Scope, error: AbsurdError | None) -> Response:
    """To people a page, to programs JSON."""
    if is_page(scope):
        return answer_page(scope, error)
    return answer_internal() if error is None else answer_error(error)


async def _answer_refused(request: Request, error: Exception) -> Response:
    """What the framework refuses."""
    if is_page(request.scope):
        return answer_page(request.scope, error)
    return await (answer_invalid if isinstance(error, RequestValidationError) else answer_http)(request, error)


def _describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with what every read does by `Tags`."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
        )
        for path in found["paths"].values():
            if "get" in path and "text/event-stream" not in path["get"]["responses"]["200"].get("content", ()):
                told = {"ETag": {"description": "Of this answer.", "schema": {"type": "string"}}}
                path["get"]["responses"]["200"].setdefault("headers", {}).update(told)
                path["get"]["responses"].setdefault("304", {"description": "The caller has it: see `If-None-Match`."})
        app.openapi_schema = found
    return app.openapi_schema
