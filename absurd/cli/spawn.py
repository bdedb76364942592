"""``absurd spawn``: hand in a task, and wait for it or run it here if asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from absurd.cli.catalog import load_here, unknown, with_modules
from absurd.cli.connection import client_of
from absurd.cli.output import emit, import_option, json_option, note, pass_on, settings_of
from absurd.cli.values import instant, pairs, read_params, seconds
from absurd.cli.waiting import report, wait_for
from absurd.cli.worker import is_alive

if TYPE_CHECKING:
    from absurd.client_sync import SyncAbsurdClient


@click.command(
    epilog="Example: absurd spawn export.query sql='select 1 as n' out=n.parquet --wait",
)
@click.argument("name")
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--params", "document", metavar="JSON|@FILE|-", help="All params as JSON, from a file or from stdin.")
@click.option("--queue", "-q", help="Queue to go to.  [the executor's, ABSURD_QUEUE_NAME, default]")
@click.option("--priority", type=int, help="Higher goes first.  [0]")
@click.option("--delay", type=seconds, help="Not before this time has passed (90, 15m, 2h).")
@click.option("--at", "run_at", type=instant, metavar="TIME", help="Not before this time (2027-01-31T21:30Z).")
@click.option("--key", help="Idempotency: the same queue and key give the first task's id.")
@click.option("--tag", "tags", multiple=True, help="A word to find the task by; repeatable.")
@click.option("--key-period", type=seconds, help="For how long the key counts.  [for ever]")
@click.option(
    "--key-scope",
    type=click.Choice(["ever", "unfinished"]),
    help="unfinished: the key is free once its task has ended.",
)
@click.option("--lane", help="Lane that it shares a limit with, and that takes turns with others.  [the executor's]")
@click.option("--need", "needs", multiple=True, metavar="NAME=N", help="What its worker must offer; repeatable.")
@click.option("--after", "parents", multiple=True, metavar="ID", help="Wait for this task to end; repeatable.")
@click.option("--when", metavar="CONDITION", help="all_done, any_success, any_failed, quorum(K).  [all_success]")
@click.option("--start-within", type=seconds, help="Cancel it if it has not started after this time.")
@click.option("--finish-within", type=seconds, help="Cancel it if it has not ended after this time.")
@click.option("--max-attempts", type=int, metavar="N", help="How often it is tried in all.")
@click.option("--timeout", type=seconds, help="Longest time a run may take.")
@click.option("--header", "headers", multiple=True, metavar="KEY=VALUE", help="Travels with the task; repeatable.")
@click.option("--wait", is_flag=True, help="Wait for its end, print result and files; exit 1 unless it completed.")
@click.option("--wait-timeout", type=seconds, help="Wait no longer than this (exit 1); the task goes on.")
@click.option("--here", is_flag=True, help="Run it to its end in this process, in a queue of its own.")
@import_option
@json_option
@click.pass_context
def spawn(
    ctx: click.Context,
    /,
    name: str,
    words: tuple[str, ...],
    document: str | None,
    wait: bool,
    wait_timeout: float | None,
    here: bool,
    modules: tuple[str, ...],
    as_json: bool,
    headers: tuple[str, ...],
    needs: tuple[str, ...],
    **given: Any,
) -> None:
    """Spawn a task for the executor NAME and print its id.

    A VALUE that is JSON is read as JSON (size=30, bands='["g","r"]', flag=true), any other is a text.

    --here needs no worker: this process runs the task, and only this task, in a queue made for it.  Once
    ended, the task is kept in the queue `here`.  If the process dies, the task is kept and any worker
    started for its queue goes on with it.
    """
    from absurd.executor import registry

    params = read_params(words, document)
    options = spawn_options(headers=pairs(headers, "a header"), needs=pairs(needs, "a need"), **given)
    settings = with_modules(settings_of(ctx), modules)
    missing = load_here(settings)
    if here:
        from absurd.cli.here import run_here

        if "queue" in options or "key" in options:
            raise click.UsageError("--here makes a queue of its own: leave out --queue and --key")
        if name not in registry:
            raise unknown(name, [each.name for each in registry], missing)
        pass_on(ctx)
        ended = run_here(settings, name, params, options, timeout=wait_timeout, show=not as_json)
        report(ended | {"created": True}, as_json=as_json)
        return
    with client_of(ctx) as client:
        queue = options.setdefault("queue", queue_of(client, name, missing) or settings.queue_name)
        spawned = client.spawn_or_get(name, params, **options)
        task_id = str(spawned.id)
        if not spawned.created:
            note("The key is taken: this is the task that took it.")
        warn_unserved(client, queue)
        if not wait:
            emit({"id": task_id, "created": spawned.created}, as_json=as_json, text=task_id)
            return
        if not as_json:
            note(f"Task {task_id}")
        ended = wait_for(client, task_id, wait_timeout, show=not as_json)
    report(ended | {"created": spawned.created}, as_json=as_json)


def spawn_options(
    *, tags: tuple[str, ...], parents: tuple[str, ...], headers: dict[str, Any], needs: dict[str, Any], **others: Any
) -> dict[str, Any]:
    """The options of `SyncAbsurdClient.spawn`; what was not given is left out."""
    given = others | {
        "tags": list(tags) or None,
        "depends_on": list(parents) or None,
        "headers": headers or None,
        "needs": needs or None,
    }
    return {option: value for option, value in given.items() if value is not None}


def queue_of(client: SyncAbsurdClient, name: str, missing: list[str]) -> str | None:
    """The queue of an executor; None when it has none of its own.  Raises UnknownExecutorError.

    The database takes any name, because a worker that knows it may come later; somebody at a terminal has
    rather mistyped it.
    """
    from absurd.executor import registry

    here = {each.name: each.queue for each in registry}
    if name in here:
        return here[name]
    there: dict[str, str | None] = {row["name"]: row["queue"] for row in client.list_executors()}
    if name in there:
        return there[name]
    raise unknown(name, here | there, missing)


def warn_unserved(client: SyncAbsurdClient, queue: str) -> None:
    """Say so at once if no live worker serves `queue`."""
    if not any(queue in each["queues"] and is_alive(each) for each in client.list_workers()):
        note(f"No worker serves the queue {queue}: the task waits until one does (`absurd-worker --queue {queue}`).")
