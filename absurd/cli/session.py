"""``absurd session``: begin, tell and end sessions by hand, and look at their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from absurd.cli.connection import client_of
from absurd.cli.output import Cell, Table, clean, duration, emit, json_option, moment, settings_of, size, to_json
from absurd.cli.values import pairs

if TYPE_CHECKING:
    from absurd.tasks.session.listing import Summary
    from absurd.tasks.session.manager import SessionManager

Command = TypeVar("Command", bound=Callable[..., Any])

TYPES = ("observation", "alignment", "experiment", "maintenance", "idle")


@click.group()
def session() -> None:
    """Sessions: every moment of a telescope belongs to one, and each becomes one ASDF file.

    A session that is begun here stays open until `absurd session end`; a program that has the folder meanwhile goes
    on with it.
    """


def data_option(command: Command) -> Command:
    """Give `command` the option for the data folder, passed as `data`."""
    text = "Data folder.  [ABSURD_SESSION_FOLDER]"
    return click.option("--data", type=click.Path(path_type=Path), metavar="FOLDER", help=text)(command)


@session.command(epilog="Example: absurd session start observation --target M31 --data telescope/ observer=Ada")
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
    with _manager(data) as manager:
        begun = manager.start_session(
            session_type, target=target, purpose=purpose, planned_duration_minutes=minutes, **given
        )
    document = {"session_id": begun.id, "path": str(begun.path)}
    emit(document, as_json=as_json, text=f"Session {begun.id}")


@session.command(epilog='Example: absurd session log INFO "Clouds from the west" cover=0.3 --data telescope/')
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
    with _manager(data) as manager:
        manager.log(level, message, source=source, **given)
        told = {"session_id": manager.active.id}
    emit(told, as_json=as_json)


@session.command(epilog="Example: absurd session end --data telescope/")
@data_option
@click.option("--spawn", is_flag=True, help="Have a worker write the file, as task session.seal.")
@click.option("--wait/--no-wait", default=True, help="Wait for the file.  [--wait]")
@json_option
@click.pass_context
def end(ctx: click.Context, data: Path | None, spawn: bool, wait: bool, as_json: bool) -> None:
    """End the active session and write its file."""
    if spawn:
        with client_of(ctx) as client, _manager(data, client) as manager:
            path = manager.end_session(wait=wait)
    else:
        with _manager(data) as manager:
            path = manager.end_session(wait=wait)
    emit({"session_id": path.stem, "path": str(path)}, as_json=as_json, text=path)


@session.command("list", epilog="Example: absurd session list --data telescope/ --type observation")
@data_option
@click.option("--type", "session_type", type=click.Choice(TYPES), help="Sessions of one type.")
@click.option("--limit", type=click.IntRange(min=1), default=50, help="How many at most, newest first.  [50]")
@json_option
def list_(data: Path | None, session_type: str | None, limit: int, as_json: bool) -> None:
    """List sessions, newest first.

    Files that are damaged, or no session's, are among them.
    """
    from absurd.tasks.session.listing import summaries

    found = (
        each
        for each in summaries(_folder(data))
        if session_type is None or each.meta.get("session_type") == session_type
    )
    rows = list(islice(found, limit))
    headers = ("session", "state", "start", "lasted", "frames", "errors", "target")
    table = Table(headers, map(_row, rows), right=("frames", "errors"), shrink="target", empty="No sessions.")
    emit([asdict(each) for each in rows], as_json=as_json, text=table)


@session.command(epilog="Example: absurd session show observation_m31_20251214_210000_1f0c33a8 --data telescope/")
@click.argument("name", metavar="SESSION")
@data_option
@json_option
def show(name: str, data: Path | None, as_json: bool) -> None:
    """Show what a session was, and what its file counts.

    SESSION is its name or the path of its file.
    """
    from absurd.tasks.session.listing import find, summary

    found = summary(find(_anywhere(data, name), name))
    facts = {**found.meta, **found.metrics, "path": found.path, "size": size(Path(found.path).stat().st_size)}
    lines = [f"{key:<24}  {clean(_shown(value))}" for key, value in facts.items()]
    emit(asdict(found), as_json=as_json, text="\n".join(lines))


@session.command(
    "open", epilog="Example: absurd session open 2025/12/14/idle_20251214_180000_1f0c33a8.asdf observability logs"
)
@click.argument("name", metavar="SESSION")
@click.argument("part", nargs=-1, metavar="[KEY]...")
@data_option
@json_option
def open_(name: str, part: tuple[str, ...], data: Path | None, as_json: bool) -> None:
    """Print what a session's file holds, line by line.

    With keys only the part to which they lead.  In Python: `asdf.open(path)`.
    """
    from absurd.tasks.session.listing import find
    from absurd.tasks.session.reading import Head, items

    path = find(_anywhere(data, name), name)
    with path.open("rb") as file:
        found = (each for each in items(Head(file)) if tuple(map(str, each[0][: len(part)])) == part)
        if as_json:
            emit([{"at": list(at), "value": value} for at, value in found], as_json=True)
            return
        for at, value in found:
            click.echo(f"{'.'.join(map(str, at))}: {to_json(value, indent=None)}")


@session.command(epilog="Example: absurd session verify --data telescope/")
@click.argument("names", nargs=-1, metavar="[SESSION]...")
@data_option
@json_option
def verify(names: tuple[str, ...], data: Path | None, as_json: bool) -> None:
    """Read files through, and say whether each is whole.

    Without names all of the folder.  Exits with 1 if one is not.
    """
    from absurd.tasks.session.errors import SessionDamagedError
    from absurd.tasks.session.listing import DAY, find
    from absurd.tasks.session.verification import verify as verify_file

    paths = (
        [find(_anywhere(data, name), name) for name in names] if names else sorted(_folder(data).glob(f"{DAY}/*.asdf"))
    )
    rows = []
    for path in paths:
        try:
            found = verify_file(path)
        except SessionDamagedError as error:
            rows.append({"path": str(path), "ok": False, "reason": error.message})
        else:
            rows.append({"path": str(path), "ok": True, "sha256": found.sha256, "bytes": found.bytes})
    table = Table(
        ("state", "file", "reason"),
        [(Cell(word, word), each["path"], each.get("reason")) for each in rows for word in [_verdict(each)]],
        empty="No files.",
    )
    emit(rows, as_json=as_json, text=table)
    if not all(each["ok"] for each in rows):
        raise click.exceptions.Exit(1)


def _folder(data: Path | None) -> Path:
    """The data folder of this call."""
    folder = data or settings_of(click.get_current_context()).session_folder
    if folder is None:
        raise click.UsageError("Name the data folder with --data, or set ABSURD_SESSION_FOLDER")
    return folder


def _anywhere(data: Path | None, name: str) -> Path:
    """The data folder, which a path of a file can do without."""
    return Path() if name.endswith(".asdf") else _folder(data)


@contextmanager
def _manager(data: Path | None, client: Any = None) -> Iterator[SessionManager]:
    """A manager that goes on with what the last one left, and leaves it to the next."""
    from absurd.tasks.session.manager import SessionManager

    manager = SessionManager(_folder(data), client)
    try:
        yield manager
    finally:
        manager.leave()


def _row(each: Summary) -> tuple[Any, ...]:
    meta, metrics = each.meta, each.metrics
    state = "recovered" if meta.get("recovered") else each.state
    return (
        each.session_id,
        state,
        moment(meta.get("start_time")),
        duration(metrics.get("duration_seconds")),
        metrics.get("frames_captured"),
        metrics.get("errors"),
        meta.get("target") or each.reason,
    )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value, indent=None)


def _verdict(row: dict[str, Any]) -> str:
    return "ok" if row["ok"] else "fail"
