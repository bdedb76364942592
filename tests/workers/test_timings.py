"""Times of runs and of waits for the first one, as a worker tells them."""

from __future__ import annotations

import time
from functools import partial
from uuid import UUID

from absurd.executor import Executor
from absurd.metrics import Sample
from absurd.model import Claim
from absurd.outcome import Completed, Failed, Outcome, Returned, Suspended
from absurd.workers.runs.timings import Timings

AN_HOUR_AGO = UUID(int=(int((time.time() - 3600) * 1000) << 80) | (7 << 76) | (2 << 62))


def _told(timings: Timings, name: str, suffix: str = "") -> list[tuple[float, dict[str, str]]]:
    found: list[Sample] = [each for each in timings.samples() if (each.name, each.suffix) == (name, suffix)]
    return [(each.value, dict(each.labels)) for each in found]


async def _execute(claim: Claim, executor: Executor) -> Outcome | None:
    ended: Outcome | None = executor(None, None)
    return ended


async def test_a_start_is_counted_once() -> None:
    """Of the first run that comes to an end: none of what was handed back or lost, of retries, of what suspends."""
    timings = Timings()
    ends: list[tuple[str, int, Outcome | None]] = [
        ("a", 1, Returned()),
        ("a", 1, None),
        ("a", 1, Failed({"code": "boom"}, 0.0)),
        ("a", 2, Completed()),
        ("b", 1, Suspended("sleep", 1.0)),
        ("b", 1, Completed()),
    ]
    for name, attempt, outcome in ends:
        ending = Executor(name, partial(lambda ended, *_: ended, outcome), runs_in="loop")
        assert await timings.around(_execute)(Claim(1, AN_HOUR_AGO, attempt, name, "q", {}), ending) is outcome

    assert [(1, {"queue": "q"})] == _told(timings, "absurd_task_start_seconds", "_count")
    ((waited, _),) = _told(timings, "absurd_task_start_seconds", "_sum")
    assert 3599 < waited < 7200
    assert [(4, {"executor": "a"}), (2, {"executor": "b"})] == _told(timings, "absurd_run_seconds", "_count")
    told = {(of["executor"], of["outcome"]) for _, of in _told(timings, "absurd_runs_total")}
    assert told == {("a", ended) for ended in ("completed", "failed", "lost", "returned")} | {
        ("b", "completed"), ("b", "suspended"),
    }  # fmt: skip
