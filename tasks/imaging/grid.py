"""Between visibilities and images: on the slant plane of the array where that is exact enough, else with all of w.

An array on flat ground that looks for minutes is a plane: w = a u + b v + w', with a small w'.  Then
u l + v m + w (n - 1) = u x + v y + w' (n - 1) with x = l + a (n - 1), y = m + b (n - 1): an image on a regular grid of
x and y takes one transform, and its point spread function is the same everywhere.  FITS has the grid as SIN with
PV2_1 = -a and PV2_2 = -b (Calabretta and Greisen 2002, equations 61 and 62).
"""

from __future__ import annotations

import math

import ducc0
import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.direct import Direct
from absurd.tasks.imaging.geometry import Geometry
from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.imaging.samples import Samples
from absurd.tasks.imaging.weighting import thermal_noise_jy
from absurd.tasks.radio.compiled import kernel
from absurd.tasks.radio.errors import ImagingError, ValidationError
from absurd.tasks.radio.telescope import SPEED_OF_LIGHT

Floats = NDArray[np.float64]
Pixels = NDArray[np.float32]
Values = NDArray[np.complex64]
GUARD_RAD = 1.0
"""Largest phase 2 pi |w'| |n - 1| with which the slant plane is taken."""
_SIDELOBE = 0.05
"""Of a source, that what is left out of it may have: below the noise it stays out."""
_ACCURACY = 1e-5
"""Of predictions, as a share; single precision allows little less."""
_ACCURACY_OF_IMAGES = 1e-4
"""Of what is left to clean, which is a small share of the sky: the error is a tenth of that."""
_COMPONENT_COSTS, _VISIBILITY_COSTS, _PIXEL_COSTS = 1, 30, 40
"""Nanoseconds that it takes to predict a visibility: directly for each component, or by a grid, with its pixels."""


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
        self.direct = Direct(samples, self.geometry, self.uvw_m)
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
            epsilon=_ACCURACY_OF_IMAGES, do_wgridding=self.with_w, divide_by_n=False, nthreads=1,
        )  # fmt: skip
        return image

    def psf(self) -> Pixels:
        """The dirty image of a point of 1 Jy at the phase centre, with 1 there."""
        return self.dirty(np.ones(self.weights.shape, np.complex64))

    def subtract(self, model: Pixels, values: Values) -> None:
        """Take what is seen of a model (y, x), Jy of a pixel, out of visibilities (row, channel), in place."""
        pixels = np.nonzero(model)
        flux = model[pixels]
        by_grid = (1 + self._is_turned(model)) * (_VISIBILITY_COSTS * values.size + _PIXEL_COSTS * model.size)
        if _COMPONENT_COSTS * len(flux) * values.size > by_grid:
            values -= self.predict(model)
        elif len(flux):
            steady = np.broadcast_to(flux.astype(np.float64), (values.shape[1], len(flux)))
            self.direct.subtract(np.column_stack(pixels), lambda time: steady, values)

    def predict(self, model: Pixels) -> Values:
        """(row, channel), Jy: what is seen of a model by the grid, on the slant plane to first order of w'."""
        values = self._forward(model)
        if self._is_turned(model):
            deep = model.copy()
            columns = np.arange(deep.shape[1])
            for row in np.flatnonzero(deep.any(axis=1)):
                deep[row] *= self.geometry.depth(*self.geometry.plane(row, columns))
            _add_turned(values, self._forward(deep), self.uvw_m[:, 2], self.samples.frequencies_hz)
        return values

    def _is_turned(self, model: Pixels) -> bool:
        """Whether what w' does to a model shows."""
        return bool(_SIDELOBE * float(max(model.max(), -model.min())) * self.phase_rad > self.noise_jy)

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
