"""Sessions of telescopes: find, look at, and their files."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime
from starlette.responses import Response

from absurd.web import product_models as models
from absurd.web.answers import Limit, Name, Place, Text, answer
from absurd.web.dependencies import Sessions
from absurd.web.desk import READER
from absurd.web.files import ANSWERS, answer_file
from absurd.web.problems import may_fail

router = APIRouter(prefix="/sessions", tags=["sessions"], dependencies=[READER])


@router.get("", response_model=models.page_of(models.Session), responses=may_fail())
async def list_sessions(
    sessions: Sessions,
    session_type: Annotated[Text | None, Query(description="Only of this type.")] = None,
    target: Annotated[Text | None, Query(description="Only of targets like this; % stands for anything.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only those begun then or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only those begun before.")] = None,
    after: Place = None,
    limit: Limit = 50,
    *,
    failed: Annotated[bool, Query(description="Only those with errors.")] = False,
) -> Response:
    """Sessions whose files are whole, the last one begun first."""
    return answer(
        await sessions.list_page(
            limit,
            after,
            session_type=session_type,
            target=target,
            since=since,
            until=until,
            errors=1 if failed else None,
        )
    )


@router.get("/{session_id}", response_model=models.Session, responses=may_fail(404))
async def get_session(session_id: Name, sessions: Sessions) -> Response:
    """A session: when, of what, how much was told meanwhile, and where its file is."""
    return answer(await sessions.get(session_id))


@router.get("/{session_id}/file", response_class=Response, responses=may_fail(404, 409) | ANSWERS)
async def get_session_file(session_id: Name, request: Request, sessions: Sessions) -> Response:
    """The file of a session (ASDF)."""
    found = await sessions.get(session_id)
    known = found["sha256"] or f"{found['changed_ns']}-{found['bytes']}"  # nobody has read it through yet
    path = str(PurePosixPath(found["folder"], found["path"]))
    return answer_file(request.scope, {"path": path, "sha256": known, "bytes": found["bytes"]})
