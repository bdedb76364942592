"""``absurd pipeline health``: whether machine, folders and queue are well, and how blocks went."""

from __future__ import annotations

from typing import Any

import click

from absurd.cli.output import json_option
from absurd.cli.pipeline_blocks import tell_health, with_config


@click.command(epilog="Example: absurd pipeline health --environment production")
@click.option("--hours", type=click.FloatRange(0, min_open=True), default=24.0, show_default=True, help="Of blocks.")
@with_config
@json_option
@click.pass_context
def health(ctx: click.Context, /, config: Any, hours: float, as_json: bool) -> None:
    """Measure whether machine, folders and queue are well; tell how blocks went.

    That is processors, memory, the disk of each folder, database, workers and what waits.  Exits with 1 if something is
    unhealthy.
    """
    tell_health(ctx, config, hours, as_json=as_json)
