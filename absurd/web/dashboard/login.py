"""Who looks: a token opens a login."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from absurd import tokens
from absurd.web.cookie import LOGIN, Signer
from absurd.web.dashboard.form import Posted, keep, local_path
from absurd.web.dashboard.render import show

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
