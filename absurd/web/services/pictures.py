"""Pictures and cut-outs of files that tasks have published: painted when they are asked for, and kept for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from starlette.responses import FileResponse, Response
from starlette.types import Scope

from absurd.errors import ConflictError, ExecutionError, InvalidInputError, NotFoundError
from absurd.web.files import answer_file
from absurd.web.guard import has_tag
from absurd.web.services.cache import Cache

PLAIN = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
"""Names of files that browsers show as pictures end so."""
PAINTED = (".fits", ".fits.gz", ".fits.fz", ".fit")
"""And of those of which a picture is painted."""
CUT_TYPES = {"fits": "application/fits", "png": "image/png"}

_one_at_a_time = asyncio.Semaphore(1)  # an image may take a gigabyte while it is painted


class Painter(Protocol):
    """What makes pictures of FITS files; raises AbsurdError for one that holds no image of the sky."""

    def paint(self, path: Path, largest: int | None = None) -> bytes:
        """A PNG of the whole image, its longer side at most `largest` pixels."""

    def cut(
        self, path: Path, ra: float, declination: float, size: float, unit: Literal["arcsec", "pixel"], form: str
    ) -> bytes:
        """A square around a position (degrees, ICRS) as FITS or PNG."""


class PictureService:
    """Pictures of registered files, which are dicts of path, sha256 and bytes."""

    def __init__(self, painter: Painter | None, cache: Cache) -> None:
        self._painter = painter
        self._cache = cache

    @property
    def showable(self) -> tuple[str, ...]:
        """How names of files end of which there is a picture here."""
        return PLAIN if self._painter is None else (*PLAIN, *PAINTED)

    async def answer_picture(self, scope: Scope, file: Mapping[str, Any], largest: int | None = None) -> Response:
        """A picture of a file: as it is, or painted, its longer side at most `largest` pixels.

        Raises what `answer_file` does, InvalidInputError for a file of which there is no picture, ConflictError for
        one that is damaged.
        """
        if file["path"].lower().endswith(PLAIN) and largest is None:
            return answer_file(scope, dict(file))
        painter = self._painter_of(file)
        name = "png" if largest is None else f"png-{largest}"
        return await self._answer(scope, file, name, "image/png", lambda path: painter.paint(path, largest))

    async def answer_cutout(
        self,
        scope: Scope,
        file: Mapping[str, Any],
        ra: float,
        declination: float,
        size: float,
        unit: Literal["arcsec", "pixel"],
        form: Literal["fits", "png"],
    ) -> Response:
        """A square around a position (degrees, ICRS) of an image.

        Raises as `answer_picture`, and InvalidInputError for a position that is not on it.
        """
        painter = self._painter_of(file)
        name = f"cutout-{ra:.9g}-{declination:.9g}-{size:.9g}-{unit}-{form}"
        return await self._answer(
            scope, file, name, CUT_TYPES[form], lambda path: painter.cut(path, ra, declination, size, unit, form)
        )

    def _painter_of(self, file: Mapping[str, Any]) -> Painter:
        if not file["path"].lower().endswith(PAINTED):
            raise InvalidInputError("there is no picture of this file", path=file["path"])
        if self._painter is None:
            raise NotFoundError("there are no pictures here: they need `pip install 'absurd[astro]'`")
        return self._painter

    async def _answer(
        self, scope: Scope, file: Mapping[str, Any], name: str, kind: str, make: Callable[[Path], bytes]
    ) -> Response:
        """What is named by the hash of what it shows never changes: browsers may keep it, and so does the cache."""
        tag = f'"{file["sha256"]}-{name}"'
        headers = {"ETag": tag, "Cache-Control": "private, max-age=31536000, immutable"}
        if has_tag(scope, tag):
            return Response(status_code=304, headers=headers)
        found = answer_file(scope, dict(file))  # which looks whether it is the one that was published
        if not isinstance(found, FileResponse):
            return found
        key = f"picture:{file['sha256']}:{name}"
        content = self._cache.get(key)
        if content is None:
            try:
                async with _one_at_a_time:
                    content = await asyncio.to_thread(make, Path(file["path"]))
            except ExecutionError as error:  # of a file that is damaged, or no image: no mistake of ours
                raise ConflictError(error.message, path=file["path"]) from error
            self._cache.put(key, content, size=len(content))
        return Response(content, headers=headers, media_type=kind)
