"""``absurd session query|rebuild-catalog``: the catalogue of a data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from absurd.cli.output import Table, clean, emit, json_option, note, plural
from absurd.cli.session import data_option, folder_of
from absurd.cli.spawning import serve_task

SHOWN = ("session_id", "start_time", "target", "frames_captured", "error_count", "warning_count", "path")


@click.command("rebuild-catalog", epilog="Example: absurd session rebuild-catalog --data telescope/ --sqlite")
@data_option
@click.option("--full", is_flag=True, help="Read all files again, also those that are as they were.")
@click.option("--sqlite", is_flag=True, help="Write catalog/catalog.sqlite too.")
@click.option("--checksums", is_flag=True, help="With --spawn: read files through that nobody has read yet.")
@click.option("--spawn", is_flag=True, help="Have a worker do it, as task session.catalog: that tells the database.")
@json_option
@click.pass_context
def rebuild_catalog(
    ctx: click.Context, data: Path | None, full: bool, sqlite: bool, checksums: bool, spawn: bool, as_json: bool
) -> None:
    """Bring catalog/catalog.parquet up to date.

    It is derived from the heads of the files, and made again from them whatever becomes of it.  Files that are damaged
    or foreign are named, and hide no other.
    """
    folder = folder_of(data)
    if spawn:
        params = {"data_dir": str(folder.absolute()), "full": full, "sqlite": sqlite, "checksums": checksums}
        task = serve_task(
            ctx, "session.catalog", params, queue=None, here=False, no_wait=False, timeout=None, as_json=as_json
        )
        result = (task or {}).get("result") or {}
        emit(result, as_json=as_json, text=_told(result))
        return
    if checksums:
        raise click.UsageError("Checksums are the database's: --checksums needs --spawn")
    from absurd.tasks.session import catalog

    made = catalog.rebuild(folder, full=full)
    if sqlite:
        catalog.write_sqlite(made, made.data_dir / catalog.SQLITE)
    result = {"path": str(made.data_dir / catalog.PARQUET), **made.counts(), "read": made.read}
    emit(result, as_json=as_json, text=_told(result))
    if not as_json:
        for each in made.problems:
            note(f"{each.path}: {each.state}, {clean(each.reason)}")


@click.command(
    epilog="Example: absurd session query \"target LIKE 'M%' ORDER BY start_time DESC LIMIT 10\" --data telescope/"
)
@click.argument("sql", metavar="SQL", default="")
@data_option
@click.option("--sqlite", is_flag=True, help="Ask the SQLite index, in its dialect.")
@click.option("--columns", metavar="A,B,…", help="Columns that are printed, of a condition.")
@json_option
def query(sql: str, data: Path | None, sqlite: bool, columns: str | None, as_json: bool) -> None:
    """Ask the catalogue in SQL.

    SQL is a condition on its rows, or a whole statement on the table sessions.  DuckDB answers.  Nothing can be
    changed, and no other file be read.  `absurd session rebuild-catalog` comes first.
    """
    from absurd.tasks.session.query import query as ask

    found = ask(folder_of(data), sql, sqlite=sqlite)
    if as_json:
        emit([dict(zip(found.columns, row, strict=True)) for row in found.rows], as_json=True)
        return
    names = columns.split(",") if columns else list(SHOWN) if set(SHOWN) <= set(found.columns) else found.columns
    if unknown := [each for each in names if each not in found.columns]:
        raise click.UsageError(f"There is no column {unknown[0]}; there are {', '.join(found.columns)}")
    places = [found.columns.index(each) for each in names]
    rows = [[_shown(row[at]) for at in places] for row in found.rows]
    emit(None, as_json=False, text=Table(names, rows, empty="No sessions."))


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    return value.strftime("%Y-%m-%d %H:%M:%S") if hasattr(value, "strftime") else clean(value)


def _told(result: dict[str, Any]) -> str:
    others = [f"{result[state]} {state}" for state in ("damaged", "foreign", "duplicate") if result.get(state)]
    told = f"{plural(result.get('sealed', 0), 'session')} in {result.get('path')}, {result.get('read', 0)} read"
    return ", ".join([told, *others])
