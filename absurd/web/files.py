"""The content of files that runs have published: no path comes from a caller."""

from __future__ import annotations

import mimetypes
import stat
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, Response
from starlette.types import Scope

from absurd.errors import ConflictError, NotFoundError
from absurd.web.guard import has_tag

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "The part that `Range` asked for."},
    304: {"description": "The caller has it."},
    416: {"description": "The file has no such part."},
}
"""How a route that sends a file may answer, for the OpenAPI."""


def answer_file(scope: Scope, artifact: dict[str, Any]) -> Response:
    """The file of a registered artifact, whole or the part that was asked for.

    Raises NotFoundError where it is not on a disk of this machine, ConflictError where another file is in its place.
    """
    path = Path(artifact["path"])
    tag = f'"{artifact["sha256"]}"'
    headers = {"ETag": tag, "Cache-Control": "private, max-age=31536000, immutable"}
    if has_tag(scope, tag):
        return Response(status_code=304, headers=headers)
    try:
        found = path.lstat() if path.is_absolute() else None
    except OSError:
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):  # nor what a link in its place leads to
        raise NotFoundError("the file is not on a disk that the web interface sees", path=artifact["path"])
    if artifact["bytes"] not in (None, found.st_size):
        raise ConflictError("the file is not the one that was published", path=artifact["path"])
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return FileResponse(path, headers=headers, media_type=kind, filename=path.name, stat_result=found)
