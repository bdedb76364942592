"""``absurd up``: everything a night needs, in one foreground process tree."""

from __future__ import annotations

import sys

import click

from absurd.cli.catalog import load_here, with_modules
from absurd.cli.output import emit, import_option, json_option, note, pass_on, settings_of
from absurd.cli.worker import QUEUE_HELP, read_queues


@click.command(epilog="Example: absurd up --import mysite.executors")
@click.option("--queue", "-q", "queues", multiple=True, metavar="NAME[=WEIGHT]", help=QUEUE_HELP)
@click.option("--concurrency", "-c", type=int, metavar="N", help="How many runs at once.")
@import_option
@click.option("--reload", is_flag=True, help="The worker begins anew when files of the imported modules change.")
@json_option
@click.pass_context
def up(
    ctx: click.Context,
    queues: tuple[str, ...],
    concurrency: int | None,
    modules: tuple[str, ...],
    reload: bool,
    as_json: bool,
) -> None:
    """Run database, worker and scheduler until Ctrl-C.

    What dies is started again.  A database that this command started is stopped at the end; one that
    ran before, or is named by --database-url, is left alone.
    """
    import asyncio

    from absurd.cli.children import Child, Embedded, supervise

    pass_on(ctx)

    settings = settings_of(ctx, worker_concurrency=concurrency)
    read_queues(queues)  # what is wrong is said here, once, and not by a worker that is started again and again
    if not reload:  # then the worker waits until they can be imported
        load_here(with_modules(settings, modules))
    worker = [sys.executable, "-m", "absurd.cli.worker"]
    worker += [word for queue in queues for word in ("--queue", queue)]
    worker += [word for module in modules for word in ("--import", module)]
    worker += ["--concurrency", str(settings.worker_concurrency)]
    worker += ["--reload"] if reload else []
    children = [
        Child("worker", worker),
        Child("scheduler", [sys.executable, "-m", "absurd.cli.scheduler"]),
    ]
    embedded = Embedded(settings) if settings.database_url is None else None

    def ready(address: str) -> None:
        pids = {each.name: each.pid for each in children}
        text = f"Up: database at {address}, worker and scheduler.  Ctrl-C stops them."
        emit({"database": address, **pids}, as_json=as_json, text=text)

    asyncio.run(supervise(settings, embedded, children, ready=ready, say=note))
