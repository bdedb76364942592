"""A task's document as a story for one screen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from absurd.cli.output import CONTROL, Cell, Table, clean, duration, moment, plural, size, styled
from absurd.cli.values import seconds_since

TRACEBACK = 12
"""Lines of a traceback that are shown here."""
MUCH = 400
"""Characters of params or result that are shown here; ``--json`` has them all."""


def tell(task: dict[str, Any], why: str) -> str:
    """What the task is, how it stands and why, what it made, and all that happened, in order."""
    head = f"{click.style(clean(task['name']), bold=True)}  {task['id']}  {styled(task['state'])}"
    parts = [f"{head}\n{clean(why)}", "\n".join(f"  {name:<11} {value}" for name, value in facts(task) if value)]
    if task.get("artifacts"):
        parts.append(str(artifact_table(task["artifacts"])))
    parts.append(str(Table(("time", "after", "what happened", "where"), transitions(task), shrink="what happened")))
    if task["error"] and task["error"].get("traceback"):
        parts.append(traceback(task["error"]["traceback"]))
    return "\n\n".join(parts)


def facts(task: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The fields worth a line, by name; an empty one is left out by the caller."""
    attempts = task["attempts"]
    limit = f" of {task['max_attempts']}" if task.get("max_attempts") else ""
    yield "queue", clean(task["queue"]) + (f", priority {task['priority']}" if task["priority"] else "")
    yield "spawned", f"{moment(task['created_at'])} ({duration(seconds_since(task['created_at']))} ago)"
    yield "attempts", f"{attempts}{limit}" if attempts or limit else ""
    yield "time limit", duration(task.get("timeout"))
    yield "key", clean(task["key"] or "")
    yield "lane", clean(task.get("lane") or "")
    yield "needs", ", ".join(f"{clean(name)} {amount:g}" for name, amount in (task.get("needs") or {}).items())
    yield "deadline", ", ".join(f"{kind} by {moment(due)}" for kind, due in (task.get("deadlines") or {}).items())
    yield "tags", clean(", ".join(task.get("tags") or ()))
    if task.get("workflow_id"):
        yield (
            "workflow",
            f"{clean(task.get('workflow') or '')} {task['workflow_id']}, node {clean(task.get('node') or '?')}",
        )
    yield "waits for", ", ".join(task["depends_on"])
    if children := task.get("children"):
        more = f" and {len(children) - 5} more" if len(children) > 5 else ""
        yield "waited for by", ", ".join(children[:5]) + more
    yield "params", brief(task["params"])
    yield "headers", brief(task["headers"]) if task["headers"] else ""
    yield "progress", progress(task["progress"]) if task["progress"] else ""
    yield "log", written(task["log"]) if task.get("log") else ""
    yield "result", brief(task["result"]) if task["result"] is not None else ""
    yield "error", fault(task["error"]) if task["error"] else ""


def transitions(task: dict[str, Any]) -> list[tuple[str, str, Any, str]]:
    """Everything that happened, by time: when, how long after the spawn, what, on which worker."""
    events: list[tuple[str, Any, str]] = [(task["created_at"], "spawned", "")]
    for run in task["runs"]:
        name, worker = f"attempt {run['attempt']}", run["worker"] or ""
        if run["started_at"]:
            events.append((run["started_at"], Cell(f"{name} started", "running"), worker))
        if run["finished_at"]:
            words = run["state"] if run["started_at"] else f"{run['state']} before it started"
            told = f"{name} {words}" if run["started_at"] or run["attempt"] else words
            if run["started_at"]:
                told += f" after {duration(apart(run['started_at'], run['finished_at']))}"
            if run["error"]:
                told += f": {fault(run['error'])}"
            events.append((run["finished_at"], Cell(told, run["state"]), worker))
    for entry in task.get("history", ()):
        detail = f": {changes(entry['detail'])}" if entry["detail"] else ""
        events.append((entry["at"], f"{entry['action']}{detail}", entry["actor"] or ""))
    events.sort(key=lambda each: datetime.fromisoformat(each[0]))
    if task["run_at"] and task["state"] == "sleeping":
        events.append((task["run_at"], Cell("due again", "sleeping"), ""))
    start = task["created_at"]
    return [
        (clock(time), duration(apart(start, time)) if time != start else "", what, who) for time, what, who in events
    ]


def changes(detail: str) -> str:
    """What an entry of the history says: for an edit what was changed, from what to what; else its text."""
    try:
        changed = json.loads(detail)
    except ValueError:
        return clean(detail)
    if not isinstance(changed, dict):
        return clean(detail)
    return "; ".join(
        f"{name} {brief(each['old'])} → {brief(each['new'])}"
        if isinstance(each, dict) and each.keys() == {"old", "new"}
        else f"{name} {brief(each)}"
        for name, each in changed.items()
    )


def artifact_table(artifacts: list[dict[str, Any]]) -> Table:
    """Files with their kind and size."""
    rows = [(each["path"], each["kind"], size(each["bytes"])) for each in artifacts]
    return Table(("file", "kind", "size"), rows, right=("size",))


def written(log: dict[str, Any]) -> str:
    """How much a task's runs have written, and where to read it."""
    dropped = f", {size(log['dropped_bytes'])} more were dropped" if log["dropped_bytes"] else ""
    return f"{size(log['bytes'])} in {plural(log['lines'], 'line')}{dropped} (absurd task logs)"


def progress(told: dict[str, Any]) -> str:
    """``40 of 100 (40 %) writing``."""
    done, total, message = told["done"], told["total"], clean(told["message"] or "")
    amount = f"{done:g} of {total:g} ({100 * done / total:.0f} %)" if total else f"{done:g}"
    return f"{amount} {message}".rstrip()


def fault(error: dict[str, Any]) -> str:
    """``ValueError: no such band``."""
    return clean(f"{error.get('type') or error.get('code') or 'error'}: {error.get('message', '')}")


def traceback(text: str) -> str:
    """The end of a traceback, where the reason is."""
    lines = text.rstrip().splitlines()
    cut = ["  …"] if len(lines) > TRACEBACK else []
    return "\n".join(cut + ["  " + CONTROL.sub(" ", line) for line in lines[-TRACEBACK:]])


def brief(value: Any) -> str:
    """JSON in one line, cut when it is long."""
    text = clean(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= MUCH else f"{text[:MUCH]}… ({plural(len(text), 'character')}; --json shows all)"


def clock(time: str) -> str:
    """A time in the reader's zone to the millisecond."""
    return datetime.fromisoformat(time).astimezone().isoformat(" ", "milliseconds")


def apart(start: str, end: str) -> float:
    """Seconds between two times."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
