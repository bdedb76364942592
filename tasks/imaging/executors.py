"""``imaging.image``: images of visibilities on the queue."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal

from pydantic import Field

from absurd.context import RunContext
from absurd.executor import executor
from absurd.tasks.imaging.parameters import ImagingParameters, Path

for module in ("astropy", "casacore", "ducc0", "numba", "scipy"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[radio]", name=module)


class ImageParams(ImagingParameters):
    """What to image, and how."""

    ms: Path = Field(description="The Measurement Set.")
    out: Path = Field(description="The images are named after it: night.fits gives night-image.fits and so on.")
    column: str = Field(default="DATA", min_length=1, description="Which visibilities, as CORRECTED_DATA.")
    spectral_window: int | None = Field(default=None, ge=0, description="Of the Measurement Set; it may have one only.")
    fields: list[int | str] | None = Field(default=None, description="Numbers or names of fields; without it all.")
    kept: Literal["all", "read"] = Field(
        default="all", description="Files that are kept; read: those that mosaics and photometry read."
    )


@executor("imaging.image", runs_in="process")
def image(ctx: RunContext, params: ImageParams) -> dict[str, Any]:
    """Make an image of a Measurement Set: clean, restore, and write what belongs to it as FITS, and a picture.

    Files get their names once the run has completed, all whole.  The same recording and params give the same bits.  The
    result tells paths, beam, why cleaning stopped, and statistics: noise, what the weights promise, dynamic range.  The
    image becomes a product of the database, a candidate until its gates let it pass (qa.image).
    """
    from absurd.tasks.imaging.engines import Recording, engine_named
    from absurd.tasks.imaging.products import product_paths, write_products
    from absurd.tasks.imaging.record import image_record

    stages = 0

    def progress(stage: str) -> None:
        nonlocal stages
        stages += 1
        ctx.progress(stages, None, stage)

    recording = Recording(params.ms, params.column, params.spectral_window, params.fields)
    results = engine_named(params.engine, lambda: ctx.scratch).image(recording, params, progress)
    progress("writing")
    paths = product_paths(params.out, pbcor=params.pbcor, kept=params.kept)
    history = [f"{params.ms} {params.column}", params.model_dump_json(include=set(ImagingParameters.model_fields))]
    private = {name: ctx.artifact(path, kind=f"imaging.{name}") for name, path in paths.items()}
    write_products(results, private, pblimit=params.pblimit, history=history, private=True)
    ctx.product("image", image_record(results, paths, params.ms))
    for each in results:
        ctx.log.info("image_made", path=paths["image"], stopped_by=each.stopped_by, **each.statistics)
    return {"paths": paths, "planes": [each.summary() for each in results], **results[0].summary()}
