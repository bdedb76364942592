"""``absurd pipeline run``: a block, or whatever else the driver has a mode for."""

from __future__ import annotations

from typing import Any

import click

from absurd.cli.output import json_option
from absurd.cli.pipeline_batch import find_in_time
from absurd.cli.pipeline_blocks import tell_health, with_config, work, work_options


@click.command(epilog="Example: absurd pipeline run --block-end-time 2026-01-15T09:00:00 --ms-files a.ms b.ms")
@click.option(
    "--mode",
    type=click.Choice(["single", "batch", "health"]),
    default="single",
    show_default=True,
    help="One block; all of a time; whether all is well.",
)
@click.option("--block-end-time", metavar="TIME", help="When the block ends; without a zone UTC.")
@click.option("--ms-files", "first", metavar="FILE...", multiple=True, help="Its recordings, Measurement Sets.")
@click.argument("more", nargs=-1, metavar="[FILE]...")
@click.option("--start-time", metavar="TIME", help="Of a batch: recordings from then on.")
@click.option("--end-time", metavar="TIME", help="Of a batch: recordings before then.")
@click.option("--max-blocks", type=click.IntRange(1), metavar="N", help="Of a batch: no more than so many.")
@work_options
@with_config
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    /,
    config: Any,
    mode: str,
    block_end_time: str | None,
    first: tuple[str, ...],
    more: tuple[str, ...],
    start_time: str | None,
    end_time: str | None,
    max_blocks: int | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Have a block of recordings worked on, and wait for what comes of it.

    Each stage is a task: workers do the work, and a worker that is lost costs nothing.  The same command again joins
    what goes on, does again what failed, and nothing that was done.  Exits with 1 if something failed.
    """
    if mode == "health":
        tell_health(ctx, config, 24.0, as_json=as_json)
        return
    if mode == "batch":
        work(ctx, config, find_in_time(start_time, end_time, max_blocks), as_json=as_json, **how)
        return
    files = [*first, *more]
    if how["workflow"] == "ingestion":
        files = files or [config.paths.folder("hdf5_dir")]
        block_end_time = block_end_time or _now()
    if not files or block_end_time is None:
        raise click.UsageError("a block has an end (--block-end-time) and recordings (--ms-files)")
    work(ctx, config, lambda each: [each.create_processing_block(block_end_time, files)], as_json=as_json, **how)


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat()
