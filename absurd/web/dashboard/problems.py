"""Errors as pages; who is not known is sent to show a token."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import quote

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from absurd.errors import AbsurdError
from absurd.web.access import API
from absurd.web.dashboard.render import show
from absurd.web.problems import MEANINGS, RETRY_SECONDS, status_of

NO_PAGES = (API, "/metrics", "/static/")
"""What is for programs begins so."""


def is_page(scope: Scope) -> bool:
    """Whether people look at what is asked for."""
    return not scope["path"].startswith(NO_PAGES)


def answer_page(scope: Scope, error: Exception | None) -> Response:
    """What went wrong, as a page; None: a mistake of our own."""
    request = Request(scope)
    match error:
        case AbsurdError():
            status, told = status_of(error), error.message
        case RequestValidationError():
            status = 422
            told = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        case HTTPException():
            status = error.status_code
            told = "There is no such page." if status == 404 else error.detail
        case _:
            status, told = 500, MEANINGS[500]
    if status == 401 and scope["method"] == "GET" and request.app.state.database is not None:
        asked = scope["path"] + (f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else "")
        return RedirectResponse("/login" if asked == "/" else f"/login?back={quote(asked)}", 303)
    meaning = HTTPStatus(status).phrase
    if status == 503:
        meaning, told = "The database is away", f"It cannot be used now; try again in {RETRY_SECONDS} s."
    elif status >= 500:
        told = MEANINGS[500]
    page = show(request, "problem.html", status, told_wrong=told, number=status, meaning=meaning)
    if status in (429, 503):
        page.headers["Retry-After"] = str(RETRY_SECONDS)
    return page
