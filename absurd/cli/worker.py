"""``absurd worker`` lists workers; the program ``absurd-worker`` is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import click

from absurd.cli.catalog import with_modules
from absurd.cli.connection import database_of
from absurd.cli.orders import check, concurrency, drain, is_heard
from absurd.cli.output import (
    Cell,
    Table,
    duration,
    emit,
    import_option,
    json_option,
    pass_on,
    settings_of,
    shared_options,
    size,
)
from absurd.cli.run import run
from absurd.cli.values import seconds, seconds_since
from absurd.errors import InvalidInputError

QUEUE_HELP = "Queue to serve; repeatable.  One of weight 2 is claimed from twice as often.  [ABSURD_QUEUE_NAME]"


def worker_table(workers: list[dict[str, Any]]) -> Table:
    """Workers as a table."""
    rows = [
        (
            each["id"],
            each["name"],
            _state(each),
            " ".join(map(str, each["queues"])) if isinstance(each["queues"], list) else "",
            f"{each['running']}/{each['concurrency']}{_held(each)}",
            *_burden(each),
            ago(each["last_seen"]),
            ago(each["started_at"]),
        )
        for each in workers
    ]
    headers = ("id", "worker", "state", "queues", "busy", "load", "memory", "version", "last seen", "started")
    empty = "No worker is alive; start one with `absurd-worker`."
    return Table(headers, rows, right=("id", "busy", "load", "memory"), shrink="queues", empty=empty)


def _burden(worker: dict[str, Any]) -> tuple[str, str, str]:
    """Load average of its machine, memory of its process, version: as it last told them."""
    load, memory = worker["load"].get("load_average"), worker["load"].get("rss_bytes")
    told = "" if load is None else f"{load:.2f}"
    return told, "" if memory is None else size(memory), str(worker["versions"].get("absurd", ""))


def _state(worker: dict[str, Any]) -> Cell:
    state = str(worker["state"])
    if state in ("running", "stopping") and worker["held_up_since"]:
        return Cell("held up", "failed")
    if worker.get("draining") and state in ("running", "stopping"):
        return Cell("draining", "stopping")
    return Cell(state, state)


def _held(worker: dict[str, object]) -> str:
    """What its runs hold of what it offers, and of what all share."""
    held, offers = worker.get("held"), worker.get("offers")
    if not isinstance(held, Mapping) or not isinstance(offers, Mapping):
        return ""
    words = [
        f"{name} {amount:g}/{offers[name]:g}" if name in offers else f"{name} {amount:g}"
        for name, amount in held.items()
    ]
    return f" ({', '.join(words)})" if words else ""


def is_alive(worker: dict[str, Any]) -> bool:
    """Whether a worker of a list claims tasks: it is not stopping or to drain, and was heard of within its lease."""
    return worker["state"] == "running" and not worker["draining"] and is_heard(worker)


def ago(time: object) -> str:
    """How long ago a time of a document was."""
    return f"{duration(seconds_since(str(time)))} ago" if time else ""


@click.group()
def worker() -> None:
    """List workers, drain them, change how many tasks they run at a time."""


for each in (drain, concurrency, check):
    worker.add_command(each)


@worker.command("list", epilog="Example: absurd worker list --all")
@click.option("--all", "every", is_flag=True, help="Also those that ended, however long ago.")
@json_option
@click.pass_context
def list_(ctx: click.Context, every: bool, as_json: bool) -> None:
    """Show the workers that are alive and those lost within the hour."""
    from absurd.inspection import list_workers

    with database_of(ctx) as database:
        found = database.run(list_workers(all=every))
    emit(found, as_json=as_json, text=worker_table(found))


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: absurd-worker --queue cutouts=2 --queue default --import mysite.executors",
)
@click.option("--queue", "-q", "queues", multiple=True, metavar="NAME[=WEIGHT]", help=QUEUE_HELP)
@click.option("--concurrency", "-c", type=int, metavar="N", help="How many runs at once.  [ABSURD_WORKER_CONCURRENCY]")
@click.option("--prefetch", type=int, metavar="N", help="How many runs to claim ahead of those.  [as measured]")
@click.option("--offers", metavar="NAME=N,...", help="What tasks may need: cpu=8,memory_gib=64.  [as found]")
@click.option("--dask", metavar="URL", help="Dask scheduler that runs may be sent to.  [ABSURD_WORKER_DASK]")
@import_option
@click.option("--grace", type=seconds, help="Time that runs get to end after SIGTERM.  [30s]")
@click.option("--metrics", metavar="ADDRESS:PORT", help="Where to answer Prometheus.  [ABSURD_WORKER_METRICS; nowhere]")
@click.option("--burst", "until", flag_value="burst", help="Leave when nothing can be claimed now.")
@click.option("--drain", "until", flag_value="drain", help="Leave when all in the queues has ended, sleepers too.")
@click.option("--reload", is_flag=True, help="Begin anew when files of the imported modules change: for development.")
@click.version_option(package_name="absurd", message="%(prog)s %(version)s")
@shared_options()
@click.pass_context
def absurd_worker(
    ctx: click.Context,
    queues: tuple[str, ...],
    concurrency: int | None,
    prefetch: int | None,
    offers: str | None,
    dask: str | None,
    modules: tuple[str, ...],
    grace: float | None,
    metrics: str | None,
    until: Literal["burst", "drain"] | None,
    reload: bool,
) -> None:
    """Claim tasks from queues and run them, until told to stop.

    SIGTERM or Ctrl-C: claim nothing more, let runs end, hand back what has not ended after --grace, exit 0.
    A second signal hands back at once.
    """
    if reload and until is not None:
        raise InvalidInputError(f"--reload is for a worker that stays, and --{until} for one that leaves")
    flags = {
        "worker_concurrency": concurrency,
        "worker_prefetch": prefetch,
        "worker_offers": offers,
        "worker_dask": dask,
        "worker_grace": grace,
        "worker_metrics": metrics,
    }
    settings = with_modules(settings_of(ctx, **flags), modules)
    weights = read_queues(queues) or {settings.queue_name: 1}
    from absurd.telemetry import configure_logging
    from absurd.workers.daemon import serve

    pass_on(ctx)
    configure_logging(settings)
    serve(settings, weights, until or "forever", reload=reload)


def read_queues(words: tuple[str, ...]) -> dict[str, int]:
    """``NAME`` or ``NAME=WEIGHT`` as weights by name."""
    from absurd.executor import check_name

    found = {}
    for word in words:
        name, sign, weight = word.partition("=")
        if sign and not (weight.isdecimal() and 1 <= int(weight) <= 1000):
            raise InvalidInputError(f"the weight of --queue {word} must be a whole number from 1 to 1000", queue=name)
        found[check_name("queue", name)] = int(weight) if sign else 1
    return found


def main() -> None:
    """The console script ``absurd-worker``."""
    run(absurd_worker, "absurd-worker")


if __name__ == "__main__":
    main()
