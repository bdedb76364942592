"""Pictures of files that tasks have published: those that browsers show as they are, and FITS images painted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.responses import FileResponse, Response

from absurd.errors import InvalidInputError
from absurd.web.files import answer_file
from absurd.web.guard import has_tag

Paint = Callable[[Path], bytes]
"""Makes a PNG of a FITS file; raises AbsurdError for one that holds no image of the sky."""
PLAIN = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
"""Names of files that browsers show as pictures end so."""
PAINTED = (".fits", ".fits.gz", ".fits.fz", ".fit")
"""And of those of which a picture is painted."""

_one_at_a_time = asyncio.Semaphore(1)  # an image may take a gigabyte while it is painted


def showable(request: Request) -> tuple[str, ...]:
    """How names of files end of which there is a picture here."""
    return PLAIN if request.app.state.paint is None else (*PLAIN, *PAINTED)


async def answer_picture(request: Request, artifact: Mapping[str, Any]) -> Response:
    """A picture of a registered artifact; browsers may keep it, for it is named by the hash of what it shows.

    Raises what `answer_file` does, InvalidInputError for a file of which there is no picture.
    """
    paint: Paint | None = request.app.state.paint
    name = artifact["path"].lower()
    if name.endswith(PLAIN):
        return answer_file(request.scope, dict(artifact))
    if paint is None or not name.endswith(PAINTED):
        raise InvalidInputError("there is no picture of this file", path=artifact["path"])
    tag = f'"{artifact["sha256"]}-png"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=31536000, immutable"}
    if has_tag(request.scope, tag):
        return Response(status_code=304, headers=headers)
    found = answer_file(request.scope, dict(artifact))  # which looks whether it is the one that was published
    if not isinstance(found, FileResponse):
        return found
    async with _one_at_a_time:
        content = await asyncio.to_thread(paint, Path(artifact["path"]))
    return Response(content, headers=headers, media_type="image/png")
