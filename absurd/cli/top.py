"""``absurd top``: queues, workers and tasks as they are now, in the terminal."""

from __future__ import annotations

import importlib.util

import click

from absurd.cli.connection import database_of
from absurd.cli.output import emit, json_option, settings_of
from absurd.cli.values import seconds
from absurd.errors import ConfigurationError


@click.command(epilog="Example: absurd top --every 1s")
@click.option("--every", type=seconds, default="2s", show_default=True, help="Pause between two looks.")
@json_option
@click.pass_context
def top(ctx: click.Context, every: float, as_json: bool) -> None:
    """Watch queues, workers, tasks and their logs, and act on them from the keys.

    Needs the extra tui.  The line at the bottom of the screen tells the keys.  --json prints what would be seen, once.
    """
    if as_json:
        from absurd import inspection
        from absurd.model import TaskState

        with database_of(ctx) as one:
            tasks = one.run(inspection.list_tasks(state=TaskState.RUNNING))
            emit(one.run(inspection.get_status()) | {"tasks": tasks}, as_json=True)
        return
    if importlib.util.find_spec("textual") is None:
        raise ConfigurationError("textual is missing: this needs `pip install 'absurd[tui]'`")
    settings = settings_of(ctx)
    from absurd.cli.top_screen import Top
    from absurd.database import AsyncDatabase
    from absurd.resolve import resolve_database

    url = resolve_database(settings)
    database = AsyncDatabase(
        url, schema=settings.schema, prepared_statements=settings.prepared_statements, max_connections=2
    )
    Top(database, max(0.2, every)).run()
