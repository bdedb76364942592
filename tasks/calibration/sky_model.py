"""Models of the sky: components with a place, a spectrum and a shape."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.flux_scale import FluxCalibrator, check_range, flux_calibrator
from absurd.tasks.radio.errors import DataError, ValidationError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Component:
    """A point, or a Gaussian, without polarisation.

    Its flux density at a frequency f is flux_jy * 10^(a1 x + a2 x^2 + ...), x = log10(f / reference_hz), with a1 (the
    spectral index), a2, ... of `spectrum`.
    """

    name: str
    ra_rad: float
    """ICRS, as `dec_rad`."""
    dec_rad: float
    flux_jy: float
    """Integrated; may be negative, as clean components are."""
    reference_hz: float = 1e9
    spectrum: tuple[float, ...] = ()
    major_rad: float = 0.0
    """Full widths at half maximum; 0 is a point."""
    minor_rad: float = 0.0
    position_angle_rad: float = 0.0
    """Of the major axis, from north through east."""
    lowest_hz: float = 0.0
    """Frequencies that the spectrum holds for."""
    highest_hz: float = math.inf

    def __post_init__(self) -> None:
        numbers = (self.ra_rad, self.dec_rad, self.flux_jy, self.major_rad, self.minor_rad, self.position_angle_rad)
        if not all(map(math.isfinite, (*numbers, *self.spectrum))) or abs(self.dec_rad) > math.pi / 2 + 1e-12:
            raise ValidationError(f"component {self.name!r} has a value that is no number, or no declination")
        if not (self.reference_hz > 0 and self.major_rad >= self.minor_rad >= 0):
            raise ValidationError(
                f"component {self.name!r}: the reference frequency is above 0, and the major axis not below the minor"
            )

    def flux_at(self, frequencies_hz: Floats) -> Floats:
        """Jy.  Raises ValidationError outside of the frequencies that the spectrum holds for."""
        frequencies = np.asarray(frequencies_hz, np.float64)
        check_range(self.name, frequencies, self.lowest_hz, self.highest_hz)
        x = np.log10(frequencies / self.reference_hz)
        exponent = np.polynomial.polynomial.polyval(x, (0.0, *self.spectrum))
        flux: Floats = self.flux_jy * np.power(10.0, exponent, dtype=np.float64)
        return flux


@dataclass(frozen=True, slots=True)
class SkyModel:
    """What is on the sky, where one looks."""

    components: tuple[Component, ...]

    def __iter__(self) -> Iterator[Component]:
        return iter(self.components)

    def __len__(self) -> int:
        return len(self.components)

    def __add__(self, other: SkyModel) -> SkyModel:
        return SkyModel(self.components + other.components)

    def to_json(self) -> str:
        """As `from_json` reads it, every figure kept."""
        rows = [{**asdict(each), "spectrum": list(each.spectrum)} for each in self.components]
        for each in rows:
            if math.isinf(each["highest_hz"]):
                del each["highest_hz"]
        return json.dumps(rows, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> SkyModel:
        """Raises DataError for what is no model of the sky, and ValidationError for values that cannot be meant."""
        try:
            rows: list[dict[str, Any]] = json.loads(text)
            return cls(tuple(Component(**{**each, "spectrum": tuple(each.get("spectrum", ()))}) for each in rows))
        except (TypeError, AttributeError, json.JSONDecodeError) as error:
            raise DataError(f"no model of the sky: {error}") from error


def calibrator_component(calibrator: str | FluxCalibrator) -> Component:
    """A standard calibrator as a point, with the spectrum of Perley and Butler (2017).

    Raises ValidationError for a name that is not of the scale.
    """
    source = flux_calibrator(calibrator) if isinstance(calibrator, str) else calibrator
    return Component(
        name=source.name,
        ra_rad=source.ra_rad,
        dec_rad=source.dec_rad,
        flux_jy=10.0 ** source.coefficients[0],
        reference_hz=1e9,
        spectrum=source.coefficients[1:],
        lowest_hz=source.lowest_hz,
        highest_hz=source.highest_hz,
    )


def point(name: str, ra_rad: float, dec_rad: float, flux_jy: float, spectrum: Sequence[float] = ()) -> Component:
    """A point whose flux density is given at 1 GHz, or at all frequencies if it has no spectrum."""
    return Component(name, ra_rad, dec_rad, flux_jy, spectrum=tuple(spectrum))


def separation_rad(ra1_rad: Floats, dec1_rad: Floats, ra2_rad: Floats, dec2_rad: Floats) -> Floats:
    """Angle between directions, radians; exact for small and for opposite ones too (Vincenty)."""
    turn = np.asarray(ra2_rad) - np.asarray(ra1_rad)
    sin1, cos1, sin2, cos2 = np.sin(dec1_rad), np.cos(dec1_rad), np.sin(dec2_rad), np.cos(dec2_rad)
    across = np.hypot(cos2 * np.sin(turn), cos1 * sin2 - sin1 * cos2 * np.cos(turn))
    angle: Floats = np.arctan2(across, sin1 * sin2 + cos1 * cos2 * np.cos(turn))
    return angle
