"""The sky that a recording of a calibrator is solved against, by catalogues, as the dishes see it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.flux_scale import FLUX_CALIBRATORS, FluxCalibrator, flux_calibrator
from absurd.tasks.calibration.sky_model import Component, SkyModel, calibrator_component, point, separation_rad
from absurd.tasks.calibration.vla_calibrators import SHIPPED, VlaCalibrator, parse_vla_calibrators
from absurd.tasks.radio.beam import Beam
from absurd.tasks.radio.errors import DataError, ValidationError
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT
from absurd.tasks.visibility.visibilities import PhaseCentre, Visibilities

LEAST_POWER = 0.05
"""A calibrator at which the beam has less is none: there its shape is not known well enough."""
_SAME_RAD = math.radians(30 / 3600)
"""Sources of two lists nearer than this are one."""

_TOLD = 20


@dataclass(frozen=True, slots=True)
class FieldModel:
    """A sky, and what was looked at in it."""

    sky: SkyModel
    source: str
    scale: str
    """Where the flux densities are from."""
    uv_range_wavelengths: tuple[float, float] = (0.0, math.inf)
    """Projected baselines on which the source is the point that it is said to be."""
    warnings: tuple[str, ...] = ()
    """What one would want to know of the model, a sentence each."""

    def told(self, frequencies_hz: NDArray[np.float64]) -> dict[str, Any]:
        """For provenance: how many sources, and flux densities of the first at the middle of the frequencies, Jy."""
        at = np.array([frequencies_hz.mean()])
        fluxes = {each.name: float(each.flux_at(at)[0]) for each in self.sky.components[:_TOLD]}
        return {
            "scale": self.scale,
            "sources": len(self.sky),
            "jy": {name: round(each, 6) if math.isfinite(each) else 0.0 for name, each in fluxes.items()},
        }


@dataclass(frozen=True, slots=True)
class _Seen:
    """A source of a list, as a telescope sees it."""

    listed: FluxCalibrator | VlaCalibrator
    component: Component
    distance_rad: float
    """From where the dishes look."""
    power: float
    """Of the beam there."""
    apparent_jy: float

    @property
    def scale(self) -> str:
        return "Perley-Butler 2017" if isinstance(self.listed, FluxCalibrator) else "VLA calibrator list"


def field_model(
    visibilities: Visibilities,
    *,
    calibrator: str | None = None,
    flux_jy: float | None = None,
    sky_model: str | None = None,
    catalogs: str | None = None,
    beam: Beam | None = None,
    radius_deg: float = 2.0,
    most_sources: int = 100,
    faintest_jy: float = 0.0,
) -> FieldModel:
    """The sky to solve against: a point of a flux density, a file, or a calibrator with its neighbours of the lists.

    Neighbours are those within the radius of the phase centre that the beam shows brightest.  Without any of the first
    three the calibrator is the brightest of the flux scale there, else of the lists.  Raises ValidationError where
    there is none, where the one that is named is outside of the radius or the beam, or its flux density is not known
    at the frequencies; DataError for files that cannot be read.
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
    view = _View(visibilities.frequencies_hz, centre, beam, math.radians(radius_deg))
    listed: list[FluxCalibrator | VlaCalibrator] = [*FLUX_CALIBRATORS, *_listed(catalogs), *SHIPPED]
    near = view.field(listed)
    main = view.named(_find(calibrator, listed)) if calibrator else _nearest(view, near)
    others = [
        each for each in near if each.apparent_jy >= faintest_jy and _angle(each.component, main.component) > _SAME_RAD
    ][: most_sources - 1]
    within = _point_within(main.listed, view.frequency_hz)
    return FieldModel(
        SkyModel((main.component, *(each.component for each in others))),
        main.component.name,
        main.scale,
        within,
        tuple(_remarks(main, within, others, visibilities, view.frequency_hz)),
    )


def calibrator_near(
    centre: PhaseCentre,
    frequencies_hz: NDArray[np.float64],
    *,
    beam: Beam | None = None,
    catalogs: str | None = None,
    radius_deg: float = 2.0,
) -> str | None:
    """The calibrator that `field_model` takes of such a recording, by name; None where there is none.

    Raises DataError for lists that cannot be read.
    """
    view = _View(frequencies_hz, centre, beam, math.radians(radius_deg))
    listed: list[FluxCalibrator | VlaCalibrator] = [*FLUX_CALIBRATORS, *_listed(catalogs), *SHIPPED]
    try:
        return _nearest(view, view.field(listed)).component.name
    except ValidationError:
        return None


