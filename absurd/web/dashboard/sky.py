"""Products: where they lie on the sky, what is known of each, and how sources change."""

from __future__ import annotations

from typing import Annotated, get_args

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from absurd.errors import InvalidInputError
from absurd.product_rows import Document
from absurd.products import FileKind, ProductState
from absurd.web.answers import Text
from absurd.web.dashboard import curve, skymap
from absurd.web.dashboard.pictures import answer_picture, showable
from absurd.web.dashboard.render import show
from absurd.web.dependencies import Sky
from absurd.web.desk import READER
from absurd.web.files import answer_file

router = APIRouter(dependencies=[READER])

SHOWN = 200
"""How many products a page shows, the latest observations."""
SOURCES = 2000
"""How many sources the map shows."""

Number = Annotated[int, Path(ge=1, le=2**63 - 1)]
Degrees = Annotated[float | None, Query(allow_inf_nan=False)]


@router.get("/sky")
async def show_sky(request: Request, sky: Sky, kind: Text = "", state: Text = "") -> Response:
    """A map of images, mosaics and sources, and the latest products."""
    _check("kind", kind, get_args(FileKind))
    _check("state", state, get_args(ProductState))
    found = await sky.list_products(kind or None, state or None, SHOWN)
    placed = [each for each in found if each["image"]]
    sources = await sky.list_sources(0, 0, 180 * 3600, SOURCES)
    part = skymap.part_of([(each["image"]["ra"], each["image"]["declination"]) for each in placed])
    return show(
        request, "sky.html", products=found, placed=placed, sources=sources, part=part, skymap=skymap, shown=SHOWN,
        given={"kind": kind, "state": state}, kinds=get_args(FileKind), states=get_args(ProductState),
    )  # fmt: skip


@router.get("/products/{number}")
async def show_product(request: Request, number: Number, sky: Sky) -> Response:
    """All about a product."""
    return show(request, "product.html", product=await sky.get_product(number), showable=showable(request))


@router.get("/products/{number}/file")
async def get_file(request: Request, number: Number, sky: Sky) -> Response:
    """The file that a product is."""
    return answer_file(request.scope, _file(await sky.get_product(number)))


@router.get("/products/{number}/preview")
async def get_picture(request: Request, number: Number, sky: Sky) -> Response:
    """A picture of it."""
    return await answer_picture(request, _file(await sky.get_product(number)))


@router.get("/sources")
async def show_sources(
    request: Request,
    sky: Sky,
    ra: Degrees = None,
    declination: Degrees = None,
    radius: Annotated[float, Query(gt=0, le=648_000)] = 60.0,
) -> Response:
    """Sources around a position, and those that change by the latest table that tells."""
    around = None
    if ra is not None and declination is not None:
        around = await sky.list_sources(ra % 360, max(-90, min(90, declination)), radius, SHOWN)
    table, changing = await sky.list_changing(SHOWN)
    return show(
        request, "sources.html", around=around, table=table, changing=changing, shown=SHOWN,
        given={"ra": ra, "declination": declination, "radius": radius},
    )  # fmt: skip


@router.get("/sources/{number}")
async def show_source(request: Request, number: Number, sky: Sky) -> Response:
    """How bright a source was in each image."""
    source, rows = await sky.get_light_curve(number)
    return show(request, "source.html", source=source, rows=rows, drawing=curve.draw(rows), frame=curve)


def _file(product: Document) -> Document:
    """A product as the artifact that it is."""
    return {"path": product["path"], "sha256": product["checksum"], "bytes": product["bytes"]}


def _check(what: str, given: str, known: tuple[str, ...]) -> None:
    if given and given not in known:
        raise InvalidInputError(f"{what} is {given!r}; it must be {', '.join(known)}")
