"""Which gains are applied to a recording, read and put together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absurd.tasks.calibration.gain_record import Recording, seconds_of, target_of, telescope_of
from absurd.tasks.calibration.gain_table import read_gains
from absurd.tasks.calibration.gains import Gains
from absurd.tasks.calibration.joining import join
from absurd.tasks.calibration.params import ApplyParams
from absurd.tasks.calibration.validity import Borrowing, Candidate, Choice, check, choose
from absurd.tasks.radio.errors import CalibrationError

if TYPE_CHECKING:
    from absurd.tasks.calibration.correct import Find, Get


@dataclass(frozen=True, slots=True)
class Chosen:
    """Gains to apply, and how they came to be these."""

    tables: tuple[Gains, ...]
    told: list[dict[str, Any]]
    """The sets: path, checksum, and of those of the database number, age, distance, grade, and whether borrowed."""
    joined: bool = False
    """Whether two sets became one, by what lies between them."""
    valid_s: tuple[float, float] | None = None
    """Times they hold for, seconds since MJD 0."""

    def record(self, **how: Any) -> dict[str, Any]:
        """What `by_record` finds the same gains by, and how they are applied."""
        return {
            "gains": self.told,
            "joined": self.joined,
            "valid_s": None if self.valid_s is None else list(self.valid_s),
            **how,
        }


def of_folders(paths: Iterable[str]) -> Chosen:
    """Sets as they are: who names them answers for their validity."""
    sets = [(os.path.abspath(path), read_gains(path)) for path in paths]
    told = [{"path": path, "checksum": each.checksum, "borrowed": False} for path, each in sets]
    return Chosen(tuple(table for _, each in sets for table in each.tables), told)


def of_database(params: ApplyParams, recording: Recording, find: Find, get: Get) -> Chosen:
    """The set that is named, or the nearest that holds.  Raises CalibrationError as `choose` does."""
    target, telescope = target_of(recording), telescope_of(recording)
    borrow = Borrowing(params.borrow_days, params.borrow_deg) if params.borrow else None
    if params.gain_set is not None:
        row = get(params.gain_set)
        if row is None:
            raise CalibrationError(f"there is no gain set {params.gain_set}")
        if row["telescope"] != telescope:
            raise CalibrationError(f"gain set {params.gain_set} is of {row['telescope']}, the recording of {telescope}")
        choice = check(_changed(Candidate.of(row), params), target, telescope=telescope, borrow=borrow)
    else:
        rows = find(telescope, target.at, target.declination_deg)
        known = [_changed(Candidate.of(each), params) for each in rows if _is_within(each["path"], params.gains)]
        choice = choose(known, target, telescope=telescope, borrow=borrow)
    choices = [choice]
    if params.both_sides and choice.other is not None:
        choices.append(choice.other)
    told = [each.told() for each in choices]
    return Chosen(_tables(told), told, len(choices) > 1, _span(choices))


def by_record(record: Mapping[str, Any]) -> Chosen:
    """The gains that a Measurement Set was corrected by.  Raises CalibrationError where they are not there any more."""
    valid = record["valid_s"]
    told = list(record["gains"])
    tables = _tables(told) if record["joined"] else tuple(each for one in told for each in _tables([one]))
    return Chosen(tables, told, record["joined"], None if valid is None else (valid[0], valid[1]))


def _tables(told: list[dict[str, Any]]) -> tuple[Gains, ...]:
    """Of the first set, whose gains in time are joined with those of a second, if there is one."""
    sets = [read_gains(each["path"], checksum=each["checksum"]).tables for each in told]
    if len(sets) == 1:
        return sets[0]
    second = {each.kind: each for each in sets[1]}
    return tuple(
        join(each, second[each.kind]) if each.kind != "bandpass" and each.kind in second else each for each in sets[0]
    )


def _span(choices: list[Choice]) -> tuple[float, float] | None:
    """When they hold; of a borrowed set nothing is known but that somebody wants it."""
    if any(each.borrowed for each in choices):
        return None
    return (
        min(seconds_of(each.candidate.valid_from) for each in choices),
        max(seconds_of(each.candidate.valid_until) for each in choices),
    )


def _changed(candidate: Candidate, params: ApplyParams) -> Candidate:
    """With the limits that were asked for instead of its own."""
    if params.validity_hours is not None:
        span = timedelta(hours=params.validity_hours)
        candidate = replace(
            candidate, valid_from=candidate.observed_at - span, valid_until=candidate.observed_at + span
        )
    if params.declination_tolerance_deg is not None:
        candidate = replace(candidate, strip_deg=params.declination_tolerance_deg)
    return candidate


def _is_within(path: str, folder: str | None) -> bool:
    return folder is None or Path(path).is_relative_to(os.path.abspath(folder))
