"""The files that every page needs."""

from __future__ import annotations

import mimetypes

from fastapi import APIRouter
from starlette.responses import Response

from absurd.errors import NotFoundError
from absurd.web.dashboard.render import ASSETS

router = APIRouter()


@router.get("/static/{name}")
async def get_asset(name: str) -> Response:
    """A file of ours, which browsers may keep: its address changes with it."""
    if name not in ASSETS:
        raise NotFoundError(f"there is no file {name}", name=name)
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(ASSETS[name], media_type=kind, headers={"Cache-Control": "public, max-age=31536000, immutable"})