def middle_centre(visibilities: Visibilities) -> PhaseCentre:
    """The phase centre in the middle of the recording; a drift scan has one for each integration."""
    if not len(visibilities.time_s):
        raise DataError("there are no visibilities")
    order = np.argsort(visibilities.time_s, kind="stable")
    return visibilities.phase_centres[int(visibilities.field[order[len(order) // 2]])]


class _View:
    """Where a telescope looks, at which frequencies, and through which beam."""

    def __init__(
        self, frequencies_hz: NDArray[np.float64], centre: PhaseCentre, beam: Beam | None, radius_rad: float
    ) -> None:
        self.centre, self.radius_rad = centre, radius_rad
        self.frequency_hz = float(frequencies_hz.mean())
        self._frequencies_hz, self._beam = frequencies_hz, beam

    def see(self, listed: FluxCalibrator | VlaCalibrator) -> _Seen:
        """Raises ValidationError where its flux density is not known at the frequencies."""
        component = (
            calibrator_component(listed) if isinstance(listed, FluxCalibrator) else listed.component(self.frequency_hz)
        )
        component.flux_at(self._frequencies_hz)
        distance = _angle(component, self.centre)
        at = np.array(self.frequency_hz)
        power = 1.0 if self._beam is None else float(self._beam.power(np.array(distance), at))
        return _Seen(listed, component, distance, power, float(component.flux_at(at)) * power)

    def field(self, listed: Sequence[FluxCalibrator | VlaCalibrator]) -> list[_Seen]:
        """Those within the radius whose flux density is known, once each, the brightest first."""
        found: list[_Seen] = []
        for each in listed:
            if _angle(each, self.centre) > self.radius_rad:
                continue
            try:
                seen = self.see(each)
            except ValidationError:
                continue  # not measured near these frequencies: nothing is known of it
            if all(_angle(seen.component, other.component) > _SAME_RAD for other in found):
                found.append(seen)
        return sorted(found, key=lambda each: -each.apparent_jy)

    def named(self, listed: FluxCalibrator | VlaCalibrator) -> _Seen:
        """The source that was asked for.  Raises ValidationError where the dishes do not look at it."""
        seen = self.see(listed)
        where = f"{math.degrees(seen.distance_rad):.2f} degrees from {_place(self.centre)}"
        if seen.distance_rad > self.radius_rad:
            raise ValidationError(
                f"{listed.name} is {where}, {math.degrees(self.radius_rad):g} are allowed",
                advice="name the calibrator that was looked at",
            )
        if seen.power < LEAST_POWER:
            raise ValidationError(
                f"{listed.name} is {where}, where the beam has {seen.power:.2g} of its power, and {LEAST_POWER:g} is "
                "the least",
                advice="name the calibrator that was looked at",
            )
        return seen


def _find(name: str, listed: Sequence[FluxCalibrator | VlaCalibrator]) -> FluxCalibrator | VlaCalibrator:
    try:
        return flux_calibrator(name)
    except ValidationError:
        for each in listed:
            if isinstance(each, VlaCalibrator) and name.upper() in {
                each.name.upper(), each.b1950_name.upper(), *(o.upper() for o in each.other_names)
            }:  # fmt: skip
                return each
        raise


def _nearest(view: _View, near: Sequence[_Seen]) -> _Seen:
    """The brightest of the flux scale, else of those of the lists that these do not advise against."""
    usable = [each for each in near if each.power >= LEAST_POWER and not _is_barred(each.listed, view.frequency_hz)]
    for each in (*(each for each in usable if isinstance(each.listed, FluxCalibrator)), *usable):
        return each
    raise ValidationError(
        f"no calibrator is within {math.degrees(view.radius_rad):g} degrees of {_place(view.centre)} and in the beam",
        advice="name a calibrator, give flux_jy or a sky_model, or catalogs that hold one",
    )


def _is_barred(listed: FluxCalibrator | VlaCalibrator, frequency_hz: float) -> bool:
    """Whether a list says of a source that it is no calibrator for any configuration: it stays a neighbour."""
    return isinstance(listed, VlaCalibrator) and set(listed.band_at(frequency_hz).qualities) == {"X"}


def _point_within(listed: FluxCalibrator | VlaCalibrator, frequency_hz: float) -> tuple[float, float]:
    """Projected baselines, wavelengths, on which it is a point."""
    if isinstance(listed, FluxCalibrator):
        return 0.0, listed.longest_wavelengths
    band = listed.band_at(frequency_hz)
    longest = math.inf if band.longest_wavelengths is None else band.longest_wavelengths
    return band.shortest_wavelengths or 0.0, longest


def _remarks(
    main: _Seen, within: tuple[float, float], others: Sequence[_Seen], visibilities: Visibilities, frequency_hz: float
) -> list[str]:
    name, found = main.component.name, []
    lengths_m = np.hypot(visibilities.uvw_m[:, 0], visibilities.uvw_m[:, 1])[~visibilities.is_auto]
    longest_m = float(lengths_m.max()) if lengths_m.size else 0.0
    longest = longest_m * frequency_hz / SPEED_OF_LIGHT
    if longest > within[1] or within[0] > 0:
        found.append(f"{name} is a point on baselines from {within[0]:.4g} to {within[1]:.4g} wavelengths only")
    if isinstance(main.listed, FluxCalibrator) and main.listed.variable:
        found.append(f"{name} varies by some per cent: its flux density is that of about 2016")
    if isinstance(main.listed, VlaCalibrator) and (worse := main.listed.closure_error(frequency_hz, longest_m)):
        found.append(f"{name} is {worse} on such baselines, by the VLA's list")
    wide = [each.component.name for each in others if _point_within(each.listed, frequency_hz)[1] < longest]
    found += [f"{each} is in the field and not a point on all baselines: its model is one" for each in wide]
    return found


def _listed(folder: str | None) -> list[VlaCalibrator]:
    if folder is None:
        return []
    if not Path(folder).is_dir():
        raise DataError(f"there is no folder {folder} with lists of calibrators", path=folder)
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


def _place(centre: PhaseCentre) -> str:
    where = f"({math.degrees(centre.ra_rad):.3f}, {math.degrees(centre.dec_rad):+.3f})"
    return f"{centre.name or 'the phase centre'} {where}"


_Directed = Component | PhaseCentre | FluxCalibrator | VlaCalibrator


def _angle(one: _Directed, other: _Directed) -> float:
    places = (one.ra_rad, one.dec_rad, other.ra_rad, other.dec_rad)
    return float(separation_rad(*(np.array(each) for each in places)))
