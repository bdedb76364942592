"""From the files of a calibration to a report, which is kept."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absurd.tasks.artifact import write_aside
from absurd.tasks.qa.calibration import check_calibration
from absurd.tasks.qa.gates import gates_with
from absurd.tasks.qa.params import CalibrationParams
from absurd.tasks.qa.quarantine import find_in_quarantine, put_into_quarantine
from absurd.tasks.qa.report import QualityReport
from absurd.tasks.radio.errors import CalibrationError, DataError, QualityError, ValidationError
from absurd.tasks.visibility.visibilities import Visibilities

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from absurd.tasks.calibration.gain_table import GainSet

SUFFIX = ".quality.json"


def assess(
    params: CalibrationParams,
    sets: Mapping[str, str | None],
    row: Mapping[str, Any] | None = None,
    told: Callable[[str], object] = lambda _: None,
) -> QualityReport:
    """Judge a recording with gain sets by their folders, each with the SHA-256 it must have, or None.

    `row` is what the database has of the set, if it is one of the database.  Raises DataError for a recording that
    cannot be read, CalibrationError for such a set and for one that does not hold for the recording, ValidationError
    for another sky than it was solved against, and QualityError for a set that is in quarantine already.
    """
    from absurd.tasks.calibration.apply import apply_gains
    from absurd.tasks.calibration.gain_table import read_gains
    from absurd.tasks.visibility.foreign import read_visibilities

    for path in sets:
        refuse_quarantined(path)
    told("reading")

    def column(name: str) -> Visibilities:
        return read_visibilities(params.ms, spectral_window=params.spectral_window, column=name, fields=params.fields)

    observed = column(params.column)
    if row is not None:
        _refuse_other(row, observed, params.ms)
    stored = [read_gains(path, checksum=checksum) for path, checksum in sets.items()]
    gains = [table for each in stored for table in each.tables]
    told("measuring")
    corrected = column(params.corrected) if params.corrected is not None else None
    if gains:
        corrected = apply_gains(observed, *gains).visibilities
    return check_calibration(
        observed,
        gains=gains,
        model=_sky(params, observed, stored) if params.model is None else column(params.model).data,
        corrected=corrected,
        sefd_jy=_sefd_jy(params, stored),
        gates=gates_with(params.limits),
        subject=_subject(params.ms, list(sets)),
    )


def checksum_of(path: str) -> str:
    """SHA-256 of what a gain set holds, in its folder or in quarantine; empty where it is in neither.

    Raises CalibrationError for what cannot be read.
    """
    from absurd.tasks.calibration.gain_table import read_gains

    if os.path.lexists(path):
        return read_gains(path).checksum
    told = find_in_quarantine(path)
    return "" if told is None else read_gains(told["place"]).checksum


def keep(report: QualityReport, params: CalibrationParams, sets: Sequence[str]) -> str:
    """Write a report as JSON, whole or not at all, and give its path: named after the first set, or the recording."""
    return write_report(report, _report_path(params, sets))


def write_report(report: QualityReport, path: Path) -> str:
    """Write a report as JSON, whole or not at all, and give its path."""
    with write_aside(path) as part:
        text = json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")
    return str(path)


def refuse(report: QualityReport, products: Sequence[str], *, kept: str, move: bool) -> QualityError:
    """The error of files or folders that do not pass, which are in quarantine then if they are to `move`."""
    told = report.to_json()
    places = [str(put_into_quarantine(each, told | {"report": kept})) for each in products] if move else []
    where = f"; in quarantine: {', '.join(places)}" if places else ""
    return QualityError(
        f"{report.subject} does not pass: {'; '.join(report.reasons)}{where}; all measures are in {kept}",
        **told,
        report=kept,
        quarantined=places,
    )


def _sky(params: CalibrationParams, observed: Visibilities, stored: Sequence[GainSet]) -> NDArray[np.complex64] | None:
    """Visibilities of the sky that is named, else of that which the gains were solved against, if they tell.

    No number on baselines on which the calibrator is not the point that it is said to be: no gains come from these.
    """
    from absurd.tasks.calibration.field_model import field_model
    from absurd.tasks.calibration.predict import predict
    from absurd.tasks.calibration.rows import channels_between
    from absurd.tasks.radio.beam import beam_named

    solved = next((each.provenance for each in stored if each.provenance.get("settings")), {})
    settings: dict[str, Any] = dict(solved.get("settings", {}))
    asked = {name: getattr(params, name) for name in ("calibrator", "flux_jy", "sky_model")}
    is_named = any(each is not None for each in asked.values())
    if not is_named:
        if not settings:
            return None
        if settings.get("sky_model") is not None:
            raise ValidationError("the gain set was solved against a file of the sky", advice="name it in sky_model")
        asked = {name: settings.get(name) for name in ("calibrator", "flux_jy")}
    others = {name: settings[name] for name in ("radius_deg", "most_sources", "faintest_jy") if name in settings}
    named = settings.get("beam", "airy")
    beam = None if named == "none" else beam_named(named, observed.array.dish_diameter_m)
    field = field_model(observed, **asked, catalogs=params.catalogs, beam=beam, **others)
    if not is_named:
        _refuse_another_sky(solved.get("sky", {}), field.told(observed.frequencies_hz))
    first, last = channels_between(observed, field.uv_range_wavelengths)
    if (cross := ~observed.is_auto).any() and (first >= last)[cross].all():
        least, most = field.uv_range_wavelengths
        raise ValidationError(
            f"{field.source} is a point on baselines from {least:.4g} to {most:.4g} wavelengths, and none is here",
            advice="name another sky, such as a sky_model",
        )
    return predict(observed, field.sky, beam=beam, uv_range_wavelengths=field.uv_range_wavelengths)


def _refuse_another_sky(solved: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Gains that are right for one sky are not judged by another: the lists that both are of may differ."""
    before, now = solved.get("jy", {}), found["jy"]
    differ = [
        name for name in {**before, **now} if not math.isclose(before.get(name, 0), now.get(name, 0), rel_tol=0.01)
    ]
    if solved and (differ or solved.get("sources") != found["sources"]):
        told = ", ".join(f"{each}: {before.get(each, 0):g} and {now.get(each, 0):g} Jy" for each in differ[:5])
        raise ValidationError(
            f"the gain set was solved against a sky of {solved.get('sources')} sources, and the catalogs here give "
            f"{found['sources']}" + (f" ({told})" if told else ""),
            advice="give the catalogs that it was solved with, or name the sky",
        )


