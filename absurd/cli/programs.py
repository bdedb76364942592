"""All programs of the distribution, for what is made of their commands: completion and manual pages."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import click

PLACES = {
    "absurd": "absurd.cli:absurd",
    "absurd-worker": "absurd.cli.worker:absurd_worker",
    "absurd-scheduler": "absurd.cli.scheduler:absurd_scheduler",
    "fast-export": "absurd.cli.export:fast_export",
    "extract-catalog": "absurd.cli.extract_catalog:extract_catalog_program",
}


def programs() -> dict[str, click.Command]:
    """Each program by its name."""
    found = {}
    for name, place in PLACES.items():
        module, _, attribute = place.partition(":")
        found[name] = getattr(import_module(module), attribute)
    return found


def subcommands(ctx: click.Context) -> Iterator[click.Context]:
    """A context for each command right below that of `ctx`, in the order of its help; none where it is no group."""
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            found = ctx.command.get_command(ctx, name)
            if found is not None and not found.hidden:
                yield click.Context(found, info_name=name, parent=ctx)
