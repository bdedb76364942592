"""What domain commands have in common: a task is spawned and waited for, or run here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from absurd.cli.catalog import load_here, unknown
from absurd.cli.connection import client_of
from absurd.cli.output import emit, note, pass_on, settings_of
from absurd.cli.spawn import queue_of, warn_unserved
from absurd.cli.waiting import Document, wait_for


def serve_task(
    ctx: click.Context,
    name: str,
    params: Mapping[str, Any],
    *,
    queue: str | None,
    here: bool,
    no_wait: bool,
    timeout: float | None,
    as_json: bool,
    quiet: bool = False,
    workflow: str | None = None,
) -> Document | None:
    """The task's document after its end; None with `no_wait`, when its id is printed.

    With `workflow`, that is what it is called whose one node the task is at first.
    """
    settings = settings_of(ctx)
    if here:
        from absurd.cli.here import run_here
        from absurd.executor import registry

        if queue is not None or no_wait:
            raise click.UsageError("--here makes a queue of its own and waits: leave out --queue and --no-wait")
        missing = load_here(settings)
        if name not in registry:
            raise unknown(name, [each.name for each in registry], missing)
        pass_on(ctx)
        return run_here(settings, name, params, {}, timeout=timeout, show=not (as_json or quiet))
    with client_of(ctx) as client:
        queue = queue or queue_of(client, name, load_here(settings)) or settings.queue_name
        if workflow is None:
            task_id = str(client.spawn(name, params, queue=queue))
        else:
            from absurd.workflow import Workflow

            graph = Workflow(workflow)
            graph.task(name, params, name="batch", queue=queue)
            task_id = str(client.spawn_workflow(graph).tasks["batch"])
        warn_unserved(client, queue)
        if no_wait:
            emit({"id": task_id}, as_json=as_json, text=task_id)
            return None
        if not (as_json or quiet):
            note(f"Task {task_id}")
        return wait_for(client, task_id, timeout, show=not (as_json or quiet))
