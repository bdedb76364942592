"""Pages from templates."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from absurd.tokens import Scope
from absurd.web.access import LOCAL
from absurd.web.cookie import Signer
from absurd.web.dashboard import words

TOLD = "absurd_told"
"""Name of the cookie that holds what the next page tells of the change before it."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing but our own files: no script and no style in a page's text."""
HEADERS = {
    "Cache-Control": "private, no-store",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",  # with none at all browsers call the origin of a page's own forms null
}
ASSETS = {
    each.name: each.read_bytes()
    for each in files("absurd.web.dashboard").joinpath("static").iterdir()
    if each.is_file()
}
"""Files that pages need, by name."""
PLACES = (
    ("/", "Overview"),
    ("/queues", "Queues"),
    ("/tasks", "Tasks"),
    ("/workflows", "Workflows"),
    ("/schedules", "Schedules"),
    ("/dead-letters", "Dead letters"),
    ("/workers", "Workers"),
    ("/alerts", "Alerts"),
    ("/sky", "Sky"),
    ("/sources", "Light curves"),
    ("/sessions", "Sessions"),
)
"""Where the menu leads."""
PRODUCT_PLACES = tuple(each for each in PLACES if each[0] in ("/sky", "/sources", "/sessions"))
"""And where there is a file of products, and no queue."""


def show(request: Request, template: str, status: int = 200, /, **context: Any) -> HTMLResponse:
    """A page.  In its template `caller`, `may` and `form_token` tell who looks at it, `has_queue` if there is one."""
    state = request.state
    has_queue = request.app.state.database is not None
    caller = getattr(state, "caller", None)
    signer: Signer = request.app.state.signer
    told = signer.unseal("told", request.cookies.get(TOLD, ""))
    text = _environment().get_template(template).render(
        now=datetime.now(UTC),
        places=PLACES if has_queue else PRODUCT_PLACES,
        has_queue=has_queue,
        here=request.url.path,
        address=f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path,
        caller=caller if caller and caller.scope else None,
        local=LOCAL,
        may=lambda scope: bool(caller and caller.scope and caller.scope.allows(Scope(scope))),
        form_token=signer.form_token(getattr(state, "login", "")),
        told=told,
        **context,
    )  # fmt: skip
    page = HTMLResponse(text, status, HEADERS)
    if told is not None:
        page.delete_cookie(TOLD)
    return page


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("absurd.web.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= words.FILTERS
    made.globals["asset"] = _asset
    return made


@cache
def _asset(name: str) -> str:
    """Address of a file that pages need: another one when it changes, so that browsers may keep what they have."""
    return f"/static/{name}?v={sha256(ASSETS[name]).hexdigest()[:12]}"
