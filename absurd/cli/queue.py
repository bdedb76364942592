"""``absurd queue``: list, make, pause, resume, limit, purge and remove queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from absurd.cli.connection import database_of
from absurd.cli.output import Cell, Table, agree, dry_run_options, duration, emit, in_order, json_option, plural
from absurd.cli.values import seconds
from absurd.errors import InvalidInputError
from absurd.limits import QueueLimits, tell_limits
from absurd.model import TaskState

HERE = "here"
"""The queue that keeps the tasks of ``spawn --here``; each runs in one of its own, ``here.<uuid>``, that then goes."""
STATES = [state.value for state in TaskState]


def queue_table(queues: list[dict[str, object]]) -> Table:
    """Queues as a table; a zero is a dot, so that the eye finds the rest."""

    def row(each: dict[str, object]) -> list[object]:
        limits = each.get("limits")
        held = (
            Cell("paused", "warn") if each["paused"] else tell_limits(limits) if isinstance(limits, Mapping) else None
        )
        counts = [Cell(f"{each[state]:,}", state) if each[state] else "·" for state in STATES]
        oldest = each["oldest_pending_seconds"]
        return [each["name"], *counts, duration(oldest) if isinstance(oldest, int | float) else None, held]

    headers = ["queue", *STATES, "oldest wait", ""]
    return Table(headers, map(row, queues), right=(*STATES, "oldest wait"), empty="There are no queues yet.")


@click.group()
def queue() -> None:
    """List, create, pause, resume, limit, purge, prune and remove queues."""


@queue.command("list", epilog="Example: absurd queue list")
@click.option("--all", "every", is_flag=True, help="Also used-up queues of `absurd spawn --here`.")
@json_option
@click.pass_context
def list_(ctx: click.Context, every: bool, as_json: bool) -> None:
    """Show each queue with its counts and its oldest wait."""
    from absurd.inspection import list_queues

    with database_of(ctx) as database:
        found = visible(database.run(list_queues()), every=every)
    emit(found, as_json=as_json, text=queue_table(found))


@queue.command(epilog="Example: absurd queue create cutouts")
@click.argument("name")
@json_option
@click.pass_context
def create(ctx: click.Context, name: str, as_json: bool) -> None:
    """Make a queue; spawning into a new one makes it too."""
    from absurd.queue import create_queue

    with database_of(ctx) as database:
        created = database.run(create_queue(name))
    text = f"Queue {name} is made." if created else f"Queue {name} exists already."
    emit({"name": name, "created": created}, as_json=as_json, text=text)


@queue.command(epilog="Example: absurd queue pause cutouts")
@click.argument("name")
@json_option
@click.pass_context
def pause(ctx: click.Context, name: str, as_json: bool) -> None:
    """Claim nothing more from a queue; what runs goes on."""
    from absurd.queue import set_queue_paused

    with database_of(ctx) as database:
        database.run(set_queue_paused(name, True))
    text = f"Queue {name} is paused; `absurd queue resume {name}` lets it go on."
    emit({"name": name, "paused": True}, as_json=as_json, text=text)


@queue.command(epilog="Example: absurd queue resume cutouts")
@click.argument("name")
@json_option
@click.pass_context
def resume(ctx: click.Context, name: str, as_json: bool) -> None:
    """Let a paused queue go on."""
    from absurd.queue import set_queue_paused

    with database_of(ctx) as database:
        database.run(set_queue_paused(name, False))
    emit({"name": name, "paused": False}, as_json=as_json, text=f"Queue {name} goes on.")


@queue.command(epilog="Example: absurd queue limit cutouts --running 8 --per-lane 2 --rate 100/minute")
@click.argument("name")
@click.option("--running", type=click.IntRange(1), metavar="N", help="How many of its tasks run at once.")
@click.option("--per-lane", type=click.IntRange(1), metavar="N", help="How many tasks of one lane run at once.")
@click.option("--rate", metavar="N/TIME", help="How many start in a time: 100/minute, or 5/30 in seconds.")
@click.option("--fair/--no-fair", default=None, help="Lanes take turns, or go by priority and order.")
@click.option("--none", "lift", is_flag=True, help="Lift all limits first.")
@json_option
@click.pass_context
def limit(
    ctx: click.Context,
    name: str,
    running: int | None,
    per_lane: int | None,
    rate: str | None,
    fair: bool | None,
    lift: bool,
    as_json: bool,
) -> None:
    """Limit what runs and starts of a queue at once, for all workers together.

    What is not named stays as it is, and what runs goes on.
    """
    from absurd.limits import set_queue_limits

    given: dict[str, Any] = {"running": running, "per_lane": per_lane, "rate": rate, "fair": fair}
    limits: QueueLimits = {"running": None, "per_lane": None, "rate": None, "fair": None} if lift else {}
    limits.update({key: value for key, value in given.items() if value is not None})  # type: ignore[typeddict-item]
    if not limits:
        raise InvalidInputError(
            "name a limit: --running, --per-lane, --rate, --fair, or --none to lift all", queue=name
        )
    with database_of(ctx) as database:
        in_force = database.run(set_queue_limits(name, limits))
    words = tell_limits(in_force) or "none"
    emit({"name": name, "limits": in_force}, as_json=as_json, text=f"Limits of queue {name}: {words}.")


@queue.command(epilog="Example: absurd queue purge cutouts --dry-run")
@click.argument("name")
@dry_run_options("Only say how many tasks would be cancelled.")
@json_option
@click.pass_context
def purge(ctx: click.Context, name: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Cancel everything that waits in a queue (pending and sleeping tasks)."""
    from absurd.queue import purge_queue

    with database_of(ctx) as database:
        count = database.run(purge_queue(name, dry_run=True))
        if dry_run:
            text = f"{plural(count, 'waiting task')} of queue {name} would be cancelled."
        else:
            agree(f"Cancel {plural(count, 'waiting task')} of queue {name}?", yes=yes, may_ask=not as_json)
            count = database.run(purge_queue(name))
            text = f"{plural(count, 'task')} of queue {name} cancelled."
    emit({"name": name, "cancelled": count, "dry_run": dry_run}, as_json=as_json, text=text)


