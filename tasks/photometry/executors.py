"""``photometry.*``: flux densities on the queue."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from importlib.util import find_spec
from typing import Any

from absurd.context import RunContext
from absurd.executor import executor
from absurd.tasks.photometry.params import DetectParams, ForcedParams, NightParams, VariabilityParams

for module in ("astropy", "numba", "numpy", "pyarrow", "scipy"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[radio]", name=module)


@executor("photometry.detect", runs_in="process")
def detect(ctx: RunContext, params: DetectParams) -> dict[str, Any]:
    """Find the sources of an image.

    The catalogue has places, flux densities with errors, and what the island of each source sums up to; the result
    tells how many there are, and the noise.  The database has each source by its position: within `same_arcsec` it is
    the one that was found there before.
    """
    from absurd.tasks.photometry.catalogue import make_catalogue
    from absurd.tasks.photometry.record import source_rows, span_of, table_record
    from absurd.tasks.photometry.rows import write_table
    from absurd.tasks.radio.sky_image import open_sky_image

    table, told = make_catalogue(params, lambda: ctx.scratch)
    write_table(table, ctx.artifact(params.out, kind="catalogue"), private=True)
    row = table_record(params.out, "catalogue", [(params.image, "image")], sources=table.num_rows)
    ctx.product("table", row | span_of(open_sky_image(params.image).span or ()))
    for each in source_rows(table, params.same_arcsec):
        ctx.product("source", each)
    return {"path": os.path.abspath(params.out), "sources": table.num_rows, **told}


@executor("photometry.forced", runs_in="process")
def forced(ctx: RunContext, params: ForcedParams) -> dict[str, Any]:
    """Measure the sources of a catalogue in images, each at its place whether it is seen or not.

    Rows of a Parquet file tell flux densities with their errors, or upper limits; the result tells how many were
    detected in each image.  The database has a row for each source and image too, and replaces what it had of them.
    """
    from absurd.tasks.photometry.night import measure_night
    from absurd.tasks.photometry.record import measurement_rows, source_rows, span_of, table_record
    from absurd.tasks.photometry.rows import write_table

    table, images = measure_night(params, ctx.progress)
    write_table(table, ctx.artifact(params.out, kind="photometry"), private=True)
    inputs = [(each["image"], "image") for each in images] + [(params.positions, "catalogue")]
    row = table_record(params.out, "photometry", inputs, rows=table.num_rows)
    ctx.product("table", row | span_of(table.column("observed").unique().to_pylist()))
    for each in source_rows(table, params.same_arcsec):
        ctx.product("source", each)
    for each in measurement_rows(table):
        ctx.product("photometry", each)
    ctx.progress(len(images), len(images))
    return {"path": os.path.abspath(params.out), "rows": table.num_rows, "images": images}


@executor("photometry.variability", runs_in="process")
def variability(ctx: RunContext, params: VariabilityParams) -> dict[str, Any]:
    """Tell which sources change, by their flux densities in all epochs on one scale.

    The result counts sources by what they are, names those that change, and tells the scale of each epoch.  The
    database has what was told of each source.
    """
    from absurd.tasks.photometry.changes import find_changes
    from absurd.tasks.photometry.record import change_rows, source_rows, span_of, table_record
    from absurd.tasks.photometry.rows import write_table

    found = find_changes(params)
    write_table(found.sources, ctx.artifact(params.out, kind="variability"), private=True)
    result: dict[str, Any] = {"path": os.path.abspath(params.out), **found.told()}
    inputs = [(each, "photometry") for each in params.photometry]
    span = span_of(found.light_curves.observed)
    ctx.product("table", table_record(params.out, "variability", inputs, counts=result["counts"]) | span)
    for each in source_rows(found.sources, params.same_arcsec):
        ctx.product("source", each)
    for each in change_rows(found.sources):
        ctx.product("variability", each)
    if params.light_curves is not None:
        write_table(found.curves, ctx.artifact(params.light_curves, kind="light_curves"), private=True)
        ctx.product("table", table_record(params.light_curves, "light curves", inputs) | span)
        result["light_curves"] = os.path.abspath(params.light_curves)
    return result


@executor("photometry.export_night", runs_in="process")
def export_night(ctx: RunContext, params: NightParams) -> dict[str, Any]:
    """Write all measurements of a night that the database has to a Parquet file, for whoever has no database.

    Non-detections with their limits are among them; those of quarantined images are not.  The same rows give the same
    file, whenever the task runs again: a schedule may run it each day, and again once a night was measured anew.
    """
    from absurd.config import load_settings
    from absurd.database_url import for_psycopg
    from absurd.resolve import resolve_database
    from absurd.tasks.photometry.nightly import last_night, name_of_night, span_of_night, write_night
    from absurd.tasks.photometry.record import span_of, table_record

    def of_now() -> str:
        return last_night(datetime.now(UTC), params.begins).isoformat()

    night = params.night or date.fromisoformat(ctx.step("night", of_now))  # of the first attempt, if it is not told
    settings = load_settings()
    path = name_of_night(params.folder, night)
    table = write_night(
        for_psycopg(resolve_database(settings)),
        settings.schema,
        span_of_night(night, params.begins),
        ctx.artifact(path, kind="night"),
        ctx.scratch,
        lambda rows, _: ctx.progress(rows, None, "rows"),
    )
    images = table.column("image").unique().to_pylist()
    row = table_record(path, "night", [(each, "image") for each in images], night=night.isoformat())
    ctx.product("table", row | span_of(table.column("observed_at").unique().to_pylist()))
    return {"path": os.path.abspath(path), "night": night.isoformat(), "rows": table.num_rows, "images": len(images)}
