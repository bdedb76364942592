"""``absurd worker drain``, ``concurrency`` and ``check``: what workers are told to do, and whether they live."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.connection import database_of
from absurd.cli.output import emit, json_option, plural
from absurd.cli.values import seconds, seconds_since
from absurd.errors import InvalidInputError, WaitTimeoutError, WorkerNotFoundError

if TYPE_CHECKING:
    from absurd.database_sync import SyncDatabase

ALIVE = ("running", "stopping")
"""States of workers that are there."""
LOOK_SECONDS = 0.2
"""How often `drain --wait` looks."""

Document = dict[str, Any]


def chosen(
    database: SyncDatabase, words: tuple[str, ...], host: str | None = None, *, every: bool = False
) -> list[Document]:
    """The workers that are meant: by number or name, of a host, or all that are alive.

    Raises WorkerNotFoundError for a word that means none that is alive.
    """
    alive = _alive(database)
    if every:
        return alive
    meant = {each["id"]: each for each in alive if host is not None and each["host"] == host}
    if host is not None and not meant:
        raise WorkerNotFoundError(f"no worker is alive on the host {host!r}; see `absurd worker list`", host=host)
    for word in words:
        found = [each for each in alive if word in (str(each["id"]), each["name"])]
        if not found:
            raise WorkerNotFoundError(
                f"no worker {word!r} is alive; `absurd worker list --all` shows all that ever were", worker=word
            )
        meant.update({each["id"]: each for each in found})
    return list(meant.values())


@click.command(epilog="Example: absurd worker drain --host node17 --wait")
@click.argument("workers", nargs=-1, metavar="[ID|NAME]...")
@click.option("--host", metavar="NAME", help="All workers of this host.")
@click.option("--all", "every", is_flag=True, help="All workers.")
@click.option("--undo", is_flag=True, help="Take the order back, for those that have not left yet.")
@click.option("--wait", is_flag=True, help="Return when they have left.")
@click.option("--timeout", type=seconds, help="Give up waiting after this time, with exit code 1.")
@json_option
@click.pass_context
def drain(
    ctx: click.Context,
    workers: tuple[str, ...],
    host: str | None,
    every: bool,
    undo: bool,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Let workers claim nothing more, end their runs, and leave.

    They get all the time their runs need.  A drained worker exits with 0; a service manager that restarts
    on failure leaves it alone.
    """
    from absurd.orders import drain_worker

    if not (workers or host or every):
        raise InvalidInputError("name workers, or --host, or --all")
    if undo and wait:
        raise InvalidInputError("--wait waits for workers to leave, and --undo keeps them")
    with database_of(ctx) as database:
        meant = chosen(database, workers, host, every=every)
        for each in meant:
            each["state"], each["draining"] = database.run(drain_worker(each["id"], draining=not undo)), not undo
        if wait:
            await_leaving(database, meant, timeout)
    text = "\n".join(_told(each, undo=undo) for each in meant) or "No worker is alive."
    emit(meant, as_json=as_json, text=text)


def await_leaving(database: SyncDatabase, workers: list[Document], timeout: float | None) -> None:
    """Wait until all of `workers` have left, and note how.  Raises WaitTimeoutError."""
    from absurd.inspection import list_workers

    deadline = None if timeout is None else time.monotonic() + timeout
    waited = {each["id"] for each in workers}
    while True:
        here = waited & {each["id"] for each in _alive(database)}
        if not here:
            break
        if deadline is not None and time.monotonic() > deadline:
            raise WaitTimeoutError(f"{plural(len(here), 'worker')} still at work", workers=sorted(here))
        time.sleep(LOOK_SECONDS)
    ends = {each["id"]: each["state"] for each in database.run(list_workers(all=True)) if each["id"] in waited}
    for each in workers:
        each["state"] = ends[each["id"]]


def _alive(database: SyncDatabase) -> list[Document]:
    from absurd.inspection import list_workers

    return [each for each in database.run(list_workers()) if each["state"] in ALIVE]


def _told(worker: Document, *, undo: bool) -> str:
    if worker["state"] == "lost":
        return f"Worker {worker['name']} was lost; what it ran goes to others."
    if worker["state"] == "stopped":
        return f"Worker {worker['name']} has left."
    if undo:
        return f"Worker {worker['name']} goes on."
    if not worker["running"]:
        return f"Worker {worker['name']} drains: it holds no run, and leaves now."
    end = "has" if worker["running"] == 1 else "have"
    return (
        f"Worker {worker['name']} drains: it leaves when the {plural(worker['running'], 'run')} it holds {end} ended."
    )


@click.command(epilog="Example: absurd worker concurrency node17:4711 12")
@click.argument("worker", metavar="ID|NAME")
@click.argument("number", type=click.IntRange(1, 10_000), required=False, metavar="N")
@click.option("--reset", is_flag=True, help="As it was started.")
@json_option
@click.pass_context
def concurrency(ctx: click.Context, worker: str, number: int | None, reset: bool, as_json: bool) -> None:
    """Let a worker run N tasks at a time from now on, until it ends.

    What runs goes on: a worker that runs more than N claims nothing until it is below.
    """
    from absurd.orders import set_worker_concurrency

    if (number is None) != reset:
        raise InvalidInputError("give either a number of runs at a time, or --reset")
    with database_of(ctx) as database:
        meant, *others = chosen(database, (worker,))
        if others:
            numbers = [each["id"] for each in (meant, *others)]
            raise InvalidInputError(
                f"{worker!r} means the workers {', '.join(map(str, numbers))}: give the number of one", workers=numbers
            )
        state = database.run(set_worker_concurrency(meant["id"], number))
    if state not in ALIVE:
        raise WorkerNotFoundError(f"worker {worker} is {state}, and takes no orders", worker=worker, state=state)
    how = "as many as it was started with" if number is None else str(number)
    text = f"Worker {meant['name']} runs {how} at a time from now on."
    emit({"id": meant["id"], "name": meant["name"], "concurrency": number}, as_json=as_json, text=text)


@click.command(epilog="Example: absurd worker check")
@click.option("--host", metavar="NAME", help="The host to look for.  [this one]")
@json_option
@click.pass_context
def check(ctx: click.Context, host: str | None, as_json: bool) -> None:
    """Tell whether a worker of this host is well; exit code 1 if not.

    For the health check of a container, which is a host of its own.  A worker is well while it was heard of
    within its lease, and nothing in it holds up everything.
    """
    name = host or socket.gethostname()
    with database_of(ctx) as database:
        alive = [each for each in _alive(database) if each["host"] == name and is_heard(each)]
    held_up = [each for each in alive if each["held_up_since"]]
    text = f"{plural(len(alive), 'worker')} of {name} alive." if alive else f"No worker of {name} is alive."
    if held_up:
        names = ", ".join(f"{each['name']} since {each['held_up_since']}" for each in held_up)
        text += f"  Held up: {names}; `absurd status` tells what to do."
    emit({"host": name, "alive": len(alive), "held_up": len(held_up)}, as_json=as_json, text=text)
    if len(alive) == len(held_up):
        ctx.exit(1)


def is_heard(worker: Document) -> bool:
    """Whether a worker of a list was heard of within its lease, which is its own and not that of the caller."""
    return (seconds_since(worker["last_seen"]) or 0.0) < float(worker["lease_seconds"])
