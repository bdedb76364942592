"""``absurd status``: how everything stands, and what to do about what is wrong."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.checks import check_receipts
from absurd.cli.connection import database_of
from absurd.cli.output import clean, emit, in_order, json_option, note, plural, settings_of
from absurd.cli.queue import queue_table, visible
from absurd.cli.schedule_table import schedule_table
from absurd.cli.values import seconds
from absurd.cli.worker import worker_table
from absurd.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from absurd.database_sync import SyncDatabase

SHOWN_SCHEDULES = 8
CLEAR = "\x1b[H\x1b[J"  # cursor home, clear to the end of the screen


@click.command(epilog="Example: absurd status --watch")
@click.option("--watch", is_flag=True, help="Show it again and again until Ctrl-C.")
@click.option("--every", type=seconds, default="2s", show_default=True, help="Pause between two looks of --watch.")
@json_option
@click.pass_context
def status(ctx: click.Context, watch: bool, every: float, as_json: bool) -> None:
    """Show queues and workers, what is wrong, and what to do."""
    home = settings_of(ctx).home
    with database_of(ctx) as database:
        try:
            while True:
                try:
                    show(look(database, home), database.address, watch=watch, as_json=as_json)
                except DatabaseUnavailableError as error:
                    if not watch:
                        raise
                    note(error.message)  # it may come back
                if not watch:
                    return
                time.sleep(max(0.1, every))
        except KeyboardInterrupt:
            if not watch:  # of a watch it is the way to leave, whatever that is at
                raise


def look(database: SyncDatabase, home: Path) -> dict[str, Any]:
    """The document of the whole, with what waits on this machine to be recorded."""
    from absurd.inspection import get_status

    document = in_order(database.run(get_status()), "queues", "workers", "schedules", "problems")
    document["queues"] = visible(document["queues"])
    document["problems"] += [
        {"code": "receipts_waiting", "message": each.message, "action": each.action}
        for each in check_receipts(home, database)
        if each.level == "warn"
    ]
    return document


def show(document: dict[str, Any], where: str, *, watch: bool, as_json: bool) -> None:
    """Print the document; with `watch` on a terminal in place of the one before."""
    if watch and not as_json and sys.stdout.isatty():
        click.echo(CLEAR, nl=False)
    emit(document, as_json=as_json, text="" if as_json else describe(document, where))


def describe(document: dict[str, Any], where: str) -> str:
    """The whole as text for one screen."""
    letters = document.get("dead_letters", 0)
    parts = [
        headline(document, where),
        f"{title('Queues')}\n{queue_table(document['queues'])}",
        f"{title('Workers')}\n{worker_table(document['workers'])}",
    ]
    if active := [each for each in document["schedules"] if each["state"] == "active"]:
        parts.append(f"{title('Schedules')}\n{schedule_table(active[:SHOWN_SCHEDULES])}")
        if more := len(active) - SHOWN_SCHEDULES:
            parts[-1] += f"\n… and {more} more: absurd schedule list" if more > 0 else ""
    if letters:
        parts.append(f"{title('Dead letters')}\n{plural(letters, 'task')} failed for good.")
    parts.append(problems(document["problems"]))
    return "\n\n".join(parts)


def headline(document: dict[str, Any], where: str) -> str:
    """One line that says whether to read on."""
    alive = [each for each in document["workers"] if each["state"] in ("running", "stopping")]
    waiting = sum(each["pending"] for each in document["queues"])
    running = sum(each["running"] for each in document["queues"])
    counts = f"{plural(running, 'task')} running, {waiting:,} pending, {plural(len(alive), 'worker')} alive"
    return f"{click.style('absurd', bold=True)} at {clean(where)}: {counts}"


def problems(found: list[dict[str, Any]]) -> str:
    """Each problem with the way out below it."""
    if not found:
        return click.style("Nothing is wrong.", fg="green")
    lines = [title("Problems")]
    for each in found:
        lines.append(f"{click.style('!', fg='yellow', bold=True)} {clean(each['message'])}")
        lines.append(f"  {click.style('→', dim=True)} {clean(each['action'])}")
    return "\n".join(lines)


def title(text: str) -> str:
    """The heading of a section."""
    return click.style(text, bold=True)
