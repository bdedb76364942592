"""``imaging.mosaic``: images combined, on the queue."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from absurd.context import RunContext
from absurd.executor import executor
from absurd.outcome import Reject
from absurd.tasks.imaging.mosaicking.params import MosaicParams

for module in ("astropy", "numba", "numpy", "scipy"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[radio]", name=module)


@executor("imaging.mosaic", runs_in="process")
def mosaic(ctx: RunContext, params: MosaicParams) -> dict[str, Any]:
    """Combine images to one, each pixel weighted by primary beam^2 / noise^2, with its noise map.

    Without `tiles` it takes the images of those tasks it comes after that have completed, each with its own beam.  The
    result tells both files, the pixels, noise, beam, how the noise map fits the scatter of the pixels, each tile with
    its noise, which images of theirs are to be measured, and warnings.  The mosaic becomes a product of the database, a
    candidate until its gates let it pass (qa.mosaic).
    """
    from absurd.tasks.imaging.mosaicking.build import (
        made_before,
        mosaic_record,
        name_of_noise,
        read_tiles,
        tiles_of,
        told,
    )
    from absurd.tasks.imaging.mosaicking.combine import combine

    before = made_before(ctx.parents.values())
    there = len(params.tiles or before)
    if there < params.least_tiles:
        raise Reject(f"{there} images are there, and a mosaic is made of {params.least_tiles} at least")
    params = params.model_copy(update={"tiles": params.tiles or tiles_of(before)})
    tiles, grid = read_tiles(params)
    noise = name_of_noise(params.out)
    combined = combine(
        tiles,
        ctx.artifact(params.out, kind="mosaic"),
        ctx.artifact(noise, kind="noise_map"),
        grid=grid,
        least_gain=params.pblimit,
        progress=lambda done, total: ctx.progress(done, total, "combining"),
    )
    result = told(tiles, combined)
    ctx.product("mosaic", mosaic_record(params.out, tiles, combined))
    for warning in result["warnings"]:
        ctx.log.warning("mosaic_remark", remark=warning)
    images = [each.get("pbcor", each["image"]) for each in before]
    return {"path": os.path.abspath(params.out), "noise_path": os.path.abspath(noise), "images": images, **result}
