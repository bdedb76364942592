"""``cutout.extract``: cut-outs on the queue."""

from __future__ import annotations

import math
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from absurd.context import RunContext
from absurd.executor import executor

if TYPE_CHECKING:
    from absurd.tasks.cutout.engine import Cutout

COLOURS = 3

for module in ("astropy", "numpy", "PIL"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[astro]", name=module)


class CutoutParams(BaseModel):
    """Where to cut, how much, out of what, and where to put it."""

    model_config = ConfigDict(extra="forbid")

    ra: float = Field(ge=0, le=360, description="Right ascension of the centre, degrees, ICRS.")
    dec: float = Field(ge=-90, le=90, description="Declination of the centre, degrees, ICRS.")
    size: float = Field(
        gt=0, allow_inf_nan=False, description="Side of the square, in `unit`; rounded to whole pixels."
    )
    unit: Literal["arcsec", "pixel"] = Field(default="arcsec", description="What `size` is in: arcseconds or pixels.")
    source: str = Field(
        min_length=1,
        description="A FITS file, or a folder: then its images that contain the position, one for each band.",
    )
    bands: list[str] = Field(default=[], description="Bands to cut, in this order; without it all there are.")
    planes: list[str] = Field(
        default=["image"],
        description="Planes of the file to cut: image, and any image extension of the same shape by its name.",
    )
    hdu: int | None = Field(
        default=None, ge=0, description="HDU of the image, from 0; without it the first on the sky."
    )
    out: str = Field(
        min_length=1,
        description="Where the products go: OUT.fits and OUT.png, with several bands OUT_<band>.fits and .png beside "
        "a colour OUT.png.  A folder (or a path that ends in /): OUT is named after the position in it.",
    )


@executor("cutout.extract", runs_in="process")
def extract(ctx: RunContext, params: CutoutParams) -> dict[str, Any]:
    """Cut a sky position out of FITS images, as FITS with its WCS and as PNG.

    The result tells each cut-out's path, band, shape, origin on its image, pixels beyond it, scale and centre.
    """
    from absurd.tasks.cutout import engine
    from absurd.tasks.cutout.fits_image import by_wavelength
    from absurd.tasks.cutout.output import write_fits
    from absurd.tasks.cutout.preview import aligned, write_preview
    from absurd.tasks.cutout.sources import find_images

    position = (params.ra, params.dec)
    found = find_images(Path(params.source), *position, params.bands)
    base = _base(params)
    cutouts = []
    products: list[dict[str, Any]] = []
    for number, each in enumerate(found):
        ctx.progress(number, len(found), f"band {each.band}" if each.band else each.path.name)
        cutout = engine.extract(
            each.path,
            position,
            params.size,
            unit=params.unit,
            hdu=params.hdu,
            bands=params.bands,
            planes=params.planes,
        )
        cutouts.append(cutout)
        own = base if len(found) == 1 else f"{base}_{_word(cutout.band or str(number))}"
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
    return {"cutouts": products, "preview": preview}


def _base(params: CutoutParams) -> str:
    """The products' path without suffix."""
    if params.out.endswith(os.sep) or os.path.isdir(params.out):
        return os.path.join(params.out, f"cutout_{params.ra:010.6f}{params.dec:+010.6f}")
    stem, suffix = os.path.splitext(params.out)
    return stem if suffix.lower() in (".fits", ".fit", ".png") else params.out


def _word(band: str) -> str:
    """A band as a part of a file name."""
    return "".join(sign if sign.isalnum() or sign in "-+." else "-" for sign in band)


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
