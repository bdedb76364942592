"""The restoring beam: a Gaussian fitted to the middle of the point spread function, and put in place of components."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.compiled import kernel
from absurd.tasks.radio.errors import ImagingError

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
_LOBE = 0.35
"""The fit is to what lies together with the peak above this."""
_REACH = 5.0
"""Deviations of the beam to which components are restored: 4e-6 of the peak."""


@dataclass(frozen=True, slots=True)
class RestoringBeam:
    """An elliptical Gaussian."""

    major_rad: float
    """Full width at half maximum, as `minor_rad`."""
    minor_rad: float
    position_angle_rad: float
    """Of the major axis, from north through east, 0 to pi."""

    @property
    def solid_angle_sr(self) -> float:
        return math.pi / (4 * math.log(2)) * self.major_rad * self.minor_rad

    def form(self, cell_rad: float) -> tuple[float, float, float]:
        """p, q, r of exp(-(p y^2 + q x y + r x^2)), in 0-based pixels, of which x grows to the west."""
        sine, cosine = math.sin(self.position_angle_rad), math.cos(self.position_angle_rad)
        along, across = (4 * math.log(2) * (cell_rad / each) ** 2 for each in (self.major_rad, self.minor_rad))
        return (
            along * cosine**2 + across * sine**2,
            2 * (across - along) * sine * cosine,
            along * sine**2 + across * cosine**2,
        )


def fit_beam(psf: Pixels, cell_rad: float) -> RestoringBeam:
    """Fit to the main lobe of a point spread function with its peak in pixel (ny / 2, nx / 2).

    Least squares of the values, from the logarithm as a start.  Raises ImagingError for a lobe that is none.
    """
    from scipy.ndimage import label
    from scipy.optimize import least_squares

    half = min(64, psf.shape[0] // 2 - 1, psf.shape[1] // 2 - 1)
    y0, x0 = psf.shape[0] // 2, psf.shape[1] // 2
    middle = psf[y0 - half : y0 + half + 1, x0 - half : x0 + half + 1].astype(np.float64)
    lobes, _ = label(middle > _LOBE)
    inside = lobes == lobes[half, half]
    if not lobes[half, half] or inside.sum() < 5:  # pixels about as wide as the beam
        inside = np.zeros_like(inside)
        inside[half - 1 : half + 2, half - 1 : half + 2] = True
        inside &= middle > 0
    y, x = (each - half for each in np.nonzero(inside))
    values = middle[inside]
    terms = np.stack([y * y, x * y, x * x], axis=1).astype(np.float64)
    start, *_ = np.linalg.lstsq(terms * values[:, None], -np.log(values) * values, rcond=None)
    p, q, r = least_squares(lambda form: np.exp(-terms @ form) - values, start).x
    widths, axes = np.linalg.eigh(np.array([[p, q / 2], [q / 2, r]]))
    if not widths[0] > 0:
        raise ImagingError("the point spread function has no main lobe", advice="take smaller or more pixels")
    major, minor = 2 * np.sqrt(math.log(2) / widths) * cell_rad
    north, west = axes[:, 0]
    return RestoringBeam(float(major), float(minor), math.atan2(-west, north) % math.pi)


def restore(image: Pixels, beam: RestoringBeam, cell_rad: float, components: Floats) -> None:
    """Add components as Gaussians of their flux at the peak.

    They are (component, 3): 0-based y and x, which need not be whole, and flux, Jy.
    """
    p, q, r = beam.form(cell_rad)
    reach = math.ceil(_REACH * beam.major_rad / math.sqrt(8 * math.log(2)) / cell_rad)
    _stamp(image, p, q, r, reach, np.asarray(components, np.float64).reshape(-1, 3))


@kernel
def _stamp(image: Pixels, p: float, q: float, r: float, reach: int, components: Floats) -> None:
    ny, nx = image.shape
    for number in range(components.shape[0]):
        place_y, place_x, flux = components[number, 0], components[number, 1], components[number, 2]
        middle_y, middle_x = int(np.floor(place_y + 0.5)), int(np.floor(place_x + 0.5))
        for y in range(max(0, middle_y - reach), min(ny, middle_y + reach + 1)):
            for x in range(max(0, middle_x - reach), min(nx, middle_x + reach + 1)):
                dy, dx = y - place_y, x - place_x
                image[y, x] += np.float32(flux * np.exp(-(p * dy * dy + q * dx * dy + r * dx * dx)))
