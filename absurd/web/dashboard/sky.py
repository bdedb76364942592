"""Products: where they lie on the sky, what is known of each, and how sources change."""

from __future__ import annotations

from typing import Annotated, Any, cast, get_args

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from absurd import products
from absurd.errors import InvalidInputError, NotFoundError
from absurd.products import FileKind, ProductState
from absurd.web.answers import Text
from absurd.web.dashboard import curve, skymap
from absurd.web.dashboard.pictures import showable
from absurd.web.dashboard.render import show
from absurd.web.desk import Desk, Reader

router = APIRouter()

SHOWN = 200
"""How many products a page shows, the latest observations."""
SOURCES = 2000
"""How many sources the map shows."""
TABLES = 10
"""Of how many of the latest tables one is looked for that tells of variability."""

Number = Annotated[int, Path(ge=1, le=2**63 - 1)]
Degrees = Annotated[float | None, Query(allow_inf_nan=False)]


@router.get("/sky")
async def show_sky(request: Request, desk: Reader, kind: Text = "", state: Text = "") -> Response:
    """A map of images, mosaics and sources, and the latest products."""
    _check("kind", kind, get_args(FileKind))
    _check("state", state, get_args(ProductState))
    call = products.list_products(
        cast("FileKind | None", kind or None), state=cast("ProductState | None", state or None), limit=SHOWN
    )
    found = await desk.read(call)
    placed = [each for each in found if each["image"]]
    sources = await desk.read(products.find_sources(0, 0, 180 * 3600, limit=SOURCES))
    part = skymap.part_of([(each["image"]["ra"], each["image"]["declination"]) for each in placed])
    return show(
        request, "sky.html", products=found, placed=placed, sources=sources, part=part, skymap=skymap, shown=SHOWN,
        given={"kind": kind, "state": state}, kinds=get_args(FileKind), states=get_args(ProductState),
    )  # fmt: skip


@router.get("/products/{number}")
async def show_product(request: Request, number: Number, desk: Reader) -> Response:
    """All about a product."""
    found = await desk.read(products.get_product(number))
    if found is None:
        raise NotFoundError(f"there is no product {number}", id=number)
    return show(request, "product.html", product=found, showable=showable(request))


@router.get("/sources")
async def show_sources(
    request: Request,
    desk: Reader,
    ra: Degrees = None,
    declination: Degrees = None,
    radius: Annotated[float, Query(gt=0, le=648_000)] = 60.0,
) -> Response:
    """Sources around a position, and those that change by the latest table that tells."""
    around = None
    if ra is not None and declination is not None:
        around = await desk.read(products.find_sources(ra % 360, max(-90, min(90, declination)), radius, limit=SHOWN))
    table, changing = await _variability(desk)
    return show(
        request, "sources.html", around=around, table=table, changing=changing, shown=SHOWN,
        given={"ra": ra, "declination": declination, "radius": radius},
    )  # fmt: skip


@router.get("/sources/{number}")
async def show_source(request: Request, number: Number, desk: Reader) -> Response:
    """How bright a source was in each image."""
    rows = await desk.read(products.get_light_curve(number))
    if not rows:
        raise NotFoundError(f"there is no source {number} of which anything was measured", id=number)
    return show(request, "source.html", number=number, rows=rows, drawing=curve.draw(rows), frame=curve)


async def _variability(desk: Desk) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The latest table that tells how sources change, and these, the most first."""
    for table in await desk.read(products.list_products("table", state="accepted", limit=TABLES)):
        if found := await desk.read(products.list_variability(table["id"], limit=SHOWN)):
            return table, found
    return None, []


def _check(what: str, given: str, known: tuple[str, ...]) -> None:
    if given and given not in known:
        raise InvalidInputError(f"{what} is {given!r}; it must be {', '.join(known)}")
