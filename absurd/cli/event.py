"""``absurd event``: tell waiting tasks that something has happened."""

from __future__ import annotations

import click

from absurd.cli.connection import database_of
from absurd.cli.output import emit as show
from absurd.cli.output import json_option
from absurd.cli.values import read_params


@click.group()
def event() -> None:
    """Emit events that tasks wait for."""


@event.command(epilog="Example: absurd event emit night-closed night=12 seeing=0.8")
@click.argument("name")
@click.argument("payload", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--params", "document", metavar="JSON|@FILE|-", help="The payload as JSON, from a file or from stdin.")
@json_option
@click.pass_context
def emit(ctx: click.Context, name: str, payload: tuple[str, ...], document: str | None, as_json: bool) -> None:
    """Emit an event that tasks wait for, now or later.

    The first emission of a name counts, with its payload; another one changes nothing.
    """
    from absurd.encoding import encode
    from absurd.queue import emit_event

    value = read_params(payload, document)
    with database_of(ctx) as database:
        emitted = database.run(emit_event(name, encode(value, "payload") if payload or document else None))
    text = f"Event {name} is emitted." if emitted else f"Event {name} was emitted before; nothing has changed."
    show({"name": name, "emitted": emitted}, as_json=as_json, text=text)
