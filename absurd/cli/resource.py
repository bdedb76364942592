"""``absurd resource``: what the workers of all hosts share, such as licences."""

from __future__ import annotations

import click

from absurd.cli.connection import database_of
from absurd.cli.output import Table, emit, json_option


@click.group()
def resource() -> None:
    """List, set and remove what the workers of all hosts share."""


@resource.command("list", epilog="Example: absurd resource list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Show what is shared, how much of it is held, and by which tasks."""
    from absurd.resources import list_resources

    with database_of(ctx) as database:
        found = database.run(list_resources())
    rows = [
        (each["name"], f"{each['total']:g}", f"{each['held']:g}", each["waiting"], _some(each["tasks"]))
        for each in found
    ]
    headers = ("resource", "total", "held", "waiting", "held by")
    empty = "Nothing is shared; `absurd resource set NAME TOTAL` tells what is."
    text = Table(headers, rows, right=("total", "held", "waiting"), shrink="held by", empty=empty)
    emit(found, as_json=as_json, text=text)


@resource.command("set", epilog="Example: absurd resource set licence:casa 1")
@click.argument("name")
@click.argument("total", type=float)
@json_option
@click.pass_context
def set_(ctx: click.Context, name: str, total: float, as_json: bool) -> None:
    """Say how much of NAME all workers share; what is held of it already counts.

    Tasks that need it wait while others hold it, on whatever host these run.
    """
    from absurd.resources import set_resource

    with database_of(ctx) as database:
        database.run(set_resource(name, total))
    emit({"name": name, "total": total}, as_json=as_json, text=f"All workers share {total:g} {name}.")


@resource.command(epilog="Example: absurd resource remove licence:casa")
@click.argument("name")
@json_option
@click.pass_context
def remove(ctx: click.Context, name: str, as_json: bool) -> None:
    """Share NAME no more: each worker has of it what it offers."""
    from absurd.errors import ResourceNotFoundError
    from absurd.resources import remove_resource

    with database_of(ctx) as database:
        if not database.run(remove_resource(name)):
            raise ResourceNotFoundError(
                f"there is no shared resource called {name!r}; `absurd resource list` shows them", name=name
            )
    emit({"name": name, "removed": True}, as_json=as_json, text=f"{name} is shared no more.")


def _some(tasks: list[str]) -> str:
    return " ".join(tasks[:2]) + (f" and {len(tasks) - 2} more" if len(tasks) > 2 else "")
