"""``absurd schedule apply``: schedules as a file says, all at once or none."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.catalog import load_here, with_modules
from absurd.cli.connection import database_of
from absurd.cli.output import agree, clean, dry_run_options, emit, import_option, json_option, plural, settings_of
from absurd.duration import seconds
from absurd.errors import InvalidInputError, InvalidOptionError

if TYPE_CHECKING:
    from absurd.scheduler.schedules import ScheduleMethods

MARKS = {"created": "+", "changed": "~", "unchanged": " ", "removed": "-"}
COLOURS = {"created": "green", "changed": "yellow", "removed": "red"}
SPANS = ("grace", "look_back", "jitter")
KNOWN = {
    *(
        "trigger",
        "executor",
        "params",
        "queue",
        "options",
        "zone",
        "site",
        "misfire",
        "overlap",
        "starts_at",
        "ends_at",
    ),
    *("paused", *SPANS),
}


@click.command(epilog="Example: absurd schedule apply schedules.toml --dry-run")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--remove-others", is_flag=True, help="Remove the schedules that the file does not name.")
@dry_run_options("Only show what would change.")
@import_option
@json_option
@click.pass_context
def apply(
    ctx: click.Context,
    file: Path,
    remove_others: bool,
    dry_run: bool,
    yes: bool,
    modules: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make schedules as the TOML file FILE says: a table [schedules.NAME] for each.

    \b
    [schedules.nightly]
    trigger = "30 3 * * *"
    zone = "America/Los_Angeles"
    executor = "export.query"
    params = {sql = "select 1 as n", out = "night.parquet"}
    overlap = "skip"
    """  # noqa: D301 - click's mark for lines that stay as they are
    from absurd.scheduler.schedules_sync import Waiting, done

    wanted = read_file(file)
    load_here(with_modules(settings_of(ctx), modules))
    with database_of(ctx) as database:
        before = {each["name"]: each for each in done(Waiting(database).list_schedules())}
        others = sorted(set(before) - set(wanted)) if remove_others else []
        if others and not dry_run:
            agree(f"Remove {plural(len(others), 'schedule')}: {', '.join(others)}?", yes=yes, may_ask=not as_json)
        with database.transaction() as session:
            methods = Waiting(session)
            # In one order, so that two who apply files at once wait for each other and do not lock each other out.
            found = [
                _set(methods, name, before.get(name), dict(each), dry_run) for name, each in sorted(wanted.items())
            ]
            for name in others:
                if not dry_run:
                    done(methods.remove_schedule(name))
                found.append({"name": name, "change": "removed", "fields": {}})
    emit(found, as_json=as_json, text="\n".join(_line(each) for each in found) or "The file names no schedule.")


def read_file(file: Path) -> dict[str, dict[str, Any]]:
    """The schedules of a file, by name.  Raises InvalidOptionError for what is none."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidOptionError(f"{file} cannot be read: {error}", option="file") from None
    unknown = set(document) - {"schedules"}
    tables = document.get("schedules", {})
    if unknown or not isinstance(tables, dict) or not all(isinstance(each, dict) for each in tables.values()):
        raise InvalidOptionError(f"{file} must hold tables [schedules.NAME] and nothing else", option="file")
    for name, each in tables.items():
        for lacking in sorted({"trigger", "executor"} - set(each)):
            raise InvalidOptionError(f"schedule {name} in {file} lacks its {lacking}", option=lacking)
        with _naming(name):
            # Said here, where the parameters of a method would be taken for options too.
            if unknown := set(each) - KNOWN:
                raise InvalidOptionError(
                    f"unknown {', '.join(sorted(unknown))}; known are {', '.join(sorted(KNOWN))}", option="schedule"
                )
            for span in SPANS:
                if isinstance(each.get(span), str):
                    each[span] = seconds(each[span])
    return tables


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """What is wrong is said of the schedule: a file has many."""
    try:
        yield
    except InvalidInputError as error:
        raise type(error)(f"schedule {name}: {error.message}", **error.details) from None


def _set(
    methods: ScheduleMethods, name: str, before: dict[str, Any] | None, wanted: dict[str, Any], dry_run: bool
) -> dict[str, Any]:
    from absurd.scheduler.schedules import describe
    from absurd.scheduler.schedules_sync import done

    trigger, executor, params = wanted.pop("trigger"), wanted.pop("executor"), wanted.pop("params", None)
    if (queue := wanted.pop("queue", None)) is not None and isinstance(wanted.get("options", {}), dict):
        wanted["options"] = wanted.get("options", {}) | {"queue": queue}
    with _naming(name):
        change = done(methods.set_schedule(name, trigger, executor, params, dry_run=dry_run, **wanted))
    fields = {}
    if change == "changed" and before is not None:
        after = describe(trigger, executor, params, wanted)  # type: ignore[arg-type]
        fields = {key: [before.get(key), value] for key, value in after.items() if _differs(key, before, value)}
    return {"name": name, "change": change, "fields": fields}


_DEFAULTS = {"zone": "UTC", "misfire": "once", "overlap": "allow", "grace": 60, "look_back": 86400, "jitter": 0}


def _differs(key: str, before: dict[str, Any], value: Any) -> bool:
    if key == "paused":
        return bool(value != (before["state"] == "paused"))
    if key in ("starts_at", "ends_at") and value and before[key]:
        return datetime.fromisoformat(value) != datetime.fromisoformat(before[key])
    return bool(before[key] != (_DEFAULTS.get(key) if value is None else value))


def _line(each: dict[str, Any]) -> str:
    parts = [f"{name}: {_shown(old)} → {_shown(new)}" for name, (old, new) in each["fields"].items()]
    text = f"{MARKS[each['change']]} {each['name']}" + (f"  {'; '.join(parts)}" if parts else "")
    return click.style(text, fg=COLOURS.get(each["change"]))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else clean(value)
