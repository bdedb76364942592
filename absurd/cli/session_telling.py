"""``absurd session start|log|end``: a session over several commands."""

from __future__ import annotations

from pathlib import Path

import click

from absurd.cli.connection import client_of
from absurd.cli.output import emit, json_option
from absurd.cli.session import TYPES, data_option, manager_of
from absurd.cli.values import pairs


@click.command(epilog="Example: absurd session start observation --target M31 --data telescope/ observer=Ada")
@click.argument("session_type", metavar="TYPE", type=click.Choice(TYPES))
@click.argument("fields", nargs=-1, metavar="[KEY=VALUE]...")
@data_option
@click.option("--target", metavar="NAME", help="What is looked at.")
@click.option("--purpose", metavar="TEXT", help="What it is for.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="How long it is planned to last, minutes.")
@json_option
def start(
    session_type: str,
    fields: tuple[str, ...],
    data: Path | None,
    target: str | None,
    purpose: str | None,
    minutes: float | None,
    as_json: bool,
) -> None:
    """Begin a session of TYPE; the one that is active ends.

    Types are observation, alignment, experiment, maintenance and idle.  Further fields are kept with it.
    """
    given = pairs(fields, "a field")
    with manager_of(data) as manager:
        begun = manager.start_session(
            session_type, target=target, purpose=purpose, planned_duration_minutes=minutes, **given
        )
    document = {"session_id": begun.id, "path": str(begun.path)}
    emit(document, as_json=as_json, text=f"Session {begun.id}")


@click.command(epilog='Example: absurd session log INFO "Clouds from the west" cover=0.3 --data telescope/')
@click.argument("level")
@click.argument("message")
@click.argument("context", nargs=-1, metavar="[KEY=VALUE]...")
@data_option
@click.option("--source", metavar="NAME", help="Who tells it.")
@json_option
def log(
    level: str, message: str, context: tuple[str, ...], data: Path | None, source: str | None, as_json: bool
) -> None:
    """Write a line into the log of the active session.

    That is an idle one if none was begun.
    """
    given = pairs(context, "a value of the context")
    with manager_of(data) as manager:
        manager.log(level, message, source=source, **given)
        told = {"session_id": manager.active.id}
    emit(told, as_json=as_json)


@click.command(epilog="Example: absurd session end --data telescope/")
@data_option
@click.option("--spawn", is_flag=True, help="Have a worker write the file, as task session.seal.")
@click.option("--wait/--no-wait", default=True, help="Wait for the file.  [--wait]")
@json_option
@click.pass_context
def end(ctx: click.Context, data: Path | None, spawn: bool, wait: bool, as_json: bool) -> None:
    """End the active session and write its file."""
    if spawn:
        with client_of(ctx) as client, manager_of(data, client) as manager:
            path = manager.end_session(wait=wait)
    else:
        with manager_of(data) as manager:
            path = manager.end_session(wait=wait)
    emit({"session_id": path.stem, "path": str(path)}, as_json=as_json, text=path)
