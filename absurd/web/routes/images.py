"""Images and mosaics: find, look at, where they come from, their files, pictures and cut-outs."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime
from starlette.responses import Response

from absurd.product_rows import Document
from absurd.products import ProductState
from absurd.web import product_models as models
from absurd.web.answers import Limit, Number, Place, Text, answer
from absurd.web.dependencies import Images, Pictures
from absurd.web.desk import READER
from absurd.web.files import ANSWERS, answer_file
from absurd.web.problems import may_fail

router = APIRouter(prefix="/images", tags=["images"], dependencies=[READER])

PNG = may_fail(404, 409) | {200: {"content": {"image/png": {}}}, 304: ANSWERS[304]}
CUT = may_fail(404, 409) | {200: {"content": {"application/fits": {}, "image/png": {}}}, 304: ANSWERS[304]}


@router.get("", response_model=models.page_of(models.Product), responses=may_fail())
async def list_images(
    images: Images,
    kind: Annotated[Literal["image", "mosaic"] | None, Query(description="Only of this kind.")] = None,
    state: Annotated[ProductState | None, Query(description="Only in this state.")] = None,
    telescope: Annotated[Text | None, Query(description="Only of this telescope.")] = None,
    task_id: Annotated[UUID | None, Query(description="Only what this task has made.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only those observed then or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only those observed before.")] = None,
    after: Place = None,
    limit: Limit = 50,
) -> Response:
    """Images and mosaics, the last one stored first."""
    return answer(
        await images.list_page(
            limit, after, kind=kind, state=state, telescope=telescope, task_id=task_id, since=since, until=until
        )
    )


@router.get("/{number}", response_model=models.Image, responses=may_fail(404))
async def get_image(number: Number, images: Images) -> Response:
    """An image or mosaic, with what gates have measured of it."""
    return answer(await images.show(number))


@router.get("/{number}/provenance", response_model=models.Provenance, responses=may_fail(404))
async def get_image_provenance(number: Number, images: Images) -> Response:
    """What an image was made of, back to the recordings, and what was made of it."""
    return answer(await images.trace(number))


@router.get("/{number}/file", response_class=Response, responses=may_fail(404, 409) | ANSWERS)
async def get_image_file(number: Number, request: Request, images: Images) -> Response:
    """The FITS file."""
    return answer_file(request.scope, _file(await images.get(number)))


@router.get("/{number}/png", response_class=Response, responses=PNG)
async def get_image_png(number: Number, request: Request, images: Images, pictures: Pictures) -> Response:
    """The image as a picture, with a scale and the directions; up to 64 million pixels."""
    return await pictures.answer_picture(request.scope, _file(await images.get(number)))


@router.get("/{number}/thumbnail", response_class=Response, responses=PNG)
async def get_image_thumbnail(
    number: Number,
    request: Request,
    images: Images,
    pictures: Pictures,
    size: Annotated[int, Query(ge=32, le=2048, description="Pixels of the longer side, at most.")] = 256,
) -> Response:
    """The image as a small picture."""
    return await pictures.answer_picture(request.scope, _file(await images.get(number)), size)


@router.get("/{number}/cutout", response_class=Response, responses=CUT)
async def get_image_cutout(
    number: Number,
    request: Request,
    images: Images,
    pictures: Pictures,
    ra: Annotated[float, Query(ge=0, le=360, description="Right ascension of the middle, degrees, ICRS.")],
    declination: Annotated[float, Query(ge=-90, le=90, description="Degrees, ICRS.")],
    size: Annotated[float, Query(gt=0, le=360_000, description="Side of the square, in `unit`.")] = 60.0,
    unit: Annotated[Literal["arcsec", "pixel"], Query(description="Of the size.")] = "arcsec",
    format: Annotated[Literal["fits", "png"], Query(description="Of the answer.")] = "fits",
) -> Response:
    """The square around a position; what is beyond the image is NaN."""
    return await pictures.answer_cutout(
        request.scope, _file(await images.get(number)), ra, declination, size, unit, format
    )


def _file(image: Document) -> Document:
    """An image as the artifact that it is."""
    return {"path": image["path"], "sha256": image["checksum"], "bytes": image["bytes"]}
