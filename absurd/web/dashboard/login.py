"""Who looks: a token opens a login; and the files that every page needs."""

from __future__ import annotations

import mimetypes
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from absurd import tokens
from absurd.errors import NotFoundError
from absurd.web.cookie import LOGIN, Signer
from absurd.web.dashboard.form import Posted, keep, local_path
from absurd.web.dashboard.render import ASSETS, show

router = APIRouter()


@router.get("/login")
async def show_login(request: Request, back: Annotated[str | None, Query(max_length=2000)] = None) -> Response:
    """Where to show a token."""
    return show(request, "login.html", back=local_path(back, "/"), wrong=False)


@router.post("/login")
async def open_login(request: Request, form: Posted) -> Response:
    """Give a login for a token that is let in."""
    token, back = form.get("token", ""), local_path(form.get("back"), "/")
    if not await request.app.state.database.run(tokens.check_token(token)):
        return show(request, "login.html", 401, back=back, wrong=True)
    signer: Signer = request.app.state.signer
    answer = RedirectResponse(back, 303)
    keep(request, answer, LOGIN, signer.open_login(tokens.token_hash(token)), signer.lifetime)
    return answer


@router.post("/logout")
async def close_login(_: Posted) -> Response:
    """Have the browser forget its login."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(LOGIN)
    return answer


@router.get("/static/{name}")
async def get_asset(name: str) -> Response:
    """A file of ours, which browsers may keep: its address changes with it."""
    if name not in ASSETS:
        raise NotFoundError(f"there is no file {name}", name=name)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(ASSETS[name], media_type=kind, headers={"Cache-Control": "public, max-age=31536000, immutable"})
