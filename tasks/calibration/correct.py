"""A Measurement Set corrected by gain sets: as another one, or in a column more."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absurd.tasks.calibration.apply import Applied, apply_gains, unapply_gains
from absurd.tasks.calibration.chosen import Chosen, by_record, of_database, of_folders
from absurd.tasks.calibration.params import ApplyParams
from absurd.tasks.radio.errors import CalibrationError, StateManagementError, ValidationError
from absurd.tasks.visibility.measurement_set import read_measurement_set, row_weights, write_measurement_set
from absurd.tasks.visibility.measurement_set_columns import changing
from absurd.tasks.visibility.measurement_set_rows import open_table, select
from absurd.tasks.visibility.visibilities import Visibilities

KEYWORD = "ABSURD_GAINS"
"""Of the Measurement Set: JSON that tells by which gains it is corrected, and how."""
Record = dict[str, Any]
Find = Callable[[str, Any, float], Sequence[dict[str, Any]]]
"""Valid gain sets of a telescope near a time (aware) and a declination (degrees), as `find_gain_sets` gives them."""
Get = Callable[[int], dict[str, Any] | None]


def correct(params: ApplyParams, find: Find, get: Get, told: Callable[[str], object]) -> dict[str, Any]:
    """Correct a Measurement Set by the params of ``calibration.apply``; what was done.

    Raises CalibrationError with age and distance where no gain set holds, or nothing is left that could be corrected;
    DataError for what cannot be read.
    """
    ms = Path(params.ms)
    if params.out is not None and os.path.realpath(ms) == os.path.realpath(params.out):
        raise ValidationError(f"{ms} is both read and written", advice="leave out `out`, and it gets CORRECTED_DATA")
    if params.out is None and (params.fields is not None or params.spectral_window is not None):
        raise ValidationError(f"a part of {ms} cannot be corrected in place", advice="give another one as `out`")
    told("reading")
    visibilities = read_measurement_set(ms, spectral_window=params.spectral_window, fields=params.fields)
    chosen = of_folders(params.sets) if params.sets else of_database(params, visibilities, find, get)
    record = chosen.record(calwt=params.calwt, missing=params.missing, bridge=params.bridge)
    before = applied_to(ms)
    if params.out is None and before == record:
        return {"path": os.path.abspath(ms), "changed": False, **record}
    told("correcting")
    if before is not None:
        visibilities = _with_weights_before(visibilities, before, ms)
    applied = _applied(visibilities, chosen, params, ms)
    told("writing")
    if params.out is None:
        _put(ms, applied, record, before)
    else:
        names = ", ".join(str(each["path"]) for each in chosen.told)
        write_measurement_set(
            applied.visibilities.with_(history=(*visibilities.history, f"corrected by {names}")),
            params.out,
            keywords={KEYWORD: json.dumps({**record, "data": "corrected"}, sort_keys=True)},
        )
    return {"path": os.path.abspath(params.out or ms), "changed": True, **record, **_told(applied)}


def applied_to(ms: str | os.PathLike[str]) -> Record | None:
    """By which gains a Measurement Set is corrected, and how; None if it is not."""
    with open_table(ms) as main:
        told = main.getkeywords().get(KEYWORD)
    return None if told is None else json.loads(told)


def _applied(visibilities: Visibilities, chosen: Chosen, params: ApplyParams, ms: Path) -> Applied:
    applied = apply_gains(
        visibilities,
        *chosen.tables,
        calwt=params.calwt,
        missing=params.missing,
        bridge=params.bridge,
        valid_s=chosen.valid_s,
    )
    if applied.usable and applied.missing == applied.usable:
        raise CalibrationError(
            f"none of {applied.usable} usable visibilities of {ms.name} has gains",
            advice="look at the antennas, channels and times of the gain set",
        )
    return applied


def _with_weights_before(visibilities: Visibilities, before: Record, ms: Path) -> Visibilities:
    """With the weights that go with DATA: those of corrected data are told apart by the gains they were changed by."""
    if before.get("data") == "corrected":
        raise StateManagementError(f"{ms} holds corrected data already", advice="correct what it was made from")
    if not before["calwt"]:
        return visibilities
    try:
        gains = by_record(before)
    except CalibrationError as error:
        raise StateManagementError(
            f"the weights of {ms} were changed by gains that cannot be read any more: {error.message}",
            advice="convert it anew",
        ) from error
    undone = unapply_gains(visibilities, *gains.tables, bridge=before["bridge"], valid_s=gains.valid_s)
    return visibilities.with_(weights=undone.visibilities.weights)


def _put(ms: Path, applied: Applied, record: Record, before: Record | None) -> None:
    """Corrected data, their weights and flags, and by what they were corrected: all at once, or nothing."""
    seen = applied.visibilities
    with changing(ms, ("CORRECTED_DATA", "WEIGHT_SPECTRUM", "WEIGHT", "FLAG", "FLAG_ROW")) as main:
        told = main.getkeywords().get(KEYWORD)
        if (None if told is None else json.loads(told)) != before:
            raise StateManagementError(f"{ms} was corrected by somebody else meanwhile", advice="try again")
        selection = select(main, os.fspath(ms), None, None)
        if selection.rows is not None:
            raise ValidationError(f"a part of {ms} cannot be corrected in place", advice="give another one as `out`")
        flags = selection.get(main, "FLAG") | seen.flags  # somebody may have flagged more
        for column, values in (("CORRECTED_DATA", seen.data), ("WEIGHT_SPECTRUM", seen.weights), ("FLAG", flags)):
            selection.put(main, column, values)
        weights, is_flagged = row_weights(flags, seen.weights)
        main.putcol("WEIGHT", weights)  # SIGMA goes with DATA
        main.putcol("FLAG_ROW", is_flagged)
        main.putkeyword(KEYWORD, json.dumps(record, sort_keys=True))


def _told(applied: Applied) -> dict[str, Any]:
    return {
        "usable": applied.usable,
        "without_gains": applied.missing,
        "outside_validity": applied.outside,
        "flagged": round(float(applied.visibilities.flags.mean()), 6) if applied.visibilities.flags.size else 0.0,
        "antennas_missing": list(applied.antennas_missing),
    }
