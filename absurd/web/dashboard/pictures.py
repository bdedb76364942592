"""Pictures of files that tasks have published, for pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from starlette.responses import Response

from absurd.web.services.pictures import PictureService


def showable(request: Request) -> tuple[str, ...]:
    """How names of files end of which there is a picture here."""
    return _pictures(request).showable


async def answer_picture(request: Request, artifact: Mapping[str, Any]) -> Response:
    """A picture of a registered artifact.  Raises as `PictureService.answer_picture`."""
    return await _pictures(request).answer_picture(request.scope, artifact)


def _pictures(request: Request) -> PictureService:
    pictures: PictureService = request.app.state.pictures
    return pictures
