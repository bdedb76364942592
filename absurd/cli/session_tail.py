"""``absurd session tail``: what is told to sessions, as it is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.connection import client_of
from absurd.cli.output import clean, json_option, note, to_json
from absurd.cli.session import data_option, existing_folder_of

if TYPE_CHECKING:
    from absurd.feed import Heard
    from absurd.tasks.session.following import Told

PAUSE = 0.2
"""Seconds after which a journal is looked at again."""


@click.command(epilog="Example: absurd session tail --follow --data telescope/")
@data_option
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, also of the sessions after, until Ctrl-C.")
@click.option("--last", "-n", type=click.IntRange(min=0), default=10, help="Entries that were told before.  [10]")
@click.option("--all", "all_", is_flag=True, help="Telemetry, frames and the rest too, not only logs and events.")
@click.option("--live", is_flag=True, help="Follow the logs and events of all sessions in the database, until Ctrl-C.")
@json_option
@click.pass_context
def tail(ctx: click.Context, data: Path | None, follow: bool, last: int, all_: bool, live: bool, as_json: bool) -> None:
    """Print what was told to the active session last.

    It is read from the journal: that needs no database, and disturbs nobody.  With --live it comes from the database
    instead, as sessions on any machine tell it that have a client.  With --json an object in each line.
    """
    if live:
        told = _heard(ctx)
    else:
        from absurd.tasks.session.following import follow as entries

        told = entries(existing_folder_of(data), last=last, wait=_wait if follow else None)
    with suppress(KeyboardInterrupt):  # as which who follows ends it
        for each in told:
            if all_ or each.kind in {"log", "event", "start", "end"}:
                click.echo(to_json(_document(each), indent=None) if as_json else _line(each))


def _wait() -> bool:
    time.sleep(PAUSE)
    return True


def _heard(ctx: click.Context) -> Iterator[Told]:
    """What sessions tell in the database; what of it is missing is said beside."""
    from absurd.feed import follow_sessions
    from absurd.tasks.session.following import Told

    with client_of(ctx) as client:
        for heard in follow_sessions(client.run, _wait):
            if heard is None or heard.missed:
                note("Some entries are missing here." if heard is None else _missing(heard))
            if heard is not None:
                yield from (Told(session_id=heard.session_id, **each) for each in heard.entries)


def _missing(heard: Heard) -> str:
    return f"{heard.missed:,} entries of {heard.session_id} are missing here; its journal has them."


def _document(told: Told) -> dict[str, Any]:
    return {"session_id": told.session_id, "kind": told.kind, "number": told.number, "time": told.time} | {
        "value": told.value
    }


def _line(told: Told) -> str:
    value = told.value
    if told.kind == "log":
        context = f"  {to_json(value['context'], indent=None)}" if value["context"] else ""
        return clean(f"{told.time}  {value['level']:<8} {value['message']}{context}")
    if told.kind == "event":
        return clean(f"{told.time}  EVENT    {value['event']}  {to_json(value['details'], indent=None)}")
    shown = told.session_id if told.kind in {"start", "end"} else to_json(value, indent=None)
    return clean(f"{told.time}  {told.kind.upper():<8} {shown}")
