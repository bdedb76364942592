"""``absurd up``: everything a night needs, in one foreground process tree."""

from __future__ import annotations

import importlib.util
import sys

import click

from absurd.cli.catalog import load_here, with_modules
from absurd.cli.output import emit, import_option, json_option, note, pass_on, settings_of
from absurd.cli.worker import QUEUE_HELP, read_queues


@click.command(epilog="Example: absurd up --import mysite.executors")
@click.option("--queue", "-q", "queues", multiple=True, metavar="NAME[=WEIGHT]", help=QUEUE_HELP)
@click.option("--concurrency", "-c", type=int, metavar="N", help="How many runs at once.")
@import_option
@click.option("--port", "web_port", type=int, metavar="N", help="Of the web server.  [ABSURD_WEB_PORT; 8714]")
@click.option("--no-web", is_flag=True, help="No web server.")
@click.option("--reload", is_flag=True, help="The worker begins anew when files of the imported modules change.")
@json_option
@click.pass_context
def up(
    ctx: click.Context,
    queues: tuple[str, ...],
    concurrency: int | None,
    modules: tuple[str, ...],
    web_port: int | None,
    no_web: bool,
    reload: bool,
    as_json: bool,
) -> None:
    """Run database, worker, scheduler and web server until Ctrl-C.

    What dies is started again.  A database that this command started is stopped at the end; one that
    ran before, or is named by --database-url, is left alone.  Without the extra `web` there is no web server.
    """
    import asyncio

    from absurd.cli.children import Child, Embedded, supervise

    pass_on(ctx)

    settings = settings_of(ctx, worker_concurrency=concurrency, web_port=web_port)
    read_queues(queues)  # what is wrong is said here, once, and not by a worker that is started again and again
    if not reload:  # then the worker waits until they can be imported
        load_here(with_modules(settings, modules))
    imports = [word for module in modules for word in ("--import", module)]
    worker = [sys.executable, "-m", "absurd.cli.worker"]
    worker += [word for queue in queues for word in ("--queue", queue)]
    worker += imports
    worker += ["--concurrency", str(settings.worker_concurrency)]
    worker += ["--reload"] if reload else []
    children = [
        Child("worker", worker),
        Child("scheduler", [sys.executable, "-m", "absurd.cli.scheduler"]),
    ]
    if not no_web and importlib.util.find_spec("fastapi") is not None:
        web = [sys.executable, "-m", "absurd", "serve", "--port", str(settings.web_port)]
        web += [] if reload else imports
        children.append(Child("web server", web))
    embedded = Embedded(settings) if settings.database_url is None else None

    def ready(address: str) -> None:
        pids = {each.name.replace(" ", "_"): each.pid for each in children}
        text = f"Up: database at {address}, {', '.join(each.name for each in children)}.  Ctrl-C stops them."
        emit({"database": address, **pids}, as_json=as_json, text=text)

    asyncio.run(supervise(settings, embedded, children, ready=ready, say=note))
