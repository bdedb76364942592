"""``absurd dlq``: look at dead letters, put them back, forget them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from absurd.cli.connection import database_of
from absurd.cli.output import Table, agree, clean, dry_run_options, emit, json_option, moment, note, plural
from absurd.cli.values import instant, pairs, read_document
from absurd.cli.worker import ago
from absurd.redaction import discreet

Command = TypeVar("Command", bound=Callable[..., Any])

FILTERS = ("queue", "name", "fingerprint", "code", "since", "until", "text")
PAGE = 1000
PURGED = 10_000
"""Most dead letters that one call forgets."""


def filters(command: Command) -> Command:
    """Give `command` the options that choose dead letters."""
    for option in (
        click.option("--text", help="Only those with this in the error's message or the params."),
        click.option("--until", type=instant, metavar="TIME", help="Only those that died before this time."),
        click.option("--since", type=instant, metavar="TIME", help="Only those that died at this time or later."),
        click.option("--code", help="Only those with this error code, such as poison or worker_lost."),
        click.option("--fingerprint", help="Only those whose failures look alike."),
        click.option("--name", "-n", help="Only those of this executor."),
        click.option("--queue", "-q", help="Only those of this queue."),
    ):
        command = option(command)
    return command


def chosen(given: dict[str, Any], ids: tuple[str, ...] = ()) -> dict[str, Any]:
    """The filters that were given."""
    found = {name: given[name] for name in FILTERS if given[name] is not None}
    return found | ({"ids": list(ids)} if ids else {})


@click.group()
def dlq() -> None:
    """List, show, requeue and purge dead letters: tasks whose attempts are spent."""


@dlq.command("list", epilog="Example: absurd dlq list --queue cutouts --since 2027-01-31T18:00Z")
@filters
@click.option("--ungrouped", is_flag=True, help="One line for each task instead of each fingerprint.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many lines at most.")
@click.option("--after", metavar="ID", help="With --ungrouped: go on below this task.")
@json_option
@click.pass_context
def list_(ctx: click.Context, /, ungrouped: bool, limit: int, after: str | None, as_json: bool, **given: Any) -> None:
    """Show dead letters, those that look alike in one line."""
    from absurd.dead_letters import group_dead_letters, list_dead_letters

    if after and not ungrouped:
        raise click.UsageError("--after goes with --ungrouped")
    with database_of(ctx) as database:
        if ungrouped:
            found = database.run(list_dead_letters(after=after, limit=limit, **chosen(given)))
        else:
            found = database.run(group_dead_letters(limit=limit, **chosen(given)))
    emit(found, as_json=as_json, text=letter_table(found) if ungrouped else group_table(found))
    if ungrouped and len(found) == limit and not as_json:
        note(f"There may be more: go on with --after {found[-1]['id']}")


def letter_table(letters: list[dict[str, Any]]) -> Table:
    """One line for each dead letter."""
    rows = [
        (
            each["id"],
            each["name"],
            each["queue"],
            each["attempts"],
            ago(each["died_at"]),
            each["fingerprint"],
            told(each),
        )
        for each in letters
    ]
    headers = ("task", "executor", "queue", "attempts", "died", "fingerprint", "error")
    return Table(headers, rows, right=("attempts",), shrink="error", empty="There are no such dead letters.")


def group_table(groups: list[dict[str, Any]]) -> Table:
    """One line for each fingerprint."""
    rows = [
        (
            each["fingerprint"],
            each["count"],
            each["name"],
            each["queue"] + (f" +{each['queues'] - 1}" if each["queues"] > 1 else ""),
            ago(each["first"]),
            ago(each["last"]),
            each["sample"],
            f"{each['type'] or each['code']}: {each['message']}",
        )
        for each in groups
    ]
    headers = ("fingerprint", "tasks", "executor", "queue", "first", "last", "newest task", "error")
    return Table(headers, rows, right=("tasks",), shrink="error", empty="There are no such dead letters.")


def told(letter: dict[str, Any]) -> str:
    """The error of a dead letter in a line."""
    error = letter["error"] or {}
    return f"{error.get('type') or error.get('code') or 'error'}: {error.get('message', '')}"


@dlq.command(epilog="Example: absurd dlq show 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e")
@click.argument("task_id", metavar="ID")
@click.option("--reveal", is_flag=True, help="Show the values of params that are hidden for their names.")
@json_option
@click.pass_context
def show(ctx: click.Context, task_id: str, reveal: bool, as_json: bool) -> None:
    """Show all about a dead letter: params, error, where it ran, and its runs."""
    from absurd.cli.story import brief, fault, traceback
    from absurd.dead_letters import get_dead_letter

    with database_of(ctx) as database:
        letter = database.run(get_dead_letter(task_id))
    letter = letter if reveal else discreet(letter)
    facts = {
        "queue": letter["queue"],
        "died": moment(letter["died_at"]),
        "spawned": moment(letter["created_at"]),
        "attempts": letter["attempts"],
        "fingerprint": letter["fingerprint"],
        "host": letter["host"],
        "versions": brief(letter["versions"]) if letter["versions"] else "",
        "tags": ", ".join(letter["tags"]),
        "key": letter["key"],
        "params": brief(letter["params"]),
        "error": told(letter),
        "kept": "" if letter["kept"] else "no: a requeue makes the task again from this copy",
    }
    lines = [f"  {name:<11} {clean(value)}" for name, value in facts.items() if value]
    runs = [
        (
            each["attempt"],
            each["state"],
            each["worker"],
            moment(each["finished_at"]),
            fault(each["error"]) if each["error"] else "",
        )
        for each in letter["runs"]
    ]
    parts = [f"{clean(letter['name'])}  {letter['id']}", "\n".join(lines)]
    parts.append(str(Table(("attempt", "state", "worker", "ended", "error"), runs, right=("attempt",), shrink="error")))
    if (letter["error"] or {}).get("traceback"):
        parts.append(traceback(letter["error"]["traceback"]))
    emit(letter, as_json=as_json, text="\n\n".join(parts))


@dlq.command(epilog="Example: absurd dlq requeue --fingerprint 5f2c90aa81d3 --rate 5 --set size=30 --dry-run")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@filters
@click.option("--all", "every", is_flag=True, help="All dead letters.")
@click.option("--set", "words", multiple=True, metavar="PATH=VALUE", help="Give a param (a.b) a value; repeatable.")
@click.option("--params", "patch", metavar="JSON|@FILE|-", help="Merge this into the params; null removes.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="So many a second, not all at once.")
@click.option("--limit", type=click.IntRange(min=1), help="How many at most.")
@dry_run_options("Only say what would come back.")
@json_option
@click.pass_context
def requeue(
    ctx: click.Context,
    /,
    ids: tuple[str, ...],
    every: bool,
    words: tuple[str, ...],
    patch: str | None,
    rate: float | None,
    limit: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Put dead letters back into their queues, with another round of attempts.

    Name tasks, filters, or --all.  What cannot come back is told and stays.
    """
    from absurd.dead_letters import count_dead_letters, requeue_dead_letters

    where = chosen(given, ids)
    if not where and not every:
        raise click.UsageError("Say which: IDs, filters, or --all")
    wish: dict[str, Any] = {
        "params": None if patch is None else read_document(patch, "--params"),
        "set": pairs(words, "a value at a path") or None,
        "rate": rate,
        "dry_run": dry_run,
    }
    told: list[dict[str, Any]] = []
    with database_of(ctx) as database:
        count = database.run(count_dead_letters(**where))
        count = min(count, limit or count)
        if not dry_run and not ids:
            agree(f"Requeue {plural(count, 'dead letter')}?", yes=yes, may_ask=not as_json)
        while len(told) < count:
            gone = sum(each["requeued"] for each in told)
            page = database.run(
                requeue_dead_letters(
                    **wish,
                    limit=min(PAGE, count - len(told)),
                    after=told[-1]["id"] if told else None,
                    delay=gone / rate if rate else 0,
                    **where,
                )
            )
            if not page:
                break
            told += page
    gone = sum(each["requeued"] for each in told)
    verb = "would be requeued" if dry_run else "requeued"
    lines = [f"{plural(gone, 'task')} {verb}."]
    lines += [f"{each['id']} stays: {clean(each['reason'])}" for each in told if not each["requeued"]]
    emit({"requeued": gone, "dry_run": dry_run, "tasks": told}, as_json=as_json, text="\n".join(lines))


