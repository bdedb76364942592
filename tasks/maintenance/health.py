"""Whether all is well: what the queue says of itself, and what can be seen from a worker's machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CODES = frozenset({
    # of get_status
    "alert_firing", "alert_undelivered", "cluster_missing", "dead_letters", "executor_unknown", "needs_unmet",
    "queue_paused", "queue_unserved", "runs_not_recovered", "schedule_failed", "schedules_overdue", "scratch_full",
    "snapshot_held", "worker_held_up", "worker_lost", "worker_polls",
    # of this module
    "clock_skewed", "disk_low", "folder_missing", "pending_old",
})  # fmt: skip
"""Codes of the problems that can be found."""

ANY = "any"
"""Stands for all of them."""


@dataclass(frozen=True, slots=True)
class Health:
    """What was found."""

    problems: Sequence[Mapping[str, Any]]
    """Each with code, message and action, as `absurd status` shows them."""
    dead_letters: int
    oldest_pending_seconds: float
    free_bytes: Mapping[str, int]
    """Free room for each folder."""

    def of(self, codes: Iterable[str]) -> list[Mapping[str, Any]]:
        """The problems of these codes; ``any`` means all."""
        wanted = set(codes)
        return [each for each in self.problems if ANY in wanted or each["code"] in wanted]


def examine(
    status: Mapping[str, Any],
    folders: Sequence[str],
    *,
    min_free: int,
    max_pending: float | None,
    skew: float,
    max_skew: float,
) -> Health:
    """Put together what `status` (of ``get_status``) says and what this machine shows.

    `min_free` is in bytes.  A task that waits for longer than `max_pending` seconds in a queue that is not paused is a
    problem; None lets them wait.  `skew` is by how many seconds this machine's clock is ahead of the database's.
    """
    problems = list(status["problems"])
    waits = {each["name"]: each["oldest_pending_seconds"] or 0.0 for each in status["queues"] if not each["paused"]}
    for name, seconds in waits.items():
        if max_pending is not None and seconds > max_pending:
            message = f"a task of queue {name} has been pending for {seconds:.0f} s, more than {max_pending:.0f} s"
            problems.append(_problem("pending_old", message, f"absurd-worker --queue {name}"))
    free = {}
    for folder in folders:
        try:
            free[folder] = shutil.disk_usage(folder).free
        except OSError as error:
            message = f"the folder {folder} cannot be looked at: {error.strerror}"
            problems.append(_problem("folder_missing", message, f"mount it, or make it: mkdir -p {folder}"))
            continue
        if free[folder] < min_free:
            message = f"{free[folder] / 1e9:,.1f} GB are free in {folder}, less than {min_free / 1e9:,.1f} GB"
            problems.append(_problem("disk_low", message, "make room, or prune old products"))
    if abs(skew) > max_skew:
        way = "ahead of" if skew > 0 else "behind"
        message = f"the clock of this machine is {abs(skew):.1f} s {way} the database's"
        problems.append(_problem("clock_skewed", message, "let NTP set both clocks"))
    return Health(
        problems=problems,
        dead_letters=int(status["dead_letters"]),
        oldest_pending_seconds=max(waits.values(), default=0.0),
        free_bytes=free,
    )


def existing(folder: Path) -> Path:
    """The folder, or the one above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _problem(code: str, message: str, action: str) -> dict[str, str]:
    return {"code": code, "message": message, "action": action}
