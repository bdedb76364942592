"""``absurd task``: find tasks, look at one, and change its course."""

from __future__ import annotations

from datetime import datetime

import click

from absurd.cli.connection import client_of, database_of
from absurd.cli.output import Cell, Table, emit, in_order, json_option, note
from absurd.cli.values import instant, pairs, read_document, seconds
from absurd.cli.worker import ago
from absurd.model import Task, TaskState
from absurd.redaction import discreet

STATES = [state.value for state in TaskState]


@click.group()
def task() -> None:
    """List, show, explain, edit, cancel, retry and wait for tasks, and read their logs."""


@task.command("list", epilog="Example: absurd task list --state failed --queue cutouts")
@click.option("--queue", "-q", help="Only tasks of this queue.")
@click.option("--state", "-s", type=click.Choice(STATES), help="Only tasks in this state.")
@click.option("--name", "-n", help="Only tasks for this executor.")
@click.option("--tag", "-t", help="Only tasks with this tag.")
@click.option("--param", "words", multiple=True, metavar="PATH=VALUE", help="Only with this param (a.b=1); repeatable.")
@click.option("--since", type=instant, metavar="TIME", help="Only tasks spawned at this time or later.")
@click.option("--until", type=instant, metavar="TIME", help="Only tasks spawned before this time.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many at most.")
@click.option("--after", metavar="ID", help="Go on below this task, the last of the page before.")
@json_option
@click.pass_context
def list_(
    ctx: click.Context,
    queue: str | None,
    state: str | None,
    name: str | None,
    tag: str | None,
    words: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """Show tasks, newest first.

    A VALUE that is JSON is read as JSON: size=30 finds the number, size='"30"' the text.
    """
    from absurd.inspection import list_tasks

    call = list_tasks(
        queue=queue,
        state=state,
        name=name,
        tag=tag,
        after=after,
        limit=limit,
        since=since,
        until=until,
        params=pairs(words, "a param"),
    )
    with database_of(ctx) as database:
        found = database.run(call)
    rows = [
        (
            each["id"],
            each["name"],
            each["queue"],
            Cell(each["state"], each["state"]),
            each["attempts"] or None,
            ago(each["created_at"]),
            " ".join(each["tags"]),
        )
        for each in found
    ]
    headers = ("task", "executor", "queue", "state", "attempts", "spawned", "tags")
    table = Table(headers, rows, right=("attempts",), shrink="tags", empty="There are no such tasks.")
    emit(found, as_json=as_json, text=table)
    if len(found) == limit and not as_json:
        note(f"There may be more: go on with --after {found[-1]['id']}")


@task.command(epilog="Example: absurd task show 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e")
@click.argument("task_id", metavar="ID")
@click.option("--reveal", is_flag=True, help="Show the values of params and headers whose name tells of a secret.")
@json_option
@click.pass_context
def show(ctx: click.Context, task_id: str, reveal: bool, as_json: bool) -> None:
    """Show all about a task: params, result, files, and its history.

    Values of params and headers under names such as token or password are shown as ***.
    """
    from absurd.cli.story import tell
    from absurd.inspection import get_task_document, task_why

    with database_of(ctx) as database:
        document = in_order(database.run(get_task_document(task_id)), *Task.__dataclass_fields__)
        why = "" if as_json else database.run(task_why(task_id))
    if not reveal:
        document = discreet(document)
    emit(document, as_json=as_json, text="" if as_json else tell(document, why))


@task.command(epilog="Example: absurd task why 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e")
@click.argument("task_id", metavar="ID")
@json_option
@click.pass_context
def why(ctx: click.Context, task_id: str, as_json: bool) -> None:
    """Say in a sentence what a task waits for, or how it ended."""
    from absurd.inspection import task_why

    with database_of(ctx) as database:
        sentence = database.run(task_why(task_id))
    emit({"id": task_id, "why": sentence}, as_json=as_json, text=sentence)


@task.command(epilog="Example: absurd task cancel 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e --reason 'wrong field'")
@click.argument("task_id", metavar="ID")
@click.option("--reason", help="Kept in the task's history.")
@click.option("--subtree", is_flag=True, help="Cancel all that depends on it too, even what would run all the same.")
@json_option
@click.pass_context
def cancel(ctx: click.Context, task_id: str, reason: str | None, subtree: bool, as_json: bool) -> None:
    """Cancel a task and what cannot run without it.

    A task that has ended stays as it is.
    """
    from absurd.queue import cancel_task

    with database_of(ctx) as database:
        state = database.run(cancel_task(task_id, reason, subtree=subtree))
    text = f"Task {task_id} " + ("is cancelled." if state == "cancelled" else f"had {state}; nothing has changed.")
    emit({"id": task_id, "state": state}, as_json=as_json, text=text)


@task.command(epilog="Example: absurd task retry 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e")
@click.argument("task_id", metavar="ID")
@click.option("--spawn-new", is_flag=True, help="Spawn a fresh task like it, and leave this one as it is.")
@json_option
@click.pass_context
def retry(ctx: click.Context, task_id: str, spawn_new: bool, as_json: bool) -> None:
    """Give a task that has ended another attempt."""
    from absurd.queue import respawn_task, retry_task

    with database_of(ctx) as database:
        if spawn_new:
            fresh = str(database.run(respawn_task(task_id)))
            emit({"id": fresh, "created": True}, as_json=as_json, text=fresh)
            return
        state = database.run(retry_task(task_id))
    emit({"id": task_id, "state": state}, as_json=as_json, text=f"Task {task_id} is {state} again.")


@task.command(epilog="Example: absurd task edit 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e --priority 5 --set size=30")
@click.argument("task_id", metavar="ID")
@click.option("--priority", type=int, help="Higher goes first.")
@click.option("--delay", type=seconds, help="Not before this time from now has passed; 0: at once.")
@click.option("--at", "run_at", type=instant, metavar="TIME", help="Not before this time.")
@click.option("--set", "words", multiple=True, metavar="PATH=VALUE", help="Give a param (a.b) a value; repeatable.")
@click.option("--params", "document", metavar="JSON|@FILE|-", help="New params as a whole.")
@json_option
@click.pass_context
def edit(
    ctx: click.Context,
    task_id: str,
    priority: int | None,
    delay: float | None,
    run_at: datetime | None,
    words: tuple[str, ...],
    document: str | None,
    as_json: bool,
) -> None:
    """Change priority, time or params of a task before it is claimed.

    Old and new are kept in its history.
    """
    from absurd.queue import edit_task

    if priority is None and delay is None and run_at is None and not words and document is None:
        raise click.UsageError("Say what to change: --priority, --delay, --at, --set or --params")
    call = edit_task(
        task_id,
        priority=priority,
        delay=delay,
        run_at=run_at,
        params=None if document is None else read_document(document, "--params"),
        set=pairs(words, "a value at a path"),
    )
    with database_of(ctx) as database:
        changed = database.run(call)
    text = f"Task {task_id}: " + (f"{', '.join(changed)} changed." if changed else "nothing was different.")
    emit({"id": task_id, "changed": changed}, as_json=as_json, text=text)


@task.command(epilog="Example: absurd task wait 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e --timeout 5m")
@click.argument("task_id", metavar="ID")
@click.option("--timeout", type=seconds, help="Give up waiting after this time (exit 1); the task goes on.")
@json_option
@click.pass_context
def wait(ctx: click.Context, task_id: str, timeout: float | None, as_json: bool) -> None:
    """Wait for a task to end, and print its result and files.

    Exits with 0 if it completed, with 1 if it failed, was cancelled, or did not end in time.
    """
    from absurd.cli.waiting import report, wait_for

    with client_of(ctx) as client:
        ended = wait_for(client, task_id, timeout, show=not as_json)
    report(ended, as_json=as_json)


@task.command(epilog="Example: absurd task logs 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e --follow")
@click.argument("task_id", metavar="ID")
@click.option("--attempt", type=click.IntRange(1), help="Only what this attempt wrote.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Begin with the last N lines.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on, until the task has ended.")
@json_option
@click.pass_context
def logs(ctx: click.Context, task_id: str, attempt: int | None, tail: int | None, follow: bool, as_json: bool) -> None:
    """Print what the runs of a task have written.

    That is stdout, stderr, and the lines of loggers.  With --follow --json each line is a document of its own.
    """
    from absurd.cli.log_lines import show_lines

    with client_of(ctx) as client:
        if follow:
            show_lines(client.follow_logs(task_id, attempt=attempt, tail=tail), as_json=as_json, live=True)
        else:
            show_lines(client.get_logs(task_id, attempt=attempt, tail=tail), as_json=as_json)
