"""``absurd pipeline batch``: all blocks of a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.output import json_option
from absurd.cli.pipeline_blocks import with_config, work, work_options

if TYPE_CHECKING:
    from absurd.tasks.pipeline.blocks import ProcessingBlock
    from absurd.tasks.pipeline.orchestrator import PipelineOrchestrator


@click.command(epilog="Example: absurd pipeline batch --start-time 2026-01-15T00:00:00 --end-time 2026-01-15T12:00:00")
@click.option("--start-time", metavar="TIME", help="Recordings from then on; without a zone UTC.  [all]")
@click.option("--end-time", metavar="TIME", help="Recordings before then.  [all]")
@click.option("--max-blocks", type=click.IntRange(1), metavar="N", help="No more than so many, the earliest.  [all]")
@work_options
@with_config
@json_option
@click.pass_context
def batch(
    ctx: click.Context,
    /,
    config: Any,
    start_time: str | None,
    end_time: str | None,
    max_blocks: int | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Find the blocks of a time, have them worked on, and wait for what comes of them.

    They are of the recordings in `ms_stage1_dir`, by their names; `max_concurrent_blocks` are worked on at a time.  A
    gap costs no recording: each stretch has blocks of its own, of which the last may be partial.  One that fails
    does not keep the others from going on.  Exits with 1 if one failed, or there is none.
    """
    work(ctx, config, find_in_time(start_time, end_time, max_blocks), as_json=as_json, **how)


def find_in_time(
    start: str | None, end: str | None, most: int | None
) -> Callable[[PipelineOrchestrator], Sequence[ProcessingBlock]]:
    """What looks for the blocks of a time.  It raises DataError where there is none."""

    def find(orchestrator: PipelineOrchestrator) -> Sequence[ProcessingBlock]:
        from absurd.tasks.radio.errors import DataError

        found = orchestrator.find_blocks(start, end)[:most]
        if not found:
            raise DataError(f"there is no recording of that time in {orchestrator.folder}", path=orchestrator.folder)
        return found

    return find
