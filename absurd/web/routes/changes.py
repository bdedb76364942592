"""The record of what was changed through the web interface."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from absurd import tokens
from absurd.web import models
from absurd.web.answers import Limit, Page, Text, answer_page
from absurd.web.desk import Admin
from absurd.web.problems import may_fail

router = APIRouter(prefix="/changes", tags=["changes"])


@router.get("", response_model=Page[models.Change], responses=may_fail())
async def list_changes(
    desk: Admin,
    actor: Annotated[Text | None, Query(description="Only what this token changed.")] = None,
    after: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="`next` of the page before.")] = None,
    limit: Limit = 50,
) -> Response:
    """Who changed what, when and from where, the latest first."""
    found = await desk.read(tokens.list_changes(actor=actor, before=after, limit=limit + 1))
    return answer_page(found, limit, lambda each: each["id"])
