"""What a person sees while waiting, and at the end."""

from __future__ import annotations

from typing import Any

import pytest

from absurd.cli.waiting import describe, report
from absurd.errors import TaskCancelled, TaskFailed

TASK: dict[str, Any] = {
    "id": "0198c0de-7a3b-7c55-9d1e-3f0a5b6c7d8e",
    "name": "demo.add",
    "state": "running",
    "attempts": 1,
    "created_at": "2027-01-31T21:30:00+00:00",
    "started_at": "2027-01-31T21:30:01+00:00",
    "finished_at": "2027-01-31T21:30:03.5+00:00",
    "progress": None,
    "result": None,
    "error": None,
    "reason": None,
    "artifacts": [],
}


def progress(done: float, total: float | None, message: str | None = None) -> dict[str, Any]:
    """A progress as the database gives it."""
    return {"progress": {"done": done, "total": total, "message": message}}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"state": "pending", "attempts": 0}, "pending  12 s"),
        ({"attempts": 2}, "running, attempt 2  12 s"),
        (progress(6, 24, "row groups"), "running [██████··················] 6 of 24 (25 %) row groups  12 s"),
        (progress(30, 24), "running [████████████████████████] 30 of 24 (125 %)  12 s"),
        (progress(1.5, None, "GB\x1b[2J"), "running 1.5 GB [2J  12 s"),
        (progress(0, 0), "running 0  12 s"),
    ],
)
def test_progress_line(changes: dict[str, Any], line: str) -> None:
    """State, bar and message, time; a total that is unknown, passed or zero does no harm."""
    assert line == describe(TASK | changes, 12.0)


def test_progress_line_fits() -> None:
    """A long message does not break the line."""
    assert 39 == len(describe(TASK | progress(1, 2, "x" * 200), 12.0, columns=40))


def test_report_of_a_completed_task(capsys: pytest.CaptureFixture[str]) -> None:
    """How long it took, its result field by field, and its files."""
    files = [{"path": "/data/x.fits", "kind": "fits", "sha256": None, "bytes": 1_200_000}]

    report(TASK | {"state": "completed", "result": {"rows": 3, "path": "x"}, "artifacts": files}, as_json=False)

    assert [
        "Completed in 2.5 s.",
        "  rows  3",
        "  path  x",
        "file          kind    size",
        "/data/x.fits  fits  1.2 MB",
    ] == capsys.readouterr().out.splitlines()


def test_report_of_other_ends() -> None:
    """A failure and a cancellation are errors, with the reason."""
    with pytest.raises(TaskFailed, match="attempt 1 was the last: no band"):
        report(TASK | {"state": "failed", "error": {"message": "no band"}}, as_json=False)
    with pytest.raises(TaskCancelled, match="was cancelled: clouds"):
        report(TASK | {"state": "cancelled", "reason": "clouds"}, as_json=False)
