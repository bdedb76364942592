"""``cutout.extract``, ``cutout.batch`` and its parts, ``cutout.index``: cut-outs on the queue."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from absurd.context import RunContext
from absurd.errors import (
    AbsurdError,
    ExecutionError,
    InvalidInputError,
    NotFoundError,
    TaskCancelled,
    TaskNotFoundError,
    WaitTimeoutError,
)
from absurd.executor import executor
from absurd.outcome import Cancel, Reject
from absurd.tasks.cutout.params import BatchParams, PartParams

if TYPE_CHECKING:
    from absurd.tasks.cutout.engine import Cutout
    from absurd.tasks.cutout.scan import Scanned
    from absurd.tasks.cutout.sources.index import IndexSource

COLOURS = 3
LOOK_SECONDS = 2.0
"""How often a part of a batch looks whether that is still wanted."""
PAUSES = (10.0, 60.0)
"""Seconds after which a batch is divided again whose source did not answer; then it is without knowing the images."""
GIVEN_UP = "its batch has ended"
Place = Annotated[str, Field(min_length=1)]

for module in ("astropy", "numpy", "PIL", "pyarrow"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[astro]", name=module)


class CutoutParams(BaseModel):
    """Where to cut, how much, out of what, and where to put it."""

    model_config = ConfigDict(extra="forbid")

    ra: float = Field(ge=0, le=360, allow_inf_nan=False, description="Right ascension of the centre, degrees, ICRS.")
    dec: float = Field(ge=-90, le=90, allow_inf_nan=False, description="Declination of the centre, degrees, ICRS.")
    size: float = Field(
        gt=0, allow_inf_nan=False, description="Side of the square, in `unit`; rounded to whole pixels."
    )
    unit: Literal["arcsec", "pixel"] = Field(default="arcsec", description="What `size` is in: arcseconds or pixels.")
    source: str = Field(
        min_length=1,
        description="A FITS file; or a folder, index:NAME of an index of images, a Butler repository (a folder with a "
        "butler.yaml) or the address of a Butler server: then the images that contain the position, one for each band.",
    )
    collections: list[str] = Field(
        default=[],
        description="Collections of a repository, searched in this order; without it "
        "those in RIPPLE_COLLECTIONS of the worker.",
    )
    bands: list[str] = Field(default=[], description="Bands to cut, in this order; without it all there are.")
    planes: list[str] = Field(
        default=["image"],
        description="Planes of the file to cut: image, and any image extension of the same shape by its name.",
    )
    hdu: int | None = Field(
        default=None,
        ge=0,
        description="HDU of the image, from 0, of files and folders; without it the first on the sky that is no mask "
        "or weight of another.",
    )
    out: str = Field(
        min_length=1,
        description="Where the products go: OUT.fits and OUT.png, with several bands OUT_<band>.fits and .png beside "
        "a colour OUT.png.  A folder (or a path that ends in /): OUT is named after the position in it.",
    )


@executor("cutout.extract", runs_in="process")
def extract(ctx: RunContext, params: CutoutParams) -> dict[str, Any]:
    """Cut a sky position out of FITS images, as FITS with its WCS and as PNG.

    The result tells each cut-out's path, band, shape, origin on its image, pixels beyond it, scale and centre; `note`
    what is unusual, as files that could not be read where there may be more bands.
    """
    from absurd.tasks.cutout.bands import by_wavelength
    from absurd.tasks.cutout.file_names import plain_bands
    from absurd.tasks.cutout.output import write_fits
    from absurd.tasks.cutout.preview import aligned, write_preview

    found, note = _found(params)
    base = _base(params)
    cutouts = []
    products: list[dict[str, Any]] = []
    for number, (name, cut) in enumerate(found):
        ctx.progress(number, len(found), name)
        cutout = cut()
        cutouts.append(cutout)
        own = base if len(found) == 1 else f"{base}_{plain_bands([each.band for each in cutouts])[-1]}"
        write_fits(cutout, ctx.artifact(f"{own}.fits", kind="cutout"), task_id=ctx.task_id, private=True)
        kind = "preview" if len(found) == 1 else "band_preview"
        write_preview(cutout.image, ctx.artifact(f"{own}.png", kind=kind), label=cutout.band or "", private=True)
        products.append(_told(cutout, own))
    preview = products[0]["preview"]
    if len(cutouts) > 1:
        images = [cutout.image for cutout in cutouts]
        colour = len(images) >= COLOURS and all(aligned(images[0], image) for image in images[1:])
        picture = (
            sorted(cutouts, key=lambda each: by_wavelength(each.band), reverse=True)[:COLOURS]
            if colour
            else cutouts[:1]
        )
        label = " ".join(cutout.band or "?" for cutout in reversed(picture))
        path = ctx.artifact(f"{base}.png", kind="preview")
        shown = [cutout.image for cutout in picture]
        write_preview(shown if colour else shown[0], path, label=label, private=True)
        preview = os.path.abspath(f"{base}.png")
    ctx.progress(len(found), len(found))
    return {"cutouts": products, "preview": preview, "note": note}


@executor("cutout.batch", runs_in="process")
def batch(ctx: RunContext, params: BatchParams) -> dict[str, Any]:
    """Cut many positions out of images: one manifest with a row for each, accepted, rejected or failed, in their order.

    Requests on the same images are cut by one task, `cutout.part`.  The result counts rows by state, and tells where
    manifest, contact sheet and tensors are.  A part that fails for good is failed rows.  What an earlier batch with the
    same `out` has cut of the same images is not cut again; one that is still at work there is not disturbed: this one
    fails.  A source that does not answer is waited for, by this task for a minute, by each part with its attempts; then
    its rows have failed.
    """
    from absurd.tasks.cutout.errors import FolderInUseError
    from absurd.tasks.cutout.in_use import in_use
    from absurd.tasks.cutout.plan import PARTS

    with ExitStack() as stack:
        try:
            stack.enter_context(in_use(Path(params.out) / PARTS, batch=ctx.task_id, has_ended=partial(_has_ended, ctx)))
        except FolderInUseError as error:
            raise Reject(error.message) from error
        return _batch(ctx, params)


def _batch(ctx: RunContext, params: BatchParams) -> dict[str, Any]:
    from absurd.tasks.cutout.cutting import fan_in, is_done, plan
    from absurd.tasks.cutout.plan import PARTS, Plan

    path = Path(params.out) / PARTS / f"{ctx.task_id.hex}.plan.json"

    def divide() -> dict[str, Any]:
        made = plan(params, _indexed)
        made.write(path)
        comes_back = made.away is not None and not isinstance(made.away, InvalidInputError | NotFoundError)
        return {"rows": made.rows, "parts": len(made.parts), "away": comes_back}

    for pause in (*PAUSES, None):
        away = ctx.step("plan", divide)["away"]
        if not away or pause is None:
            break
        ctx.sleep(pause)
    planned = Plan.read(path)
    options = params.model_dump(mode="json", exclude={"positions", "keep_parts"}, exclude_unset=True)

    def spawn(number: int) -> UUID:
        each = planned.parts[number]
        own = {"part": each.name, "thumbnails": each.thumbnails, "batch": str(ctx.task_id)}
        task_id: UUID = ctx.spawn("cutout.part", options | own, node=f"part[{number}]")
        return task_id

    tasks = [spawn(number) for number in range(len(planned.parts))]
    ends = ctx.wait_for(tasks, return_exceptions=True)
    while again := [number for number, end in enumerate(ends) if _is_given_up(end)]:  # this batch is retried
        for number in again:
            tasks[number] = spawn(number)
        ends = ctx.wait_for(tasks, return_exceptions=True)
    lost = {each.name: _why(end) for each, end in zip(planned.parts, ends, strict=True) if isinstance(end, AbsurdError)}
    result = fan_in(
        params,
        planned,
        cut=sum(end["cut"] for end in ends if not isinstance(end, AbsurdError)),
        lost=lost,
        at=lambda name: ctx.artifact(os.path.join(params.out, name), kind=name.partition(".")[0]),
        private=True,
    )
    if not params.keep_parts and not lost and is_done(params, planned):  # a retry of this run would need them
        ctx.spawn("cutout.tidy", {"out": params.out, "batch": str(ctx.task_id)})
    ctx.log.info("cutouts_made", rows=result.rows, failed=result.failed, parts=len(tasks), lost=len(lost))
    return asdict(result) | {"parts": len(tasks), "lost_parts": len(lost)}


@executor("cutout.part", runs_in="process")
def part(ctx: RunContext, params: PartParams) -> dict[str, int]:
    """Cut a part of a batch: `cutout.batch` spawns it.  The result tells how many rows were cut now.

    It fails where a source did not answer, and is tried again; what its last attempt has made of the rows stays.
    """
    from absurd.tasks.cutout.cutting import cut_part
    from absurd.tasks.cutout.in_use import in_use
    from absurd.tasks.cutout.plan import PARTS

    looked = -math.inf

    def look(done: int, total: int) -> None:
        nonlocal looked
        if time.monotonic() - looked >= LOOK_SECONDS:
            _require_wanted(ctx, params.batch)
            ctx.progress(done, total)
            looked = time.monotonic()

    look(0, 0)
    with in_use(Path(params.out) / PARTS, batch=params.batch, take=False):
        cut = cut_part(params, params.part, _indexed, thumbnails=params.thumbnails, progress=look, task_id=ctx.task_id)
    if cut.away is not None:
        raise cut.away
    return {"cut": cut.rows}


class TidyParams(BaseModel):
    """Of which batch."""

    model_config = ConfigDict(extra="forbid")

    out: Place = Field(description="Folder of its products.")
    batch: UUID = Field(description="The task `cutout.batch` that has ended.")


@executor("cutout.tidy")
def tidy(ctx: RunContext, params: TidyParams) -> None:
    """Remove what a batch needed to go on after a failure: `cutout.batch` spawns it with its own completion.

    Nothing is done where another batch has begun in the folder.
    """
    from absurd.tasks.artifact import remove
    from absurd.tasks.cutout.errors import FolderInUseError
    from absurd.tasks.cutout.in_use import in_use
    from absurd.tasks.cutout.plan import PARTS

    parts = Path(params.out) / PARTS
    try:
        with in_use(parts, batch=params.batch, take=False):
            remove(parts)
    except FolderInUseError as error:
        ctx.log.info("parts_kept", reason=error.message)


def _require_wanted(ctx: RunContext, batch: UUID) -> None:
    """Raise Cancel if a batch has ended: it was cancelled, and nobody waits for its parts."""
    try:
        ctx.wait_for([batch], timeout=0)
    except WaitTimeoutError:
        return
    except (ExecutionError, TaskNotFoundError):  # failed or cancelled; or so long ago that it is removed
        pass
    raise Cancel(GIVEN_UP)


def _has_ended(ctx: RunContext, batch: UUID) -> bool:
    """Whether another batch has ended, or is removed."""
    try:
        ctx.wait_for([batch], timeout=0, return_exceptions=True)
    except WaitTimeoutError:
        return False
    except TaskNotFoundError:
        pass
    return True


def _is_given_up(end: Any) -> bool:
    return isinstance(end, TaskCancelled) and end.details["reason"] == GIVEN_UP


def _why(end: AbsurdError) -> str:
    """What is told of a part that has not completed."""
    if isinstance(end, TaskCancelled):
        return f"its task was cancelled: {end.details['reason']}"
    return str((end.details.get("error") or {}).get("message") or end.message)


class IndexParams(BaseModel):
    """Which files to index, and where."""

    model_config = ConfigDict(extra="forbid")

    folder: Place | Annotated[list[Place], Field(min_length=1)] = Field(
        description="A folder, whose FITS files and those below it are indexed, or a file; or a list of these."
    )
    index: str = Field(
        min_length=1, description="Name of the index, which is made if there is none; cutout.extract takes index:NAME."
    )


@executor("cutout.index", runs_in="process")
def index_images(ctx: RunContext, params: IndexParams) -> dict[str, Any]:
    """Read the headers of FITS files into an index of images in the queue's database: only of new and changed files.

    Files that have vanished are forgotten.  The result counts files, those read, their images and those forgotten, and
    names what could not be used, with the reason.
    """
    from absurd.client_sync import SyncAbsurdClient
    from absurd.config import load_settings
    from absurd.tasks.cutout.scan import scan

    def told(found: Scanned) -> None:
        ctx.progress(found.files, None, f"{found.files} files, {found.read} read, {found.unusable} unusable")

    places = [params.folder] if isinstance(params.folder, str) else params.folder
    with SyncAbsurdClient(settings=load_settings()) as client:
        found = scan(client, params.index, places, told=told)
    ctx.progress(found.files, found.files)
    ctx.log.info("images_indexed", index=params.index, files=found.files, read=found.read, unusable=found.unusable)
    return {"index": params.index} | asdict(found)


def _indexed(name: str) -> IndexSource:
    """The source that an index of the queue's database is; it connects when it is asked, and stays connected."""
    from absurd.client_sync import SyncAbsurdClient
    from absurd.config import load_settings
    from absurd.tasks.cutout.sources.index import IndexSource

    client = SyncAbsurdClient(settings=load_settings())
    return IndexSource(partial(client.find_images, name), name=f"index {name}", close=client.close)


