"""Sessions of telescopes: those whose files are known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from absurd.errors import InvalidInputError
from absurd.web.answers import Text
from absurd.web.dashboard.render import show
from absurd.web.dependencies import Sessions
from absurd.web.desk import READER

router = APIRouter(prefix="/sessions", dependencies=[READER])

PAGE = 100
"""How many sessions a page shows."""


@router.get("")
async def show_sessions(
    request: Request,
    sessions: Sessions,
    target: Text = "",
    session_type: Text = "",
    before: Text = "",
    failed: Annotated[Text, Query(max_length=10)] = "",
) -> Response:
    """Sessions, newest first; `before` is the start of the last one of the page before."""
    page = await sessions.list_page(
        PAGE, None,
        session_type=session_type or None, target=f"%{target}%" if target else None, until=_moment(before),
        errors=1 if failed else None,
    )  # fmt: skip
    given = {"target": target, "session_type": session_type, "failed": failed}
    return show(
        request, "sessions.html", sessions=page["items"], given=given, paged=bool(before),
        filters={key: value for key, value in given.items() if value},
        following=page["items"][-1]["start_time"] if page["next"] else None,
    )  # fmt: skip


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidInputError(f"before is {text!r}; it must be a time such as 2026-03-01T22:00") from None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found
