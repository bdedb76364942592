"""A Measurement Set corrected by gain sets: as another one, or in a column more; a block of rows in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from absurd.tasks.calibration.apply import apply_gains, unapply_gains
from absurd.tasks.calibration.chosen import Chosen, by_record, of_database, of_folders
from absurd.tasks.calibration.params import ApplyParams
from absurd.tasks.folder import clear_aside
from absurd.tasks.radio.apart import require_apart
from absurd.tasks.radio.errors import CalibrationError, StateManagementError, ValidationError
from absurd.tasks.visibility.measurement_set import writing
from absurd.tasks.visibility.measurement_set_blocks import Reader, blocks, row_weights
from absurd.tasks.visibility.measurement_set_columns import changing
from absurd.tasks.visibility.measurement_set_files import size_and_checksum
from absurd.tasks.visibility.measurement_set_rows import open_table
from absurd.tasks.visibility.visibilities import Visibilities

KEYWORD = "ABSURD_GAINS"
"""Of the Measurement Set: JSON that tells by which gains it is corrected, and how."""
Record = dict[str, Any]
Find = Callable[[str, Any, float], Sequence[dict[str, Any]]]
"""Gain sets of a telescope near a time (aware) and a declination (degrees), as rows of the table `gain_set`."""
Get = Callable[[int], dict[str, Any] | None]
Told = Callable[[int, int], object]
"""Of rows that are done, and of all; what it raises stops the correction."""


def correct(params: ApplyParams, find: Find, get: Get, told: Told) -> dict[str, Any]:
    """Correct a Measurement Set by the params of ``calibration.apply``; what was done.

    Raises CalibrationError where no gain set holds, with the age and distance of the nearest and the candidates that
    would, or where nothing is left that could be corrected; DataError for what cannot be read.
    """
    ms = Path(params.ms)
    if params.out is not None:
        require_apart([ms], params.out, advice="leave out `out`, and it gets CORRECTED_DATA")
    if params.out is None and (params.fields is not None or params.spectral_window is not None):
        raise ValidationError(f"a part of {ms} cannot be corrected in place", advice="give another one as `out`")
    with open_table(ms) as main:
        reader = _reader(main, params)
        chosen = of_folders(params.sets) if params.sets else of_database(params, reader.description, find, get)
        record = chosen.record(calwt=params.calwt, missing=params.missing, bridge=params.bridge)
        before = _told_by(main)
        if params.out is None and before == record:
            clear_aside(ms)
            return {**_product(ms), "changed": False, **record}
        correction = _Correction(params, chosen, before, told)
        if params.out is not None:
            _write(reader, correction, params.out, record)
    if params.out is None:
        _put(params, correction, record, before)
    return {**_product(params.out or ms), "changed": True, **record, **correction.result()}


def _product(ms: str | os.PathLike[str]) -> dict[str, Any]:
    """Where a Measurement Set is, and what it holds as a whole."""
    size, checksum = size_and_checksum(ms)
    return {"path": os.path.abspath(ms), "bytes": size, "checksum": checksum}


def applied_to(ms: str | os.PathLike[str]) -> Record | None:
    """By which gains a Measurement Set is corrected, and how; None if it is not."""
    with open_table(ms) as main:
        return _told_by(main)


def _told_by(main: Any) -> Record | None:
    told = main.getkeywords().get(KEYWORD)
    return None if told is None else json.loads(told)


def _reader(main: Any, params: ApplyParams) -> Reader:
    return Reader(main, params.ms, spectral_window=params.spectral_window, fields=params.fields)


class _Correction:
    """What is done to each block of rows, and what it comes to over all."""

    def __init__(self, params: ApplyParams, chosen: Chosen, before: Record | None, told: Told) -> None:
        self._params, self._chosen, self._told = params, chosen, told
        self._undone = _undone(params.ms, before)
        self._usable = self._missing = self._outside = self._flagged = self._all = 0
        self._names: tuple[str, ...] = ()
        self._antennas: frozenset[str] = frozenset()
        self._with_gains: frozenset[str] = frozenset()

    def blocks(self, reader: Reader) -> Iterator[tuple[slice, Visibilities]]:
        """Rows, and what they are corrected to.

        Raises CalibrationError in the end where none of them has gains.
        """
        self._names = reader.description.array.names
        for rows in blocks(reader.shape):
            self._told(rows.start, reader.shape[0])
            yield rows, self._corrected(reader.read(rows))
        if self._usable and self._missing == self._usable:
            raise CalibrationError(
                f"none of {self._usable} usable visibilities of {Path(self._params.ms).name} has gains",
                advice="look at the antennas, channels and times of the gain set",
            )

    def _corrected(self, seen: Visibilities) -> Visibilities:
        if self._undone is not None:
            gains, bridge = self._undone
            as_recorded = unapply_gains(seen, *gains.tables, bridge=bridge, valid_s=gains.valid_s).visibilities
            seen = seen.with_(weights=as_recorded.weights)
        applied = apply_gains(
            seen,
            *self._chosen.tables,
            calwt=self._params.calwt,
            missing=self._params.missing,
            bridge=self._params.bridge,
            valid_s=self._chosen.valid_s,
        )
        self._usable += applied.usable
        self._missing += applied.missing
        self._outside += applied.outside
        self._flagged += int(applied.visibilities.flags.sum())
        self._all += applied.visibilities.flags.size
        self._antennas |= applied.antennas
        self._with_gains |= applied.antennas_with_gains
        return applied.visibilities

    def result(self) -> dict[str, Any]:
        """Counts of visibilities, and names of antennas."""
        missing = self._antennas - self._with_gains
        return {
            "usable": self._usable,
            "without_gains": self._missing,
            "outside_validity": self._outside,
            "flagged": round(self._flagged / self._all, 6) if self._all else 0.0,
            "antennas_missing": [each for each in self._names if each in missing],
        }


def _undone(ms: str, before: Record | None) -> tuple[Chosen, bool] | None:
    """By which gains weights were changed, and whether over flagged solutions; without these they go with DATA."""
    if before is None:
        return None
    if before.get("data") == "corrected":
        raise StateManagementError(f"{ms} holds corrected data already", advice="correct what it was made from")
    if not before["calwt"]:
        return None
    try:
        return by_record(before), before["bridge"]
    except CalibrationError as error:
        raise StateManagementError(
            f"the weights of {ms} were changed by gains that cannot be read any more: {error.message}",
            advice="convert it anew",
        ) from error


def _write(reader: Reader, correction: _Correction, out: str, record: Record) -> None:
    """As another Measurement Set, which is whole or absent."""
    names = ", ".join(str(each["path"]) for each in record["gains"])
    history = (*reader.description.history, f"corrected by {names}")
    keywords = {KEYWORD: json.dumps({**record, "data": "corrected"}, sort_keys=True)}
    with writing(out, replace(reader.description, history=history), keywords=keywords) as writer:
        for rows, seen in correction.blocks(reader):
            writer.put_rows(rows, {"DATA": seen.data}, seen.flags, seen.weights)


def _put(params: ApplyParams, correction: _Correction, record: Record, before: Record | None) -> None:
    """Corrected data, their weights and flags, and by what they were corrected: all at once, or nothing."""
    ms, columns = params.ms, ("CORRECTED_DATA", "WEIGHT_SPECTRUM", "WEIGHT", "FLAG", "FLAG_ROW")
    with changing(ms, columns, whole=True) as main, open_table(ms) as old:
        if _told_by(main) != before:
            raise StateManagementError(f"{ms} was corrected by somebody else meanwhile", advice="try again")
        reader = _reader(old, params)
        if reader.selection.rows is not None:
            raise ValidationError(f"a part of {ms} cannot be corrected in place", advice="give another one as `out`")
        for rows, seen in correction.blocks(reader):
            weights, is_flagged = row_weights(seen.flags, seen.weights)
            for column, values in (
                ("CORRECTED_DATA", seen.data),
                ("WEIGHT_SPECTRUM", seen.weights),
                ("FLAG", seen.flags),
                ("WEIGHT", weights),  # SIGMA goes with DATA
                ("FLAG_ROW", is_flagged),
            ):
                reader.selection.put(main, column, values, rows.start)
        main.putkeyword(KEYWORD, json.dumps(record, sort_keys=True))
