"""Outcomes on their way to the database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from absurd.call import Call, Row
from absurd.model import Claim
from absurd.outcome import Cancelled, Completed, Failed, Outcome, Returned, Suspended
from absurd.workers.calls import Reports


class Report(NamedTuple):
    """How a claimed run ended.  `started` is in monotonic seconds, None for a run that never was."""

    claim: Claim
    started: float | None
    outcome: Outcome


def is_plain(report: Report) -> bool:
    """Whether a report is a completion without files, which goes with the next step."""
    return type(report.outcome) is Completed and not report.outcome.artifacts


def completions(reports: Sequence[Report], now: float) -> Reports:
    """Plain completions as the parallel arrays of a step."""
    return Reports(
        [report.claim.lease for report in reports],
        [report.claim.task_id for report in reports],
        [int((now - report.started) * 1000) for report in reports],  # type: ignore[operator]  # completed: started
        [report.outcome.result for report in reports],  # type: ignore[union-attr]  # completed: has a result
    )


def calls(reports: Iterable[Report], now: float, *, dead_letters: bool) -> list[tuple[Call[Sequence[UUID]], list[Report]]]:
    """The calls that record `reports` of any kind, one for each kind, with the reports it records."""
    by_kind: dict[type[Outcome], list[Report]] = {}
    for report in reports:
        by_kind.setdefault(type(report.outcome), []).append(report)
    return [(_BUILDERS[kind](group, now, dead_letters), group) for kind, group in by_kind.items()]


def _call(function: str, casts: str, group: Sequence[Report], now: float, *columns: list[Any]) -> Call[Sequence[UUID]]:
    ages = [None if report.started is None else int((now - report.started) * 1000) for report in group]
    return Call(
        f"select {{schema}}.{function}($1::bigint[], $2::uuid[], $3::integer[]{casts}) as stale",
        ([report.claim.lease for report in group], [report.claim.task_id for report in group], ages, *columns),
        _stale,
    )


def _stale(rows: Sequence[Row]) -> Sequence[UUID]:
    return rows[0]["stale"] or ()


def _outcomes(group: Sequence[Report]) -> list[Any]:
    return [report.outcome for report in group]


def _completed(group: Sequence[Report], now: float, dead_letters: bool) -> Call[Sequence[UUID]]:
    artifacts = [
        {
            "task": str(report.claim.task_id),
            "path": artifact.path,
            "attempt_path": artifact.attempt_path,
            "kind": artifact.kind,
            "sha256": artifact.sha256,
            "bytes": artifact.bytes,
        }
        for report in group
        for artifact in report.outcome.artifacts  # type: ignore[union-attr]
    ]
    results = [outcome.result for outcome in _outcomes(group)]
    return _call("complete_runs", ", $4::text[], $5::text::jsonb", group, now, results, json.dumps(artifacts))


def _failed(group: Sequence[Report], now: float, dead_letters: bool) -> Call[Sequence[UUID]]:
    errors = [json.dumps(outcome.error) for outcome in _outcomes(group)]
    delays = [outcome.delay for outcome in _outcomes(group)]
    return _call(
        "fail_runs", ", $4::text[], $5::double precision[], $6::boolean", group, now, errors, delays, dead_letters
    )


def _suspended(group: Sequence[Report], now: float, dead_letters: bool) -> Call[Sequence[UUID]]:
    return _call(
        "suspend_runs",
        ", $4::double precision[], $5::text[], $6::text[]",
        group,
        now,
        [outcome.delay for outcome in _outcomes(group)],
        [outcome.reason for outcome in _outcomes(group)],
        [outcome.event for outcome in _outcomes(group)],
    )


def _returned(group: Sequence[Report], now: float, dead_letters: bool) -> Call[Sequence[UUID]]:
    return _call("return_runs", "", group, now)


def _cancelled(group: Sequence[Report], now: float, dead_letters: bool) -> Call[Sequence[UUID]]:
    return _call("cancel_runs", ", $4::text[]", group, now, [outcome.reason for outcome in _outcomes(group)])


_BUILDERS: dict[type[Outcome], Callable[[Sequence[Report], float, bool], Call[Sequence[UUID]]]] = {
    Completed: _completed,
    Failed: _failed,
    Suspended: _suspended,
    Returned: _returned,
    Cancelled: _cancelled,
}