def _sefd_jy(params: CalibrationParams, stored: Sequence[GainSet]) -> float | None:
    """Of the telescope that is named, or by which the gains were solved."""
    from absurd.tasks.radio.telescope import load_telescope

    told = (each.provenance.get("settings", {}).get("telescope") for each in stored)
    name = params.telescope or next((each for each in told if each), None)
    return load_telescope(name).sefd_jy if name else None


def _refuse_other(row: Mapping[str, Any], observed: Visibilities, ms: str) -> None:
    """A set is judged on its own recording, or on one that it may be applied to."""
    from absurd.tasks.calibration.gain_record import target_of, telescope_of
    from absurd.tasks.calibration.validity import Candidate, refusals

    reasons = refusals(Candidate.of(row), target_of(observed))
    if (telescope := telescope_of(observed)) != row["telescope"]:
        reasons = [f"it is of {row['telescope']}, the recording of {telescope}"]
    if reasons:
        raise CalibrationError(f"gain set {row['id']} is not judged on {Path(ms).name}: {' and '.join(reasons)}")


def refuse_quarantined(path: str) -> None:
    """Say again, of a product that has been moved, what a run has found out that was killed before it could."""
    if os.path.lexists(path):
        return
    told = find_in_quarantine(path)
    if told is None:
        raise DataError(f"there is no product in {path}", path=path)
    known: dict[str, Any] = {name: told[name] for name in ("reasons", "measures", "report") if name in told}
    raise QualityError(
        f"{path} is in quarantine since {told['quarantined_at']}: {'; '.join(told.get('reasons', []))}",
        quarantined=[told["place"]],
        **known,
    )


def _subject(ms: str, sets: Sequence[str]) -> str:
    names = [Path(os.path.abspath(each)).name for each in sets]
    recording = Path(os.path.abspath(ms)).name
    return f"{' and '.join(names)} of {recording}" if names else recording


def _report_path(params: CalibrationParams, sets: Sequence[str]) -> Path:
    named = Path(os.path.abspath(sets[0] if sets else params.ms))
    folder = Path(params.reports) if params.reports is not None else Path(os.path.abspath(params.ms)).parent
    return folder / f"{named.name}{SUFFIX}"
