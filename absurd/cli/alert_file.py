"""``absurd alert apply``: alerts as a file says, all at once or none."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from absurd import duration
from absurd.cli.connection import database_of
from absurd.cli.output import agree, dry_run_options, emit, json_option, plural
from absurd.cli.schedule_file import COLOURS, MARKS
from absurd.cli.values import read_amount
from absurd.errors import InvalidInputError, InvalidOptionError


@click.command(epilog="Example: absurd alert apply alerts.toml --dry-run")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--remove-others", is_flag=True, help="Remove the alerts that the file does not name.")
@dry_run_options("Only say what each would see now, and what would go.")
@json_option
@click.pass_context
def apply(ctx: click.Context, file: Path, remove_others: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Make alerts as the TOML file FILE says: a table [alerts.NAME] for each.

    \b
    [alerts.backlog]
    measure = "queue_age"
    threshold = "1h"
    queue = "default"
    for = "5m"
    targets = ["oncall"]
    """  # noqa: D301 - click's mark for lines that stay as they are
    from absurd.alerts import list_alerts, measure_alert, remove_alert, set_alert

    wanted = read_file(file)
    found: list[dict[str, Any]] = []
    with database_of(ctx) as database:
        before = {each["name"] for each in database.run(list_alerts())}
        others = sorted(before - set(wanted)) if remove_others else []
        if others and not dry_run:
            agree(f"Remove {plural(len(others), 'alert')}: {', '.join(others)}?", yes=yes, may_ask=not as_json)
        with database.transaction() as session:
            # In one order, so that two who apply files at once wait for each other and do not lock each other out.
            for name, rule in sorted(wanted.items()):
                try:
                    if dry_run:
                        found.append({"name": name} | session.run(measure_alert(name, rule)))
                    else:
                        found.append({"name": name, "change": session.run(set_alert(name, rule))})
                except InvalidInputError as error:
                    raise type(error)(f"alert {name}: {error.message}", **error.details) from None
            for name in others:
                if not dry_run:
                    session.run(remove_alert(name))
                found.append({"name": name, "change": "removed"})
    emit(found, as_json=as_json, text="\n".join(_line(each) for each in found) or "The file names no alert.")


def read_file(file: Path) -> dict[str, dict[str, Any]]:
    """The alerts of a file, by name.  Raises InvalidOptionError for what is none."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidOptionError(f"{file} cannot be read: {error}", option="file") from None
    tables = document.get("alerts", {})
    if set(document) - {"alerts"} or not isinstance(tables, dict) or not all(map(_is_table, tables.values())):
        raise InvalidOptionError(f"{file} must hold tables [alerts.NAME] and nothing else", option="file")
    for each in tables.values():
        for key, read in (("threshold", read_amount), ("for", duration.seconds), ("window", duration.seconds)):
            if isinstance(each.get(key), str):
                each[key] = read(each[key])
    return tables


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _line(each: dict[str, Any]) -> str:
    if "change" not in each:
        return f"{'!' if each['breached'] else ' '} {each['name']}  {each['message']}"
    return click.style(f"{MARKS[each['change']]} {each['name']}", fg=COLOURS.get(each["change"]))
