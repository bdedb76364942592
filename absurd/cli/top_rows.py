"""Rows of the tables of ``absurd top``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text
from textual.widgets import DataTable

from absurd.cli.output import clean, duration
from absurd.cli.values import seconds_since

COLUMNS = {
    "queues": ("queue", "pending", "running", "sleeping", "blocked", "failed", "oldest waits"),
    "workers": ("worker", "host", "state", "slots", "queues", "last seen"),
    "tasks": ("task", "executor", "queue", "state", "priority", "attempts", "age", "tags"),
}
"""By table."""
COLOURS = {
    "running": "blue",
    "pending": "yellow",
    "sleeping": "magenta",
    "blocked": "bright_black",
    "completed": "green",
    "failed": "red",
    "lost": "red",
    "cancelled": "bright_black",
}
"""Of states; the word is there too."""


def queue_row(each: Mapping[str, Any]) -> list[Text]:
    """A queue, how many of its tasks are in which state, and how long the oldest has waited."""
    name = Text(clean(each["name"]))
    if each["paused"]:
        name.append(" paused", "yellow")
    counts = [_number(each[state], state) for state in ("pending", "running", "sleeping", "blocked", "failed")]
    return [name, *counts, Text(duration(each["oldest_pending_seconds"]), justify="right")]


def worker_row(each: Mapping[str, Any]) -> list[Text]:
    """A worker, its slots and when it was last heard of."""
    state = "draining" if each["draining"] else each["state"]
    slots = Text(f"{each['running']} of {each['concurrency']}", justify="right")
    return [
        *(Text(clean(each["name"])), Text(clean(each["host"])), _state(state), slots),
        *(Text(clean(", ".join(each["queues"]))), _age(each["last_seen"])),
    ]


def task_row(each: Mapping[str, Any]) -> list[Text]:
    """A task as in a list."""
    return [
        *(Text(f"…{each['id'][-12:]}"), Text(clean(each["name"])), Text(clean(each["queue"])), _state(each["state"])),
        *(Text(str(each["priority"]), justify="right"), Text(str(each["attempts"]), justify="right")),
        *(_age(each["created_at"]), Text(clean(", ".join(each["tags"])))),
    ]


def fill(table: DataTable[Text], rows: Sequence[tuple[str, list[Text]]]) -> None:
    """Put rows into a table in place of those it has; its cursor stays on the row of the same key."""
    key, place, top = key_under_cursor(table), table.cursor_row, table.scroll_y
    table.clear()
    for name, cells in rows:
        table.add_row(*cells, key=name)
    keys = [name for name, _ in rows]
    if keys:
        table.move_cursor(row=keys.index(key) if key in keys else min(place, len(keys) - 1), scroll=False)
        table.scroll_y = top


def key_under_cursor(table: DataTable[Text]) -> str | None:
    """What the row under the cursor was called when it was put in; None in an empty table."""
    if not table.is_valid_row_index(table.cursor_row):
        return None
    return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value


def _number(count: int, state: str) -> Text:
    return Text(f"{count:,}", style=COLOURS[state] if count else "", justify="right")


def _state(state: str) -> Text:
    return Text(clean(state), style=COLOURS.get(state, ""))


def _age(time: str | None) -> Text:
    return Text(duration(seconds_since(time)), justify="right")
