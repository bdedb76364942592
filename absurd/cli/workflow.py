"""``absurd workflow``: find workflows, look at one, and change its course."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from absurd.cli.connection import database_of
from absurd.cli.output import Cell, Table, clean, emit, in_order, json_option, moment, note, plural, styled
from absurd.cli.worker import ago

STATES = ("running", "completed", "failed", "cancelled")
FIRST = ("id", "name", "state", "reason", "created_at", "ended_at", "size", "remaining", "counts", "nodes")

MOST_NODES = 1_000_000
"""All of them: more than a workflow is spawned with."""


@click.group()
def workflow() -> None:
    """List, show, cancel and retry workflows, or run a part of one anew."""


@workflow.command("list", epilog="Example: absurd workflow list --state failed")
@click.option("--state", "-s", type=click.Choice(STATES), help="Only workflows in this state.")
@click.option("--name", "-n", help="Only workflows of this name.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many at most.")
@click.option("--after", metavar="ID", help="Go on below this workflow, the last of the page before.")
@json_option
@click.pass_context
def list_(
    ctx: click.Context, state: str | None, name: str | None, limit: int, after: str | None, as_json: bool
) -> None:
    """Show workflows, newest first."""
    from absurd.inspection import list_workflows

    with database_of(ctx) as database:
        found = database.run(list_workflows(state=state, name=name, after=after, limit=limit))
    rows = [
        (
            each["id"],
            each["name"],
            Cell(each["state"], each["state"]),
            f"{each['size'] - each['remaining']} of {each['size']}",
            ago(each["created_at"]),
        )
        for each in found
    ]
    headers = ("workflow", "name", "state", "ended nodes", "spawned")
    emit(found, as_json=as_json, text=Table(headers, rows, shrink="name", empty="There are no such workflows."))
    if len(found) == limit and not as_json:
        note(f"There may be more: go on with --after {found[-1]['id']}")


@workflow.command(epilog="Example: absurd workflow show 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e")
@click.argument("workflow_id", metavar="ID")
@click.option("--limit", type=click.IntRange(0, 10_000), default=200, show_default=True, help="Nodes shown at most.")
@json_option
@click.pass_context
def show(ctx: click.Context, workflow_id: str, limit: int, as_json: bool) -> None:
    """Show a workflow and its nodes, each below one that it waits for.

    Where not all are shown, failed ones come first.
    """
    from absurd.inspection import get_workflow

    with database_of(ctx) as database:
        found = in_order(database.run(get_workflow(workflow_id, nodes=limit)), *FIRST)
    emit(found, as_json=as_json, text="" if as_json else tell(found))


@workflow.command(epilog="Example: absurd workflow cancel 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e --reason clouds")
@click.argument("workflow_id", metavar="ID")
@click.option("--reason", help="Kept with the workflow and in the history of its tasks.")
@json_option
@click.pass_context
def cancel(ctx: click.Context, workflow_id: str, reason: str | None, as_json: bool) -> None:
    """Cancel all of a workflow that has not ended."""
    from absurd.queue import cancel_workflow

    with database_of(ctx) as database:
        state = database.run(cancel_workflow(workflow_id, reason))
    ended = "is cancelled." if state == "cancelled" else f"had {state}; nothing has changed."
    emit({"id": workflow_id, "state": state}, as_json=as_json, text=f"Workflow {workflow_id} {ended}")


@workflow.command(epilog="Example: absurd workflow retry 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e")
@click.argument("workflow_id", metavar="ID")
@json_option
@click.pass_context
def retry(ctx: click.Context, workflow_id: str, as_json: bool) -> None:
    """Run what failed or was cancelled of a workflow again.

    What has completed is reused.
    """
    from absurd.queue import retry_workflow

    with database_of(ctx) as database:
        again = database.run(retry_workflow(workflow_id))
    _tell_again(workflow_id, again, as_json)


@workflow.command(epilog="Example: absurd workflow rerun 0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e calibrate")
@click.argument("workflow_id", metavar="ID")
@click.argument("node")
@click.option("--alone", is_flag=True, help="Not what depends on it.")
@json_option
@click.pass_context
def rerun(ctx: click.Context, workflow_id: str, node: str, alone: bool, as_json: bool) -> None:
    """Run a node that has ended, and all that depends on it, anew.

    The results of the rest are reused.
    """
    from absurd.errors import TaskNotFoundError
    from absurd.inspection import get_workflow
    from absurd.queue import rerun_task

    with database_of(ctx) as database:
        found = database.run(get_workflow(workflow_id, nodes=MOST_NODES))
        task = next((each["id"] for each in found["nodes"] if each["node"] == node), None)
        if task is None:
            raise TaskNotFoundError(f"workflow {workflow_id} has no node {node!r}", node=node)
        again = database.run(rerun_task(task, descendants=not alone))
    _tell_again(workflow_id, again, as_json)


def tell(found: dict[str, Any]) -> str:
    """The workflow in a line, how its nodes stand, and the graph."""
    head = f"{click.style(clean(found['name']), bold=True)}  {found['id']}  {styled(found['state'])}"
    if found["reason"]:
        head += f" ({clean(found['reason'])})"
    ended = f", ended {moment(found['ended_at'])}" if found["ended_at"] else ""
    counts = ", ".join(f"{count} {styled(state)}" for state, count in sorted(found["counts"].items()))
    parts = [
        f"{head}\nspawned {moment(found['created_at'])}{ended}\n{plural(found['size'], 'node')}: {counts or 'none'}"
    ]
    if found["nodes"]:
        parts.append("\n".join(graph(found["nodes"])))
    if (more := found["size"] - len(found["nodes"])) > 0:
        parts.append(f"… and {plural(more, 'more node')}; --limit shows them.")
    return "\n\n".join(parts)


def graph(nodes: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each node, below the last of the nodes it waits for; the others of them are named."""
    by_id = {node["id"]: node for node in nodes}
    order = sorted(by_id)  # ids grow in the order of the spawn: parents come before their children
    below: dict[str | None, list[str]] = {}
    for each in order:
        known = sorted(parent for parent in by_id[each]["depends_on"] if parent in by_id)
        below.setdefault(known[-1] if known else None, []).append(each)
    stack = [(each, 0) for each in reversed(below.get(None, []))]
    while stack:
        each, depth = stack.pop()
        yield "  " * min(depth, 20) + _line(by_id[each], by_id)
        stack += [(child, depth + 1) for child in reversed(below.get(each, []))]


def _line(node: dict[str, Any], by_id: dict[str, dict[str, Any]]) -> str:
    text = f"{clean(node['node'])}  {styled(node['state'])}"
    if node["when"] != "all_success":
        text += f"  when {clean(node['when'])}"
    others = [by_id[each]["node"] for each in sorted(node["depends_on"])[:-1] if each in by_id]
    if others:
        shown = ", ".join(clean(each) for each in others[:3])
        text += f"  also after {shown}" + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    if node["state"] in ("failed", "cancelled") and node["error"]:
        text += f": {clean(node['error'].get('message', ''))}"
    return text


def _tell_again(workflow_id: str, again: int, as_json: bool) -> None:
    emit(
        {"id": workflow_id, "again": again},
        as_json=as_json,
        text=f"{plural(again, 'node')} of {workflow_id} run again.",
    )
