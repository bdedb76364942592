"""``absurd session tail``: what is told to sessions, as it is told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.output import clean, json_option, to_json
from absurd.cli.session import data_option, existing_folder_of

if TYPE_CHECKING:
    from absurd.tasks.session.following import Told

PAUSE = 0.2
"""Seconds after which a journal is looked at again."""


@click.command(epilog="Example: absurd session tail --follow --data telescope/")
@data_option
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, also of the sessions after, until Ctrl-C.")
@click.option("--last", "-n", type=click.IntRange(min=0), default=10, help="Entries that were told before.  [10]")
@click.option("--all", "all_", is_flag=True, help="Telemetry, frames and the rest too, not only logs and events.")
@json_option
def tail(data: Path | None, follow: bool, last: int, all_: bool, as_json: bool) -> None:
    """Print what was told to the active session last.

    It is read from the journal: that needs no database, and disturbs nobody.  With --json an object in each line.
    """
    from absurd.tasks.session.following import follow as entries

    def wait() -> bool:
        time.sleep(PAUSE)
        return True

    for each in entries(existing_folder_of(data), last=last, wait=wait if follow else None):
        if all_ or each.kind in {"log", "event", "start", "end"}:
            click.echo(to_json(_document(each), indent=None) if as_json else _line(each))


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