@queue.command(epilog="Example: absurd queue retention cutouts 30d")
@click.argument("name")
@click.argument("age", metavar="TIME|none")
@json_option
@click.pass_context
def retention(ctx: click.Context, name: str, age: str, as_json: bool) -> None:
    """Keep ended tasks of a queue for so long (30d, 12h), or for ever (none)."""
    from absurd.queue import set_queue_retention

    kept = None if age == "none" else seconds(age)
    with database_of(ctx) as database:
        database.run(set_queue_retention(name, kept))
    text = f"Ended tasks of queue {name} are kept " + ("for ever." if kept is None else f"for {duration(kept)}.")
    emit({"name": name, "retention_seconds": kept}, as_json=as_json, text=text)


@queue.command(epilog="Example: absurd queue prune cutouts --older-than 30d --dry-run")
@click.argument("name")
@click.option("--older-than", type=seconds, required=True, help="Only what ended longer ago than this.")
@dry_run_options("Only say how many tasks would go.")
@json_option
@click.pass_context
def prune(ctx: click.Context, name: str, older_than: float, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove ended tasks of a queue with their history; dead letters stay."""
    from absurd.queue import prune_queue

    with database_of(ctx) as database:
        count = database.run(prune_queue(name, older_than, limit=2_000_000_000, dry_run=True))
        text = f"{plural(count, 'ended task')} of queue {name} would be removed."
        if not dry_run:
            agree(f"Remove {plural(count, 'ended task')} of queue {name}?", yes=yes, may_ask=not as_json)
            count = 0
            while gone := database.run(prune_queue(name, older_than)):
                count += gone
            text = f"{plural(count, 'ended task')} of queue {name} removed."
    emit({"name": name, "pruned": count, "dry_run": dry_run}, as_json=as_json, text=text)


@queue.command(epilog="Example: absurd queue remove cutouts --dry-run")
@click.argument("name")
@dry_run_options("Only say whether it can go.")
@json_option
@click.pass_context
def remove(ctx: click.Context, name: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove a queue of which no task is kept, with its limits."""
    from absurd.queue import drop_queue, get_queue_stats

    with database_of(ctx) as database:
        database.run(get_queue_stats(name))  # tells that there is none
        database.run(drop_queue(name, dry_run=True))
        if not dry_run:
            agree(f"Remove queue {name}?", yes=yes, may_ask=not as_json)
            database.run(drop_queue(name))
    text = f"Queue {name} would be removed." if dry_run else f"Queue {name} is removed."
    emit({"name": name, "removed": not dry_run, "dry_run": dry_run}, as_json=as_json, text=text)


def visible(queues: list[dict[str, object]], *, every: bool = False) -> list[dict[str, object]]:
    """Without the queues of ``spawn --here``, unless something is left in them or `every` one is wanted."""

    def used_up(each: dict[str, object]) -> bool:
        left = any(each[state] for state in ("blocked", "pending", "sleeping", "running"))
        return str(each["name"]).partition(".")[0] == HERE and not left

    first = ("name", "paused", *STATES)
    return [in_order(each, *first) for each in queues if every or not used_up(each)]
