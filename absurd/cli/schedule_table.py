"""Schedules as a table, for ``absurd schedule list`` and ``absurd status``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from absurd.cli.output import Cell, Table, clean, plural


def schedule_table(schedules: list[dict[str, Any]]) -> Table:
    """One line for each schedule."""
    rows = [
        (
            each["name"],
            each["trigger"] + ("" if each["zone"] == "UTC" else f" {each['zone']}"),
            each["executor"],
            _next(each),
            local(each["last"]["due_at"]) if each["last"] else None,
            outcome(each["last"]) if each["last"] else None,
        )
        for each in schedules
    ]
    headers = ("schedule", "trigger", "executor", "next due", "last due", "outcome")
    return Table(headers, rows, shrink="outcome", empty="There are no schedules yet.")


def _next(each: dict[str, Any]) -> str | Cell:
    if each["error"]:
        return Cell(clean(each["error"]), "failed")
    if each["state"] == "paused":
        return Cell("paused", "warn")
    if each["over"]:
        return "never again"
    return local(each["next_due"]) if each["next_due"] else Cell("no scheduler has seen it yet", "warn")


def outcome(tick: dict[str, Any]) -> Cell:
    """What came of a time due, see `told`, in its colour."""
    return Cell(told(tick), "" if tick["task_id"] else "warn")


def told(tick: dict[str, Any]) -> str:
    """What came of a time due: the task, or why there is none."""
    if tick["task_id"]:
        return str(tick["task_id"])
    missed = f" ({plural(tick['missed'], 'time')})" if tick["missed"] > 1 else ""
    why = f": {clean(tick['detail'])}" if tick["detail"] else ""
    return f"skipped, {tick['skipped']}{missed}{why}"


def local(time: str) -> str:
    """A time for people, on the clocks of this machine."""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
