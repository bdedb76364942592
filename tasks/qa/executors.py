"""``qa.calibration``, ``qa.image``, ``qa.mosaic``: gates on the queue."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from absurd.artifact_path import artifact_path
from absurd.context import RunContext
from absurd.executor import executor
from absurd.retry import ErrorRule, RetryPolicy
from absurd.tasks.qa.image_params import ImageParams, MosaicParams, SkyParams
from absurd.tasks.qa.params import CalibrationParams

if TYPE_CHECKING:
    from absurd.tasks.qa.report import QualityReport

for module in ("astropy", "casacore", "numba", "numpy", "scipy", "zarr"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[radio]", name=module)

_STAGES = ("reading", "measuring", "deciding")
_NEVER_AGAIN = RetryPolicy(rules=(ErrorRule(exception="QualityError", action="reject"),))
"""What did not pass a gate would not pass it again either."""


@executor("qa.calibration", runs_in="process", retry=_NEVER_AGAIN)
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


@executor("qa.image", runs_in="process", retry=_NEVER_AGAIN)
def image(ctx: RunContext, params: ImageParams) -> dict[str, Any]:
    """Measure an image at all gates; fail, and quarantine its files and its product, if it does not pass one.

    Its noise is held against what the visibilities promise, its sources against a catalogue.  A candidate that passes
    is accepted.  The result tells verdict, warnings, all measures, where the report is, and the paths of what lies
    beside the image, by which a mosaic knows its tiles; a failure tells the reasons, and is not tried again.
    """
    from absurd.tasks.qa.images import check_image, files_beside

    result = _judged(ctx, params, lambda paths, told: check_image(params, paths, told))
    path = artifact_path(params.image)
    return result | {"paths": {"image": path, **files_beside(path)}}


@executor("qa.mosaic", runs_in="process", retry=_NEVER_AGAIN)
def mosaic(ctx: RunContext, params: MosaicParams) -> dict[str, Any]:
    """Measure a mosaic at all gates; fail, and quarantine its files and its product, if it does not pass one.

    Its noise map is held against the scatter of its pixels, its sources against a catalogue.  All else is as of
    qa.image.
    """
    from absurd.tasks.qa.images import check_mosaic

    return _judged(ctx, params, lambda paths, told: check_mosaic(params, paths, told))


_Check = Callable[[Mapping[str, str], Callable[[str], object]], "QualityReport"]


def _judged(ctx: RunContext, params: SkyParams, check: _Check) -> dict[str, Any]:
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.qa.assess import refuse
    from absurd.tasks.qa.images import files_beside
    from absurd.tasks.qa.judging import files_of, keep, refuse_again, require_present

    def progress(stage: str) -> None:
        ctx.progress(_STAGES.index(stage), len(_STAGES), stage)

    path = artifact_path(params.image)
    with SyncAbsurdClient.from_env() as client:
        product = client.find_product(path)
        if product is not None and product["state"] == "quarantined":
            raise refuse_again(product, path, move=params.quarantine)
        require_present(path, product)
        report = check(files_beside(path), progress)
        kept = keep(report, params)
        progress("deciding")  # ends the run where its claim is lost: what replaced it decides the same
        told = report.to_json()
        if report.verdict == "fail":
            if product is not None:
                client.quarantine_product(product["id"], "; ".join(report.reasons), told["measures"])
            ctx.log.error("image_refused", subject=report.subject, reasons=report.reasons)
            raise refuse(report, files_of(path, product), kept=kept, move=params.quarantine)
    for warning in report.warnings:
        ctx.log.warning("image_remark", remark=warning)
    result = {"verdict": report.verdict, "warnings": report.warnings, "measures": told["measures"], "report": kept}
    if product is not None:
        ctx.product("qa", {"product": product["id"], "measures": told["measures"]})
        result["product"] = product["id"]
    return result
