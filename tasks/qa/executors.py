"""``qa.calibration``: gates on the queue."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from absurd.context import RunContext
from absurd.executor import executor
from absurd.retry import ErrorRule, RetryPolicy
from absurd.tasks.qa.params import CalibrationParams

for module in ("casacore", "numba", "numpy", "zarr"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[radio]", name=module)

_STAGES = ("reading", "measuring", "deciding")


@executor(
    "qa.calibration",
    runs_in="process",
    retry=RetryPolicy(rules=(ErrorRule(exception="QualityError", action="reject"),)),  # it would not pass again either
)
def calibration(ctx: RunContext, params: CalibrationParams) -> dict[str, Any]:
    """Measure a calibration at all gates; fail, and quarantine its gain sets, if it does not pass one.

    The observed closure phases have to be those of the model, or of a point source, whatever the gains make of the
    visibilities.  The result tells verdict, warnings, all measures and where the report is; a failure tells the
    reasons, and is not tried again.
    """
    from absurd.tasks.qa.assess import assess, keep, refuse
    from absurd.tasks.radio.errors import QualityError

    def progress(stage: str) -> None:
        ctx.progress(_STAGES.index(stage), len(_STAGES), stage)

    row = _row(params)
    sets = dict.fromkeys(params.sets) if row is None else {row["path"]: row["checksum"]}
    try:
        report = assess(params, sets, row, progress)
    except QualityError as error:  # of a run that was killed between its two decisions
        _quarantine(params, sets, error.message, error.details)
        raise
    kept = keep(report, params, list(sets))
    progress("deciding")  # ends the run where its claim is lost: what replaced it decides the same
    told = report.to_json()
    if report.verdict == "fail":
        _quarantine(params, sets, "; ".join(report.reasons), told)
        ctx.log.error("calibration_refused", subject=report.subject, reasons=report.reasons)
        raise refuse(report, list(sets), kept=kept, move=params.quarantine)
    for warning in report.warnings:
        ctx.log.warning("calibration_remark", remark=warning)
    result = {"verdict": report.verdict, "warnings": report.warnings, "measures": told["measures"], "report": kept}
    if params.gain_set is not None:
        from absurd.client_sync import SyncAbsurdClient

        with SyncAbsurdClient.from_env() as client:
            result |= {"gain_set": params.gain_set, "state": client.accept_gain_set(params.gain_set, _summary(told))}
    return result


def _row(params: CalibrationParams) -> dict[str, Any] | None:
    """What the database has of the gain set that is judged, if it is one of the database."""
    from absurd.tasks.radio.errors import DataError

    if params.gain_set is None:
        return None
    from absurd.client_sync import SyncAbsurdClient

    with SyncAbsurdClient.from_env() as client:
        row = client.get_gain_set(params.gain_set)
    if row is None:
        raise DataError(f"there is no gain set {params.gain_set}", gain_set=params.gain_set)
    return row


def _quarantine(params: CalibrationParams, sets: Mapping[str, str | None], reason: str, told: dict[str, Any]) -> None:
    """First what the database has of the sets, so that nobody chooses them, and then their folders; again is the same.

    A folder that is judged as it lies, and is not to be moved, has its row left alone too.
    """
    if params.gain_set is None and not (sets and params.quarantine):
        return
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.qa.assess import checksum_of

    with SyncAbsurdClient.from_env() as client:
        for path, checksum in sets.items():
            row = client.get_stored_gain_set(os.path.abspath(path), checksum or checksum_of(path))
            if row is not None:
                client.quarantine_gain_set(row["id"], reason, _summary(told))


def _summary(told: dict[str, Any]) -> dict[str, Any]:
    """What the database keeps of a report: verdict, and values by gate."""
    values = {}
    for each in told.get("measures", []):
        values[f"{each['gate']}.{each['of']}" if each["of"] else each["gate"]] = each["value"]
    return {"verdict": told.get("verdict", "fail"), "values": values}
