"""Wait for a task in front of a person: a progress bar meanwhile, its products at the end."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from absurd.cli.output import clean, duration, emit, in_order, note
from absurd.cli.story import apart, artifact_table, progress
from absurd.errors import DatabaseUnavailableError, TaskCancelled, TaskFailed
from absurd.model import Task
from absurd.redaction import discreet

if TYPE_CHECKING:
    from absurd.client_sync import SyncAbsurdClient

LOOK_SECONDS = 0.25
"""How often the progress bar looks."""
BAR_WIDTH = 24
ENDED = ("completed", "failed", "cancelled")

Document = dict[str, Any]


def wait_for(client: SyncAbsurdClient, task_id: str, timeout: float | None, *, show: bool) -> Document:
    """The task's document after its end, however it ended.  Raises WaitTimeoutError, TaskNotFoundError.

    On a terminal (and with `show`) progress is painted meanwhile.
    """
    from absurd.inspection import get_task_document

    deadline = None if timeout is None else time.monotonic() + timeout
    painter = Painter()
    try:
        with suppress(DatabaseUnavailableError):  # the wait below bears an outage
            while show and painter.visible and (deadline is None or time.monotonic() < deadline):
                document = client.run(get_task_document(task_id))
                if document["state"] in ENDED:
                    break
                painter.paint(document)
                time.sleep(LOOK_SECONDS)
        # Its files may still be on their way; and without a terminal this is all the waiting.
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        with suppress(TaskFailed, TaskCancelled):  # the document tells
            client.wait(task_id, timeout=left)
    except KeyboardInterrupt:
        painter.clear()
        note(f"Only the wait has ended, the task goes on: `absurd task wait {task_id}`.")
        raise
    finally:
        painter.clear()
    return discreet(in_order(client.run(get_task_document(task_id)), *Task.__dataclass_fields__))


def report(document: Document, *, as_json: bool) -> None:
    """Print what a task that has ended leaves; raises TaskFailed or TaskCancelled when it did not complete."""
    if as_json:
        emit(document, as_json=True)
        if document["state"] != "completed":
            raise click.exceptions.Exit(1)
        return
    name = f"task {document['id']} ({document['name']})"
    if document["state"] == "failed":
        told = (document["error"] or {}).get("message", "no reason was kept")
        raise TaskFailed(f"{name} failed, attempt {document['attempts']} was the last: {told}", id=document["id"])
    if document["state"] == "cancelled":
        raise TaskCancelled(f"{name} was cancelled: {document['reason'] or 'no reason was given'}", id=document["id"])
    took = duration(apart(document["started_at"] or document["created_at"], document["finished_at"]))
    lines = [f"{click.style('Completed', fg='green')} in {took}."]
    if document["result"] is not None:
        lines.append(_result(document["result"]))
    if document["artifacts"]:
        lines.append(str(artifact_table(document["artifacts"])))
    emit(None, as_json=False, text="\n".join(lines))


def _result(result: Any) -> str:
    """An object field by field, anything else as JSON."""
    import json

    if not isinstance(result, dict) or not result:
        return clean(json.dumps(result, ensure_ascii=False))
    width = max(map(len, result))
    texts = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in result.values()]
    return "\n".join(f"  {clean(key):<{width}}  {clean(text)}" for key, text in zip(result, texts, strict=True))


class Painter:
    """One line at the bottom of a terminal, painted over and over; nothing where stderr is not a terminal."""

    def __init__(self) -> None:
        self.visible = sys.stderr.isatty()
        self._begun = time.monotonic()

    def paint(self, task: Document) -> None:
        """Show how far the task is."""
        if self.visible:
            line = describe(task, time.monotonic() - self._begun, _columns())
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)

    def clear(self) -> None:
        """Take the line away."""
        if self.visible:
            click.echo("\r\x1b[K", nl=False, err=True)


def describe(task: Document, elapsed: float, columns: int = 80) -> str:
    """One line: state, bar and message, time."""
    state = task["state"] if task["attempts"] < 2 else f"{task['state']}, attempt {task['attempts']}"
    told = task["progress"]
    bar = ""
    if told and told["total"]:
        filled = round(BAR_WIDTH * min(1.0, max(0.0, told["done"] / told["total"])))
        bar = f" [{'█' * filled}{'·' * (BAR_WIDTH - filled)}]"
    return clean(f"{state}{bar} {progress(told) if told else ''}".rstrip() + f"  {duration(elapsed)}")[: columns - 1]


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns
