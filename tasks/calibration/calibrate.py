"""From the recording of a calibrator to a gain set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from absurd.tasks.calibration.calibrator import CalibratorSolution
from absurd.tasks.calibration.engines.engine import engine_named
from absurd.tasks.calibration.field_model import FieldModel, field_model
from absurd.tasks.calibration.gain_record import moment
from absurd.tasks.calibration.gain_table import GainSet, Stored, write_gains
from absurd.tasks.calibration.params import RecordingParams, Solution, SolveParams
from absurd.tasks.calibration.predict import predict
from absurd.tasks.calibration.settings import CalibratorSettings, GainSettings
from absurd.tasks.radio.beam import Beam, beam_named
from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.radio.quantity import duration_s, uv_range
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT, load_telescope
from absurd.tasks.visibility.measurement_set import read_measurement_set, write_measurement_set
from absurd.tasks.visibility.visibilities import Visibilities

SUFFIX = ".gains"
_ELSEWHERE = {
    "ms",
    "out",
    "register_as",
    "casa_tables",
    "casa_python",
    "validity_hours",
    "declination_tolerance_deg",
    "catalogs",
}
"""Params that gains do not follow from, or that tell places of one machine."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Gains, and what they were solved from."""

    gain_set: GainSet
    visibilities: Visibilities
    solution: CalibratorSolution


def calibrate(params: SolveParams, told: Callable[[str], object], scratch: Callable[[], Path]) -> Calibrated:
    """Solve the recording of a calibrator by the params of ``calibration.solve``; nothing is stored.

    `scratch` gives a folder for what CASA reads, if it is to solve.

    The same recording and params give the same gains, to the bit.  Raises DataError for a Measurement Set that cannot
    be read, ValidationError for a sky that is not known, CalibrationError where nothing can be solved.
    """
    told("reading")
    visibilities = read_measurement_set(params.ms, spectral_window=params.spectral_window, fields=params.fields)
    field, beam = sky_of(params, visibilities)
    told("predicting")
    model = predict(visibilities, field.sky, beam=beam)
    told("solving")
    settings = _settings(params, visibilities, field)
    if params.engine == "casatasks":
        engine = engine_named(params.engine, **({"python": params.casa_python} if params.casa_python else {}))
        place = scratch() / "calibrator.ms"
        write_measurement_set(visibilities, place, model=np.ascontiguousarray(model))
        solution = engine.solve(visibilities, model, _present(settings, visibilities), measurement_set=place)
    else:
        solution = engine_named(params.engine).solve(visibilities, model, settings)
    solution = replace(solution, remarks=(*field.warnings, *solution.remarks))
    tables = tuple(replace(each, source=field.source) for each in (solution.bandpass, solution.gain))
    provenance = provenance_of(params, visibilities, field) | {
        "rounds": solution.rounds,
        "converged": solution.converged,
        "warnings": list(solution.warnings),
    }
    return Calibrated(GainSet(tables, provenance), visibilities, solution)


def store(gain_set: GainSet, folder: str | os.PathLike[str]) -> Stored:
    """Store a set under a name that tells its source, time and content: the same set has the same name."""
    first = gain_set.tables[0]
    name = "".join(each if each.isalnum() or each in "+-." else "_" for each in first.source) or "gains"
    at = moment(float(np.min([each.time_s.min() for each in gain_set.tables])))
    return write_gains(Path(folder) / f"{name}_{at:%Y%m%dT%H%M%S}_{gain_set.checksum[:12]}{SUFFIX}", gain_set)


def _settings(params: SolveParams, visibilities: Visibilities, field: FieldModel) -> CalibratorSettings:
    known = reference_antennas(params.telescope)

    def of(told: Solution) -> GainSettings:
        return gain_settings(told, visibilities, known, field)

    return CalibratorSettings(
        phase=None if params.prebp is None else replace(of(params.prebp), mode="p"),
        bandpass=replace(
            of(params.bcal),
            combine=tuple(params.bcal.combine),
            fill_gaps=params.bcal.fillgaps,
            min_baselines=params.bcal.minblperant,
            normalise=params.bcal.solnorm,
        ),
        gain=replace(of(params.gcal), mode=params.gcal.mode),
    )


def sky_of(params: RecordingParams, visibilities: Visibilities) -> tuple[FieldModel, Beam | None]:
    """The sky to solve against, and how a dish receives it.  Raises what `field_model` does."""
    beam = None if params.beam == "none" else beam_named(params.beam, visibilities.array.dish_diameter_m)
    field = field_model(
        visibilities,
        beam=beam,
        calibrator=params.calibrator,
        flux_jy=params.flux_jy,
        sky_model=params.sky_model,
        catalogs=params.catalogs,
        radius_deg=params.radius_deg,
        most_sources=params.most_sources,
        faintest_jy=params.faintest_jy,
    )
    return field, beam


def reference_antennas(telescope: str | None) -> tuple[str, ...]:
    """Those of a telescope, if one is named, the best first."""
    return load_telescope(telescope).reference_antennas if telescope else ()


def gain_settings(
    told: Solution, visibilities: Visibilities, known: tuple[str, ...], field: FieldModel
) -> GainSettings:
    """Of either kind; which antenna is the reference, and why another than was asked for, the solver tells.

    Raises ValidationError where the source is a point on none of the baselines that are asked for.
    """
    asked = uv_range(told.uvrange)
    scale = 1.0 if asked.in_wavelengths else float(visibilities.frequencies_hz.mean()) / SPEED_OF_LIGHT
    least = max(asked.shortest * scale, field.uv_range_wavelengths[0])
    most = min(asked.longest * scale, field.uv_range_wavelengths[1])
    if not least < most:
        raise ValidationError(
            f"{field.source} is a point up to {most:.4g} wavelengths, and baselines from {least:.4g} on are asked for",
            advice="take another calibrator, a sky_model, or a wider uvrange",
        )
    return GainSettings(
        interval_s=duration_s(told.solint),
        reference=tuple(dict.fromkeys((*told.refant, *known))),
        min_snr=told.minsnr,
        uv_range_wavelengths=(least, most),
    )


def _present(settings: CalibratorSettings, visibilities: Visibilities) -> CalibratorSettings:
    """With reference antennas of the recording only: CASA refuses others."""

    def of(one: GainSettings) -> GainSettings:
        return replace(one, reference=tuple(each for each in one.reference if each in visibilities.array.names))

    phase = None if settings.phase is None else of(settings.phase)
    return replace(settings, phase=phase, bandpass=of(settings.bandpass), gain=of(settings.gain))


def provenance_of(params: RecordingParams, visibilities: Visibilities, field: FieldModel) -> dict[str, Any]:
    """Everything that gains follow from, and nothing of when and where they were solved."""
    settings = params.model_dump(exclude=_ELSEWHERE)
    if params.sky_model is not None:
        settings["sky_model"] = hashlib.sha256(field.sky.to_json().encode()).hexdigest()
    return {
        "made_by": f"absurd {version('absurd')}",
        "ms": os.path.basename(os.path.normpath(params.ms)),
        "visibilities": _digest(visibilities),
        "settings": settings,
        "sky": field.told(visibilities.frequencies_hz),
    }


def _digest(visibilities: Visibilities) -> str:
    """SHA-256 of what was solved from."""
    digest = hashlib.sha256()
    for each in (
        visibilities.data,
        visibilities.flags,
        visibilities.weights,
        visibilities.time_s,
        visibilities.uvw_m,
        visibilities.frequencies_hz,
    ):
        digest.update(np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()
