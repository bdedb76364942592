"""``absurd session list|show|open|verify``: what files of sessions tell and hold."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.output import Cell, Table, clean, duration, emit, json_option, moment, size, to_json
from absurd.cli.session import TYPES, anywhere, data_option, existing_folder_of

if TYPE_CHECKING:
    from absurd.tasks.session.listing import Summary


@click.command("list", epilog="Example: absurd session list --data telescope/ --type observation")
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
        for each in summaries(existing_folder_of(data))
        if session_type is None or each.meta.get("session_type") == session_type
    )
    rows = list(islice(found, limit))
    headers = ("session", "state", "start", "lasted", "frames", "errors", "target")
    table = Table(headers, map(_row, rows), right=("frames", "errors"), shrink="target", empty="No sessions.")
    emit([asdict(each) for each in rows], as_json=as_json, text=table)


@click.command(epilog="Example: absurd session show observation_m31_20251214_210000_1f0c33a8 --data telescope/")
@click.argument("name", metavar="SESSION")
@data_option
@json_option
def show(name: str, data: Path | None, as_json: bool) -> None:
    """Show what a session was, and what its file counts.

    SESSION is its name or the path of its file.
    """
    from absurd.tasks.session.listing import find, summary

    found = summary(find(anywhere(data, name), name))
    facts = {**found.meta, **found.metrics, "path": found.path, "size": size(Path(found.path).stat().st_size)}
    lines = [f"{key:<24}  {clean(_shown(value))}" for key, value in facts.items()]
    emit(asdict(found), as_json=as_json, text="\n".join(lines))


@click.command(
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

    path = find(anywhere(data, name), name)
    with path.open("rb") as file:
        found = (each for each in items(Head(file)) if tuple(map(str, each[0][: len(part)])) == part)
        if as_json:
            emit([{"at": list(at), "value": value} for at, value in found], as_json=True)
            return
        for at, value in found:
            click.echo(f"{'.'.join(map(str, at))}: {to_json(value, indent=None)}")


@click.command(epilog="Example: absurd session verify --data telescope/")
@click.argument("names", nargs=-1, metavar="[SESSION]...")
@data_option
@json_option
def verify(names: tuple[str, ...], data: Path | None, as_json: bool) -> None:
    """Read files through, and say whether each is whole.

    Without names all of the folder.  The masters that they refer to are looked at too.  Exits with 1 if one is not.
    """
    from absurd.tasks.session.errors import SessionDamagedError
    from absurd.tasks.session.listing import DAY, find
    from absurd.tasks.session.masters import changed_masters
    from absurd.tasks.session.verification import verify as verify_file

    paths = [find(anywhere(data, name), name) for name in names]
    if not names:
        paths = sorted(existing_folder_of(data).glob(f"{DAY}/*.asdf"))
    rows = []
    for path in paths:
        try:
            found = verify_file(path)
        except SessionDamagedError as error:
            rows.append({"path": str(path), "ok": False, "reason": error.message})
            continue
        if reasons := changed_masters(path.absolute().parents[3], path):
            rows.append({"path": str(path), "ok": False, "reason": "; ".join(reasons)})
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
