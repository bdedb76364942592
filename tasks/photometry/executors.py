"""``photometry.detect``, ``photometry.forced``, ``photometry.variability``: flux densities on the queue."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from absurd.context import RunContext
from absurd.executor import executor
from absurd.tasks.photometry.params import DetectParams, ForcedParams, VariabilityParams

for module in ("astropy", "numba", "numpy", "pyarrow", "scipy"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[radio]", name=module)


@executor("photometry.detect", runs_in="process")
def detect(ctx: RunContext, params: DetectParams) -> dict[str, Any]:
    """Find the sources of an image.

    The catalogue has places, flux densities with errors, and what the island of each source sums up to; the result
    tells how many there are, and the noise.
    """
    from absurd.tasks.photometry.catalogue import make_catalogue
    from absurd.tasks.photometry.rows import write_table

    table, told = make_catalogue(params, lambda: ctx.scratch)
    write_table(table, ctx.artifact(params.out, kind="catalogue"), private=True)
    return {"path": os.path.abspath(params.out), "sources": table.num_rows, **told}


@executor("photometry.forced", runs_in="process")
def forced(ctx: RunContext, params: ForcedParams) -> dict[str, Any]:
    """Measure the sources of a catalogue in images, each at its place whether it is seen or not.

    Rows of a Parquet file tell flux densities with their errors, or upper limits; the result tells how many were
    detected in each image.
    """
    from absurd.tasks.photometry.night import measure_night
    from absurd.tasks.photometry.rows import write_table

    table, images = measure_night(params, ctx.progress)
    write_table(table, ctx.artifact(params.out, kind="photometry"), private=True)
    ctx.progress(len(images), len(images))
    return {"path": os.path.abspath(params.out), "rows": table.num_rows, "images": images}


@executor("photometry.variability", runs_in="process")
def variability(ctx: RunContext, params: VariabilityParams) -> dict[str, Any]:
    """Tell which sources change, by their flux densities in all epochs on one scale.

    The result counts sources by what they are, names those that change, and tells the scale of each epoch.
    """
    from absurd.tasks.photometry.changes import find_changes
    from absurd.tasks.photometry.rows import write_table

    found = find_changes(params)
    write_table(found.sources, ctx.artifact(params.out, kind="variability"), private=True)
    result: dict[str, Any] = {"path": os.path.abspath(params.out), **found.told()}
    if params.light_curves is not None:
        write_table(found.curves, ctx.artifact(params.light_curves, kind="light_curves"), private=True)
        result["light_curves"] = os.path.abspath(params.light_curves)
    return result