def _found(params: CutoutParams) -> tuple[list[tuple[str, Callable[[], Cutout]]], str]:
    """What there is to cut: what it is called, and what cuts it; and what is unusual about all of it."""
    from absurd.tasks.cutout import engine
    from absurd.tasks.cutout.sources.folder import find_images
    from absurd.tasks.cutout.sources.places import places_of

    (place,) = places_of(params.source)
    folder = getattr(place, "folder", None)
    if folder is None or (params.hdu is None and os.path.isdir(folder)):
        return _fetched(params)
    position = (params.ra, params.dec)
    options: dict[str, Any] = {"unit": params.unit, "hdu": params.hdu, "bands": params.bands, "planes": params.planes}
    cuts: list[tuple[str, Callable[[], Cutout]]] = [
        (
            f"band {each.band}" if each.band else each.path.name,
            partial(engine.extract, each.path, position, params.size, **options),
        )
        for each in find_images(Path(params.source), *position, params.bands)
    ]
    return cuts, ""


def _fetched(params: CutoutParams) -> tuple[list[tuple[str, Callable[[], Cutout]]], str]:
    """As `_found`, of images that a source finds by position."""
    from absurd.tasks.cutout.errors import DataIdValidationError
    from absurd.tasks.cutout.sources.places import fetcher_for

    if params.hdu is not None:
        raise DataIdValidationError(f"hdu is {params.hdu}; {params.source} tells itself which", advice="leave it out")
    with fetcher_for(params.source, indexed=_indexed, collections=params.collections) as fetcher:
        fetched = fetcher.fetch_cutout(
            params.ra, params.dec, params.size, unit=params.unit, bands=params.bands, planes=params.planes
        )
    cuts: list[tuple[str, Callable[[], Cutout]]] = [
        (f"band {band}" if band else Path(image.uri).name, partial(fetched.cutout, band))
        for band, image in zip(fetched.bands, fetched.images, strict=True)
    ]
    return cuts, fetched.note


def _base(params: CutoutParams) -> str:
    """The products' path without suffix."""
    if params.out.endswith(os.sep) or os.path.isdir(params.out):
        return os.path.join(params.out, f"cutout_{params.ra:010.6f}{params.dec:+010.6f}")
    stem, suffix = os.path.splitext(params.out)
    return stem if suffix.lower() in (".fits", ".fit", ".png") else params.out


def _told(cutout: Cutout, own: str) -> dict[str, Any]:
    ra, dec = cutout.image.centre
    scale_y, scale_x = cutout.image.pixel_scale
    return {
        "path": os.path.abspath(f"{own}.fits"),
        "preview": os.path.abspath(f"{own}.png"),
        "source": cutout.source,
        "hdu": cutout.hdu,
        "band": cutout.band,
        "unit": cutout.image.unit,
        "shape": list(cutout.image.shape),
        "origin_xy": list(cutout.box.origin),
        "clipped_origin_xy": list(cutout.box.clipped_origin),
        "n_outside": cutout.box.n_outside,
        "planes": ["image", *cutout.planes],
        "pixel_scale_arcsec": [scale_y, scale_x],
        "centre_deg": [ra, dec] if math.isfinite(ra) else None,
    }
