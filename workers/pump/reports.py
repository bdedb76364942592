"""Outcomes on their way to the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from absurd import claims
from absurd.call import Call
from absurd.model import Claim
from absurd.outcome import Cancelled, Completed, Failed, Outcome, Returned, Suspended
from absurd.workers.pump.calls import Reports

LONGEST_AGE = 2_000_000.0
"""Longest time since the start of a run that is told, in seconds: in milliseconds it must fit an integer of 32 bits."""


class Report(NamedTuple):
    """How a claimed run ended.  `started` is in monotonic seconds, None for a run that never was."""

    claim: Claim
    started: float | None
    outcome: Outcome


def is_plain(report: Report) -> bool:
    """Whether a report is a completion without files, spawns or products, which goes with the next step."""
    outcome = report.outcome
    return type(outcome) is Completed and not (outcome.artifacts or outcome.spawns or outcome.products)


def spawns_of(report: Report) -> tuple[dict[str, Any], ...]:
    """What a run has spawned that is written with its report."""
    return report.outcome.spawns if isinstance(report.outcome, Completed | Suspended) else ()


def _may_be_refused(report: Report) -> bool:
    """Whether the database may refuse a report for what it tells beside the end of the run."""
    return bool(spawns_of(report)) or (isinstance(report.outcome, Completed) and bool(report.outcome.products))


def _age_ms(report: Report, now: float) -> int | None:
    return None if report.started is None else int(min(now - report.started, LONGEST_AGE) * 1000)


def completions(reports: Sequence[Report], now: float) -> Reports:
    """Plain completions as the parallel lists of a step."""
    return Reports(
        [report.claim.lease for report in reports],
        [report.claim.task_id for report in reports],
        [_age_ms(report, now) or 0 for report in reports],
        [report.outcome.result if type(report.outcome) is Completed else None for report in reports],
    )


def calls_for(
    reports: Iterable[Report], now: float, *, dead_letters: bool
) -> list[tuple[Call[list[UUID]], list[Report]]]:
    """The calls that record `reports` of any kind: one for each kind, with the reports it records.

    Whoever has spawned or has products gets a call of its own, so that one which is refused undoes nobody else's
    report.
    """
    by_kind: dict[tuple[type[Outcome], UUID | None], list[Report]] = {}
    for report in reports:
        alone = report.claim.task_id if _may_be_refused(report) else None
        by_kind.setdefault((type(report.outcome), alone), []).append(report)
    calls = []
    for (kind, _), group in by_kind.items():
        leases = [report.claim.lease for report in group]
        tasks = [report.claim.task_id for report in group]
        ages = [_age_ms(report, now) for report in group]
        calls.append((_CALLS[kind](leases, tasks, ages, [report.outcome for report in group], dead_letters), group))
    return calls


# One builder for each kind of outcome ------------------------------------------------------------

_Leases: TypeAlias = list[int]
_Tasks: TypeAlias = list[UUID]
_Ages: TypeAlias = list[Any]
_Outcomes: TypeAlias = list[Any]


def _complete(leases: _Leases, tasks: _Tasks, ages: _Ages, ends: _Outcomes, dead_letters: bool) -> Call[list[UUID]]:
    artifacts = [
        {
            "task": str(task),
            "path": artifact.path,
            "attempt_path": artifact.attempt_path,
            "kind": artifact.kind,
            "sha256": artifact.sha256,
            "bytes": artifact.bytes,
        }
        for task, end in zip(tasks, ends, strict=True)
        for artifact in end.artifacts
    ]
    spawns = [each for end in ends for each in end.spawns]
    products = [{"task": str(task)} | each for task, end in zip(tasks, ends, strict=True) for each in end.products]
    return claims.complete_runs(leases, tasks, ages, [end.result for end in ends], artifacts, spawns, products)


def _fail(leases: _Leases, tasks: _Tasks, ages: _Ages, ends: _Outcomes, dead_letters: bool) -> Call[list[UUID]]:
    errors, delays = [json.dumps(end.error) for end in ends], [end.delay for end in ends]
    amends = [end.amend for end in ends]
    return claims.fail_runs(leases, tasks, ages, errors, delays, dead_letters=dead_letters, amends=amends)


def _suspend(leases: _Leases, tasks: _Tasks, ages: _Ages, ends: _Outcomes, dead_letters: bool) -> Call[list[UUID]]:
    delays, reasons, events = zip(*((end.delay, end.reason, end.event) for end in ends), strict=True)
    spawns = [each for end in ends for each in end.spawns]
    awaits = [
        {"task": str(task), "on": end.awaits, "seconds": end.delay}
        for task, end in zip(tasks, ends, strict=True)
        if end.awaits
    ]
    return claims.suspend_runs(leases, tasks, ages, delays, reasons, events, spawns, awaits)


def _return(leases: _Leases, tasks: _Tasks, ages: _Ages, ends: _Outcomes, dead_letters: bool) -> Call[list[UUID]]:
    return claims.return_runs(leases, tasks, ages)


def _cancel(leases: _Leases, tasks: _Tasks, ages: _Ages, ends: _Outcomes, dead_letters: bool) -> Call[list[UUID]]:
    return claims.cancel_runs(leases, tasks, ages, [end.reason for end in ends])


_CALLS: dict[type[Outcome], Callable[[_Leases, _Tasks, _Ages, _Outcomes, bool], Call[list[UUID]]]] = {
    Completed: _complete,
    Failed: _fail,
    Suspended: _suspend,
    Returned: _return,
    Cancelled: _cancel,
}
