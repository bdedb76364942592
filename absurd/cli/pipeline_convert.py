"""``absurd pipeline convert``: have groups of sub-bands converted now, or once more."""

from __future__ import annotations

import click

from absurd.cli.connection import client_of
from absurd.cli.output import emit, json_option


@click.command(epilog="Example: absurd pipeline convert 12")
@click.argument("groups", nargs=-1, required=True, type=int, metavar="GROUP...")
@json_option
@click.pass_context
def convert(ctx: click.Context, groups: tuple[int, ...], as_json: bool) -> None:
    """Have groups of sub-bands converted as they are now, with what came late.

    A group that still collects does not wait any longer; the product of one that was converted is made anew.
    """
    with client_of(ctx) as client:
        tasks = {number: client.convert_subband_group(number) for number in groups}
    lines = [f"Task {task} is to convert group {number}." for number, task in tasks.items()]
    emit([{"group": number, "task_id": task} for number, task in tasks.items()], as_json=as_json, text="\n".join(lines))
