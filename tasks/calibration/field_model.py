"""The sky that a recording of a calibrator is solved against, by catalogues."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from absurd.tasks.calibration.flux_scale import FLUX_CALIBRATORS, flux_calibrator
from absurd.tasks.calibration.sky_model import Component, SkyModel, calibrator_component, point, separation_rad
from absurd.tasks.calibration.vla_calibrators import VlaCalibrator, calibrators_near, parse_vla_calibrators
from absurd.tasks.radio.errors import DataError, ValidationError
from absurd.tasks.visibility.visibilities import PhaseCentre, Visibilities

_SAME_RAD = math.radians(30 / 3600)
"""Sources of two lists nearer than this are one."""


@dataclass(frozen=True, slots=True)
class FieldModel:
    """A sky, and what was looked at in it."""

    sky: SkyModel
    source: str
    scale: str
    """Where the flux densities are from."""


def field_model(
    visibilities: Visibilities,
    *,
    calibrator: str | None = None,
    flux_jy: float | None = None,
    sky_model: str | None = None,
    catalogs: str | None = None,
    radius_deg: float = 2.0,
    most_sources: int = 100,
    faintest_jy: float = 0.0,
) -> FieldModel:
    """The sky to solve against: a point of a flux density, a file, or a calibrator with its neighbours of the lists.

    Without any of them the calibrator is the strongest source of the flux scale within the radius of the phase centre,
    else of the lists.  Raises ValidationError where there is none, or its flux density is not known at the
    frequencies; DataError for files that cannot be read.
    """
    centre = middle_centre(visibilities)
    if sky_model is not None:
        sky = SkyModel.from_json(_text(Path(sky_model)))
        if not len(sky):
            raise ValidationError(f"the model of the sky {sky_model} has no source")
        strongest = max(sky, key=lambda each: each.flux_jy)
        return FieldModel(sky, strongest.name or centre.name, "file")
    if flux_jy is not None:
        return FieldModel(SkyModel((point(centre.name, centre.ra_rad, centre.dec_rad, flux_jy),)), centre.name, "given")
    frequency = float(visibilities.frequencies_hz.mean())
    listed = _listed(catalogs)
    near = calibrators_near(
        listed,
        centre.ra_rad,
        centre.dec_rad,
        within_rad=math.radians(radius_deg),
        frequency_hz=frequency,
        least_jy=faintest_jy,
    )
    main, scale = _named(calibrator, listed, frequency) if calibrator else _nearest(centre, radius_deg, near, frequency)
    others = [
        each.component(frequency)
        for each, _, _ in near
        if _angle(each.ra_rad, each.dec_rad, main.ra_rad, main.dec_rad) > _SAME_RAD
    ]
    return FieldModel(SkyModel((main, *others[: most_sources - 1])), main.name, scale)


def middle_centre(visibilities: Visibilities) -> PhaseCentre:
    """The phase centre in the middle of the recording; a drift scan has one for each integration."""
    if not len(visibilities.time_s):
        raise DataError("there are no visibilities")
    order = np.argsort(visibilities.time_s, kind="stable")
    return visibilities.phase_centres[int(visibilities.field[order[len(order) // 2]])]


def _named(name: str, listed: Iterable[VlaCalibrator], frequency_hz: float) -> tuple[Component, str]:
    try:
        return calibrator_component(flux_calibrator(name)), "Perley-Butler 2017"
    except ValidationError as error:
        for each in listed:
            if name.upper() in {each.name.upper(), each.b1950_name.upper(), *(o.upper() for o in each.other_names)}:
                return each.component(frequency_hz), "VLA calibrator list"
        raise error from None


def _nearest(
    centre: PhaseCentre, radius_deg: float, near: list[tuple[VlaCalibrator, float, float]], frequency_hz: float
) -> tuple[Component, str]:
    within = [
        each
        for each in FLUX_CALIBRATORS
        if _angle(each.ra_rad, each.dec_rad, centre.ra_rad, centre.dec_rad) <= math.radians(radius_deg)
        and each.lowest_hz <= frequency_hz <= each.highest_hz
    ]
    if within:
        at = np.array(frequency_hz)
        return calibrator_component(max(within, key=lambda each: float(each.flux_jy(at)))), "Perley-Butler 2017"
    if near:
        return near[0][0].component(frequency_hz), "VLA calibrator list"
    raise ValidationError(
        f"no calibrator is within {radius_deg:g} degrees of {centre.name or 'the phase centre'}"
        f" ({math.degrees(centre.ra_rad):.3f}, {math.degrees(centre.dec_rad):+.3f})",
        advice="name a calibrator, give flux_jy or a sky_model, or catalogs that hold one",
    )


def _listed(folder: str | None) -> list[VlaCalibrator]:
    if folder is None:
        return []
    found: list[VlaCalibrator] = []
    for path in sorted(Path(folder).glob("*.txt")):
        try:
            found += parse_vla_calibrators(_text(path))
        except DataError as error:
            raise DataError(f"{path}: {error.message}") from error
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _angle(ra1: float, dec1: float, ra2: float, dec2: float) -> float:
    return float(separation_rad(np.array(ra1), np.array(dec1), np.array(ra2), np.array(dec2)))
