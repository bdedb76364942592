"""From a recording and a model of its sky to a gain set that was solved in rounds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from absurd.tasks.calibration.calibrate import gain_settings, provenance_of, reference_antennas, sky_of
from absurd.tasks.calibration.field_model import FieldModel, middle_centre
from absurd.tasks.calibration.gain_table import GainSet
from absurd.tasks.calibration.params import SelfCalibrateParams
from absurd.tasks.calibration.predict import predict
from absurd.tasks.calibration.self_calibration import (
    Model,
    Round,
    SelfCalibrationSettings,
    self_calibrate,
    signal_to_noise,
)
from absurd.tasks.calibration.sky_model import separation_rad
from absurd.tasks.radio.beam import Beam
from absurd.tasks.radio.errors import CalibrationError
from absurd.tasks.visibility.measurement_set import read_measurement_set
from absurd.tasks.visibility.visibilities import Visibilities


@dataclass(frozen=True, slots=True)
class SelfCalibrated:
    """Gains, and how the rounds went."""

    gain_set: GainSet
    rounds: list[dict[str, Any]]
    """As JSON; the first is before any."""
    stopped_by: str


def recalibrate(params: SelfCalibrateParams, told: Callable[[int, int], object]) -> SelfCalibrated:
    """Self-calibrate a recording by the params of ``calibration.self_calibrate``; nothing is stored.

    `told` is called with rounds that are done, and of all.  The same recording and params give the same gains, to the
    bit.  Raises DataError for a Measurement Set that cannot be read, ValidationError for a sky that is not known,
    CalibrationError with the rounds where none made it better.
    """
    visibilities = read_measurement_set(
        params.ms, spectral_window=params.spectral_window, fields=params.fields, column=params.column
    )
    field, beam = sky_of(params, visibilities)
    model = predict(visibilities, field.sky, beam=beam)
    known = reference_antennas(params.telescope)
    settings = SelfCalibrationSettings(
        rounds=tuple(
            replace(gain_settings(each, visibilities, known, field), mode=each.mode) for each in params.rounds
        ),
        least_snr_gain=params.least_snr_gain,
        least_chi_squared_drop=params.least_chi_squared_drop,
        most_flagged=params.most_flagged,
        beam_power=_beam_power(visibilities, field, beam),
    )

    def remodel(seen: Visibilities, number: int) -> Model:
        told(number, len(params.rounds))
        return Model(model, signal_to_noise(seen, model))

    found = self_calibrate(visibilities, remodel, settings)
    rounds = [_told(each) for each in found.rounds]
    if found.gains is None:
        raise CalibrationError(
            f"no round of self-calibration made {os.path.basename(os.path.normpath(params.ms))} better: "
            f"{found.stopped_by} (signal to noise {', then '.join(f'{each.snr:.4g}' for each in found.rounds)})",
            advice="look at the model of the sky, or solve longer intervals",
            rounds=rounds,
        )
    provenance = provenance_of(params, visibilities, field) | {"rounds": rounds, "stopped_by": found.stopped_by}
    gains = replace(found.gains, source=field.source, warnings=(*field.warnings, *found.gains.warnings))
    return SelfCalibrated(GainSet((gains,), provenance), rounds, found.stopped_by)


def _beam_power(visibilities: Visibilities, field: FieldModel, beam: Beam | None) -> float:
    """Of the source that is seen the strongest, in the middle of the band and of the recording."""
    if beam is None:
        return 1.0
    centre, frequency = middle_centre(visibilities), np.array([visibilities.frequencies_hz.mean()])
    places = np.array([[each.ra_rad, each.dec_rad] for each in field.sky])
    away = separation_rad(np.array(centre.ra_rad), np.array(centre.dec_rad), places[:, 0], places[:, 1])
    powers = beam.power(away, frequency)
    apparent = np.abs([float(each.flux_at(frequency)[0]) for each in field.sky]) * powers
    return float(np.clip(powers[apparent.argmax()], 0, 1))


def _told(each: Round) -> dict[str, Any]:
    """As JSON, which knows nothing infinite: an interval of the whole recording has no length."""
    return {
        "round": each.number,
        "mode": each.mode,
        "solint_s": _finite(each.interval_s),
        "snr": _finite(each.snr),
        "chi_squared": _finite(each.chi_squared),
        "flagged": round(each.flagged, 6),
        "kept": each.kept,
    }


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
