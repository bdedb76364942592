"""``calibration.solve``, ``calibration.self_calibrate`` and ``calibration.apply``: gains of antennas on the queue."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from absurd.context import RunContext
from absurd.executor import executor
from absurd.tasks.calibration.params import ApplyParams, SelfCalibrateParams, SolveParams

if TYPE_CHECKING:
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.calibration.calibrate import Calibrated
    from absurd.tasks.calibration.gain_table import Stored

for module in ("casacore", "numba", "numpy", "zarr"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[radio]", name=module)


@executor("calibration.solve", runs_in="process")
def solve(ctx: RunContext, params: SolveParams) -> dict[str, Any]:
    """Solve bandpass and gains of a calibrator's recording, store them as a gain set, and register it.

    The set is whole under its name before the database knows it.  The same recording and params give the same name,
    bits and row, whenever the task runs again.  The result tells number, state, path, checksum, for when and which
    declination it holds, its quality by table, and warnings.
    """
    from absurd.tasks.calibration.calibrate import calibrate, store

    def progress(stage: str) -> None:
        ctx.progress(_STAGES.index(stage), len(_STAGES), stage)

    calibrated = calibrate(params, progress, lambda: ctx.scratch)
    ctx.progress(3, len(_STAGES), "storing")
    stored = store(calibrated.gain_set, params.out)
    result: dict[str, Any] = {
        "path": stored.path,
        "checksum": stored.checksum,
        "bytes": stored.bytes,
        "source": calibrated.gain_set.tables[0].source,
        "warnings": list(calibrated.solution.warnings),
        "rounds": calibrated.solution.rounds,
        "converged": calibrated.solution.converged,
    }
    if params.casa_tables:
        result["casa_tables"] = _casa_tables(calibrated, stored, params)
    result |= _registered(ctx, calibrated, stored, params)
    for warning in calibrated.solution.warnings:
        ctx.log.warning("calibration_remark", remark=warning)
    ctx.log.info("gains_solved", path=stored.path, gain_set=result.get("gain_set"), source=result["source"])
    return result


@executor("calibration.self_calibrate", runs_in="process")
def self_calibrate(ctx: RunContext, params: SelfCalibrateParams) -> dict[str, Any]:
    """Solve gains of a recording against a model of its own sky in rounds, for as long as it helps, and store them.

    The gain set is not registered: it is of this recording alone, and ``calibration.apply`` takes its folder (`sets`).
    The same recording and params give the same name and bits.  The result tells path, checksum, each round with its
    signal to noise and chi-squared of what is left, and why it stopped; where no round helped the task fails.
    """
    from absurd.tasks.calibration.calibrate import store
    from absurd.tasks.calibration.recalibrate import recalibrate

    def progress(rounds: int, most: int) -> None:
        ctx.progress(rounds, most, "rounds")

    made = recalibrate(params, progress)
    stored = store(made.gain_set, params.out)
    gains = made.gain_set.tables[0]
    for warning in gains.warnings:
        ctx.log.warning("calibration_remark", remark=warning)
    ctx.log.info("gains_solved", path=stored.path, source=gains.source, stopped_by=made.stopped_by)
    return {
        "path": stored.path,
        "checksum": stored.checksum,
        "bytes": stored.bytes,
        "source": gains.source,
        "warnings": list(gains.warnings),
        "rounds": made.rounds,
        "stopped_by": made.stopped_by,
    }


@executor("calibration.apply", runs_in="process")
def apply(ctx: RunContext, params: ApplyParams) -> dict[str, Any]:
    """Correct a Measurement Set by the nearest gain set that holds, by one that is named, or by folders.

    Another one is written whole, or columns of this one are put at once, with a block of rows in memory.  The result
    tells path, bytes and checksum of the whole set that is corrected now (flagging changes it), the gain sets with age,
    distance and grade, how many visibilities were usable and had no gain, and which antennas have none.
    """
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.calibration.correct import correct

    def progress(rows: int, total: int) -> None:
        ctx.progress(rows, total, "rows")

    if params.sets:
        return correct(params, lambda *_: [], lambda _: None, progress)
    with SyncAbsurdClient.from_env() as client:
        result = correct(params, partial(_known, client), client.get_gain_set, progress)
    for each in result["gains"]:
        if each["borrowed"] or each["grade"] in {"stale", "critical"}:
            ctx.log.warning("gains_not_fresh", **each)
    return result


def _known(client: SyncAbsurdClient, telescope: str, at: datetime, declination: float) -> list[dict[str, Any]]:
    """Valid sets on both sides in time, and candidates: these are never taken, but told where none of those holds."""
    from absurd.tasks.calibration.validity import BORROW_DAYS

    span = timedelta(days=BORROW_DAYS)
    waiting = client.list_gain_sets(telescope, state="candidate", since=at - span, until=at + span, limit=_WAITING)
    return [*client.find_gain_sets(telescope, at, declination, limit=_NEAREST), *waiting]


_NEAREST = 50
"""Sets that are looked at on each side in time: of those of other folders or frequencies none may be taken."""
_WAITING = 1000
"""Candidates that are looked at, at most."""
_STAGES = ("reading", "predicting", "solving", "storing")


def _casa_tables(calibrated: Calibrated, stored: Stored, params: SolveParams) -> list[str]:
    from absurd.tasks.calibration.casa_export import write_casa_table

    visibilities = calibrated.visibilities
    paths = []
    for gains in calibrated.gain_set.tables:
        path = f"{os.path.splitext(stored.path)[0]}.{'bcal' if gains.kind == 'bandpass' else 'gcal'}"
        widths = visibilities.channel_width_hz
        width = float(abs(widths).sum() if gains.kind == "gain" else abs(widths).mean())
        write_casa_table(path, gains, visibilities.array, channel_width_hz=width, ms_name=params.ms)
        paths.append(path)
    return paths


def _registered(ctx: RunContext, calibrated: Calibrated, stored: Stored, params: SolveParams) -> dict[str, Any]:
    """Register the set, whose folder is whole by now, and tell what the database has of it.

    Of one that is registered only for when and where it holds changes, and of a quarantined one nothing.
    """
    from absurd.client_sync import SyncAbsurdClient
    from absurd.tasks.calibration.gain_record import record

    told = record(
        calibrated.gain_set,
        stored,
        calibrated.visibilities,
        validity_hours=params.validity_hours,
        strip_deg=params.declination_tolerance_deg,
        provenance={**calibrated.gain_set.provenance, "ms_path": os.path.abspath(params.ms)},
        task_id=str(ctx.task_id),
    )
    names = ("telescope", "declination", "strip", "valid_from", "valid_until", "quality")
    if params.register_as == "none":
        return {name: told[name] for name in names}
    ctx.heartbeat()  # ends the run where its claim is lost: what replaced it registers the same
    with SyncAbsurdClient.from_env() as client:
        row = client.register_gain_set(told, params.register_as)
        known = client.get_gain_set(row["id"]) or told
    return {
        "gain_set": row["id"],
        "state": row["state"],
        "superseded": row["superseded"],
        **{name: known[name] for name in names},
    }