@dlq.command(epilog="Example: absurd dlq purge --queue cutouts --until 2027-01-01T00:00Z --dry-run")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@filters
@click.option("--all", "every", is_flag=True, help="All dead letters.")
@dry_run_options("Only say how many would go.")
@json_option
@click.pass_context
def purge(
    ctx: click.Context, /, ids: tuple[str, ...], every: bool, dry_run: bool, yes: bool, as_json: bool, **given: Any
) -> None:
    """Forget dead letters; their tasks stay failed for as long as they are kept."""
    from absurd.dead_letters import purge_dead_letters

    where = chosen(given, ids)
    if not where and not every:
        raise click.UsageError("Say which: IDs, filters, or --all")
    with database_of(ctx) as database:
        count = database.run(purge_dead_letters(dry_run=True, **where))
        text = f"{plural(count, 'dead letter')} would be forgotten."
        if not dry_run:
            agree(f"Forget {plural(count, 'dead letter')}?", yes=yes, may_ask=not as_json)
            agreed, count = count, 0  # what dies meanwhile was not agreed to
            while count < agreed:
                gone = database.run(purge_dead_letters(limit=min(PURGED, agreed - count), **where))
                if not gone:
                    break
                count += gone
            text = f"{plural(count, 'dead letter')} forgotten."
    emit({"purged": count, "dry_run": dry_run}, as_json=as_json, text=text)
