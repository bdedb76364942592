"""``absurd session retire|hold|release``: which files stay, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.connection import client_of
from absurd.cli.output import Table, agree, dry_run_options, emit, json_option, plural, size
from absurd.cli.session import TYPES, anywhere, data_option, folder_of
from absurd.cli.spawning import serve_task
from absurd.cli.values import seconds

if TYPE_CHECKING:
    from absurd.tasks.session.retirement import Due


@click.command(epilog="Example: absurd session retire --keep idle=30d --keep experiment=365d --dry-run")
@data_option
@click.option("--keep", "rules", multiple=True, metavar="TYPE=TIME", help="How long a type is kept; repeatable.")
@click.option("--queue", metavar="NAME", help="Queue of the task.  [the executor's]")
@click.option("--here", is_flag=True, help="Run the task to its end in this process.")
@dry_run_options("Only say what would go, and touch nothing.")
@json_option
@click.pass_context
def retire(
    ctx: click.Context,
    data: Path | None,
    rules: tuple[str, ...],
    queue: str | None,
    here: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Let go of files that have been kept long enough.

    Types without a rule are kept for ever.  A file stays that is held, damaged, or other than the database's row and
    checksum tell; what goes is on record in catalog/retired.jsonl.
    """
    from absurd.tasks.session.catalog import known_entries, scan
    from absurd.tasks.session.retirement import find_due

    keep, now, folder = _rules(rules), datetime.now(UTC), folder_of(data).absolute()
    with client_of(ctx) as client:
        stored = client.list_session_files(str(folder))
    found = list(find_due(folder, scan(folder, known_entries(folder)).sessions, keep, stored, now))
    going = [each for each in found if each.kept is None]
    if dry_run or not going:
        told = {"dry_run": dry_run, "files": len(going), "bytes": sum(each.bytes for each in going), "due": found}
        emit(told, as_json=as_json, text=_told(found))
        return
    if not as_json:
        click.echo(_told(found), err=True)
    agree(f"Destroy {plural(len(going), 'session')} for good?", yes=yes, may_ask=not as_json)
    params = {"data_dir": str(folder), "keep_days": keep, "at": now.isoformat(), "limit": len(going)}
    how: dict[str, Any] = {"queue": queue, "here": here, "no_wait": False, "timeout": None, "as_json": as_json}
    result = (serve_task(ctx, "session.retire", params, **how) or {}).get("result") or {}
    emit(result, as_json=as_json, text=f"{plural(result.get('files', 0), 'session')} gone")


@click.command(epilog='Example: absurd session hold observation_m31_20251214_210000_1f0c33a8 --reason "Case 17"')
@click.argument("name", metavar="SESSION")
@click.option("--reason", required=True, metavar="TEXT", help="Why it has to stay.")
@data_option
@json_option
def hold(name: str, reason: str, data: Path | None, as_json: bool) -> None:
    """Have a file stay, whatever is retired.

    The hold lies beside the file, and goes with it wherever it is taken.
    """
    from absurd.tasks.session import holds
    from absurd.tasks.session.listing import find

    path = find(anywhere(data, name), name)
    emit({"path": str(path), **holds.hold(path, reason)}, as_json=as_json, text=f"{path} is held")


@click.command(epilog="Example: absurd session release observation_m31_20251214_210000_1f0c33a8")
@click.argument("name", metavar="SESSION")
@data_option
@json_option
def release(name: str, data: Path | None, as_json: bool) -> None:
    """Hold a file no longer."""
    from absurd.tasks.session import holds
    from absurd.tasks.session.listing import find

    path = find(anywhere(data, name), name)
    was_held = holds.release(path)
    text = f"{path} is held no longer" if was_held else f"{path} was not held"
    emit({"path": str(path), "was_held": was_held}, as_json=as_json, text=text)


def _rules(words: Sequence[str]) -> dict[str, float]:
    """Days by type."""
    made = {}
    for word in words:
        kind, sign, time = word.partition("=")
        if kind not in TYPES or not sign:
            raise click.UsageError(f"{word!r} is no rule; write TYPE=TIME, such as idle=30d, of {', '.join(TYPES)}")
        made[kind] = seconds(time) / 86400
        if made[kind] <= 0:
            raise click.UsageError(f"{word!r} is no rule: the time must be above 0")
    if not made:
        raise click.UsageError("Say how long a type is kept with --keep, such as --keep idle=30d")
    return made


def _told(found: Sequence[Due]) -> str:
    going = [each for each in found if each.kept is None]
    rows = [[each.session_id, f"{each.age_days:.1f}", size(each.bytes), each.kept or "may go"] for each in found]
    table = Table(("session", "days", "size", "fate"), rows, right=("days", "size"), empty="No session is old enough.")
    return f"{table}\n{plural(len(going), 'session')} of {size(sum(each.bytes for each in going))} may go."
