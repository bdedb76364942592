"""Between visibilities and images: on the slant plane of the array where that is exact enough, else with all of w.

An array on flat ground that looks for minutes is a plane: w = a u + b v + w', with a small w'.  Then
u l + v m + w (n - 1) = u x + v y + w' (n - 1) with x = l + a (n - 1), y = m + b (n - 1): an image on a regular grid of
x and y takes one transform, and its point spread function is the same everywhere.  FITS has the grid as SIN with
PV2_1 = -a and PV2_2 = -b (Calabretta and Greisen 2002, equations 61 and 62).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ducc0
import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.imaging.samples import Samples
from absurd.tasks.imaging.weighting import thermal_noise_jy
from absurd.tasks.radio.compiled import kernel
from absurd.tasks.radio.errors import ImagingError, ValidationError
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT
from absurd.tasks.visibility.visibilities import PhaseCentre

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Values = NDArray[np.complex64]
GUARD_RAD = 1.0
"""Largest phase 2 pi |w'| |n - 1| with which the slant plane is taken."""
_SIDELOBE = 0.05
"""Of a source, that what is left out of it may have: below the noise it stays out."""
_ACCURACY = 1e-5
"""Of the transforms, as a share; single precision allows little less."""


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of an image are."""

    centre: PhaseCentre
    shape: tuple[int, int]
    """(ny, nx), even; the phase centre is in the middle of pixel (ny / 2, nx / 2), counted from 0."""
    cell_rad: float
    slant: tuple[float, float] = (0.0, 0.0)
    """a and b."""

    @cached_property
    def wcs(self) -> Any:
        """Celestial, of two axes, ICRS, for 0-based (x, y)."""
        from astropy.wcs import WCS

        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
        wcs.wcs.cunit = ["deg", "deg"]
        wcs.wcs.crval = np.degrees([self.centre.ra_rad, self.centre.dec_rad])
        wcs.wcs.crpix = [self.shape[1] // 2 + 1, self.shape[0] // 2 + 1]
        wcs.wcs.cdelt = np.degrees([-self.cell_rad, self.cell_rad])
        if any(self.slant):
            wcs.wcs.set_pv([(2, 1, -self.slant[0]), (2, 2, -self.slant[1])])
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.set()
        return wcs

    def plane(self, y: Any, x: Any) -> tuple[Floats, Floats]:
        """The plane's x and y, radians, of 0-based pixel coordinates."""
        return (
            (self.shape[1] // 2 - np.asarray(x, np.float64)) * self.cell_rad,
            (np.asarray(y, np.float64) - self.shape[0] // 2) * self.cell_rad,
        )

    def depth(self, x: Floats, y: Floats) -> Floats:
        """N - 1 at places of the plane; NaN beyond the sky."""
        return depth(x, y, *self.slant)


def depth(x: Floats, y: Floats, a: float, b: float) -> Floats:
    """N - 1 where x = l + a (n - 1), y = m + b (n - 1) and l^2 + m^2 + n^2 = 1, without loss of digits."""
    square = x * x + y * y
    half = 1 - a * x - b * y
    inside = half * half - (1 + a * a + b * b) * square
    root = np.sqrt(np.where(inside >= 0, inside, np.nan))
    value: Floats = -square / (half + root)
    return value


class Grid:
    """Transforms of one set of samples, with its imaging weights."""

    def __init__(self, samples: Samples, weights: NDArray[np.float32], parameters: ImagingParameters) -> None:
        if parameters.gridder == "idg":
            raise ValidationError("gridder idg is one of WSClean", advice="take engine wsclean, or wproject")
        nx, ny = parameters.image_size
        self.samples, self.weights = samples, weights
        flat = parameters.is_flat
        self.with_w = parameters.gridder == "wgridder" and not flat
        self.geometry = Geometry(samples.centre, (ny, nx), parameters.cell_rad)
        uvw = samples.uvw_m
        self.phase_rad = 0.0
        """The largest phase that the grid leaves out."""
        if flat:
            uvw = uvw * (1.0, 1.0, 0.0)
        elif not self.with_w:
            slant = _slant(samples)
            tried = Geometry(samples.centre, (ny, nx), parameters.cell_rad, slant)
            rest = uvw[:, 2] - uvw[:, :2] @ slant
            corners = tried.depth(*tried.plane(*np.meshgrid([0, ny - 1], [0, nx - 1])))
            longest = float(np.abs(rest).max()) * samples.frequencies_hz[-1] / SPEED_OF_LIGHT
            phase = math.tau * longest * float(np.abs(corners).max())
            if phase <= GUARD_RAD:
                self.geometry, self.phase_rad = tried, phase
                uvw = np.column_stack([uvw[:, :2], rest])
            else:  # NaN, where the image reaches beyond the sky, too
                self.with_w = True
        if not np.isfinite(self.geometry.depth(*self.geometry.plane([0, ny - 1], [0, nx - 1]))).all():
            raise ImagingError("the image reaches beyond the sky", advice="take fewer or smaller pixels")
        self.uvw_m = np.ascontiguousarray(uvw)
        """(row, 3): u, v and what of w the grid does not hold (w', w or 0)."""
        self._for_ducc = np.column_stack([-uvw[:, 1], uvw[:, 0], uvw[:, 2] if self.with_w else np.zeros(len(uvw))])
        self.noise_jy = thermal_noise_jy(weights, samples)
        """Of the image, of a beam, as the weights of the visibilities promise it."""

    def dirty(self, values: Values) -> Pixels:
        """(y, x), Jy of a beam: what visibilities (row, channel) give, by weight."""
        ny, nx = self.geometry.shape
        # One thread: with more the order of sums, and so the last bits, would change from run to run.
        image: Pixels = ducc0.wgridder.vis2dirty(
            uvw=self._for_ducc, freq=self.samples.frequencies_hz, vis=values, wgt=self.weights,
            npix_x=ny, npix_y=nx, pixsize_x=self.geometry.cell_rad, pixsize_y=self.geometry.cell_rad,
            epsilon=_ACCURACY, do_wgridding=self.with_w, divide_by_n=False, nthreads=1,
        )  # fmt: skip
        return image

    def psf(self) -> Pixels:
        """The dirty image of a point of 1 Jy at the phase centre, with 1 there."""
        return self.dirty(np.ones(self.weights.shape, np.complex64))

    def predict(self, model: Pixels) -> Values:
        """(row, channel), Jy: what would be seen of a model (y, x), Jy of a pixel."""
        brightest = float(max(model.max(), -model.min()))
        if not brightest:
            return np.zeros(self.weights.shape, np.complex64)
        values = self._forward(model)
        if _SIDELOBE * brightest * self.phase_rad > self.noise_jy:
            deep = model.copy()
            columns = np.arange(deep.shape[1])
            for row in np.flatnonzero(deep.any(axis=1)):
                deep[row] *= self.geometry.depth(*self.geometry.plane(row, columns))
            _add_turned(values, self._forward(deep), self.uvw_m[:, 2], self.samples.frequencies_hz)
        return values

    def _forward(self, model: Pixels) -> Values:
        values: Values = ducc0.wgridder.dirty2vis(
            uvw=self._for_ducc, freq=self.samples.frequencies_hz, dirty=model, wgt=None,
            pixsize_x=self.geometry.cell_rad, pixsize_y=self.geometry.cell_rad,
            epsilon=_ACCURACY, do_wgridding=self.with_w, divide_by_n=False, nthreads=1,
        )  # fmt: skip
        return values


@kernel
def _add_turned(values: Values, deep: Values, w_m: Floats, frequencies: Floats) -> None:
    """Add 2 pi i w' (n - 1) of the model: the first order of what the slant plane leaves."""
    for row in range(values.shape[0]):
        turn = 2 * np.pi * w_m[row] / SPEED_OF_LIGHT
        for channel in range(values.shape[1]):
            factor = np.float32(turn * frequencies[channel])
            value = deep[row, channel]
            values[row, channel] += np.complex64(complex(-factor * value.imag, factor * value.real))


def _slant(samples: Samples) -> tuple[float, float]:
    """A and b with the least w'."""
    (a, b), *_ = np.linalg.lstsq(samples.uvw_m[:, :2], samples.uvw_m[:, 2], rcond=None)
    return float(a), float(b)
