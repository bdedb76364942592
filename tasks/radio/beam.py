"""Primary beams: how much of a source's power a dish receives, by how far from its axis the source is."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.telescope import SPEED_OF_LIGHT

Floats = NDArray[np.float64]
AIRY_FWHM = 1.0289934
"""Full width at half power of a uniformly lit disc, in wavelengths per diameter, for small angles."""
_AIRY_HALF = 1.6163399
"""Where (2 J1(x) / x)^2 is 1/2."""


class Beam(Protocol):
    """Power received of a source, 1 on the axis."""

    def power(self, distance_rad: Floats, frequency_hz: Floats) -> Floats:
        """Between 0 and 1, at angles from the axis in radians; the two arrays broadcast."""

    def fwhm_rad(self, frequency_hz: float) -> float:
        """Full width at half power, radians."""


class AiryBeam:
    """A disc that is lit uniformly: (2 J1(x) / x)^2 with x = pi D sin(distance) / wavelength; 0 of what is behind it.

    Born and Wolf, Principles of Optics, 8.5.2.
    """

    def __init__(self, diameter_m: float) -> None:
        self.diameter_m = diameter_m

    def power(self, distance_rad: Floats, frequency_hz: Floats) -> Floats:
        from scipy.special import j1

        x = math.pi * self.diameter_m * np.sin(distance_rad) * np.asarray(frequency_hz) / SPEED_OF_LIGHT
        near = np.abs(x) < 1e-4  # where the quotient loses its digits: 1 - x^2 / 4 holds to 1e-17
        far = np.where(near, 1.0, x)
        before = np.where(near, 1 - x**2 / 4, (2 * j1(far) / far) ** 2)
        power: Floats = np.where(np.abs(distance_rad) < math.pi / 2, before, 0.0)  # sin is the same on both sides
        return power

    def fwhm_rad(self, frequency_hz: float) -> float:
        return 2 * math.asin(_AIRY_HALF * SPEED_OF_LIGHT / (math.pi * self.diameter_m * frequency_hz))


class GaussianBeam:
    """A Gaussian whose full width at half power is `factor` wavelengths per diameter."""

    def __init__(self, diameter_m: float, factor: float = AIRY_FWHM) -> None:
        self.diameter_m, self.factor = diameter_m, factor

    def power(self, distance_rad: Floats, frequency_hz: Floats) -> Floats:
        fwhm = self.factor * SPEED_OF_LIGHT / (self.diameter_m * np.asarray(frequency_hz))
        power: Floats = np.exp(-4 * math.log(2) * (distance_rad / fwhm) ** 2)
        return power

    def fwhm_rad(self, frequency_hz: float) -> float:
        return self.factor * SPEED_OF_LIGHT / (self.diameter_m * frequency_hz)


def beam_named(name: str, diameter_m: float) -> Beam:
    """The beam ``airy`` or ``gaussian`` of a dish.  Raises ValidationError for other names."""
    from absurd.tasks.radio.errors import ValidationError

    beams: dict[str, type[AiryBeam | GaussianBeam]] = {"airy": AiryBeam, "gaussian": GaussianBeam}
    if name not in beams:
        raise ValidationError(f"beam {name!r} is not known", advice=f"take {' or '.join(beams)}")
    return beams[name](diameter_m)
