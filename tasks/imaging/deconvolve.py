"""Gridding and minor cycles in turn, until nothing is left to clean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.beam_fit import RestoringBeam
from absurd.tasks.imaging.clean import CLARK_HALF, Mask, minor_cycle, outside, peak
from absurd.tasks.imaging.grid import Grid
from absurd.tasks.imaging.masks import around
from absurd.tasks.imaging.multiscale import MultiScale
from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.imaging.points import ROUNDS, Point, PointFit, as_point, candidates

Pixels = NDArray[np.float32]
Values = NDArray[np.complex64]
Stop = Literal["threshold", "niter", "divergence", "cycles", "empty mask"]
Tell = Callable[[str], None]
MOST_CYCLES = 100
_LARGEST_SHARE = 0.8
"""Of the peak, that a cycle leaves at most: what is tried before one gives up."""
_SAFE = 1.5
"""A cycle stops above the sidelobes of its peak that are not taken off, times this."""
_GAINED = 0.999
"""A cycle after which the peak is as high as before has to have brought down the residual's power so far at least."""
_POINTS_FROM = 2
"""Cycles after which there are components enough to tell points by."""
_POINT_STAGES = 2
"""How often points are looked for: the fainter ones show once the brighter ones are gone."""
_MOST_POINT_STAGES = 8
"""The same where more than noise is left: a bright source that is not followed yet costs those around it per cents."""
_ABOVE_NOISE = 1.1
_ROUNDS_AGAIN = 1
"""Steps after which points fit that did before others were dropped."""
_SAMPLED = 1 << 20
"""Pixels of which the noise is taken."""


@dataclass(slots=True)
class Cleaned:
    """What is left of an image, and what was taken out of it."""

    model: Pixels
    """Jy of a pixel; without the points."""
    residual: Pixels
    points: list[Point] = field(default_factory=list)
    components: int = 0
    cycles: int = 0
    stopped_by: Stop = "cycles"


def noise(residual: Pixels) -> float:
    """Standard deviation by the median of absolute values, which sources hardly change; of a part of large images."""
    some = residual.ravel()[:: max(1, residual.size // _SAMPLED)]
    return float(1.4826 * np.median(np.abs(some - np.median(some))))


def power(residual: Pixels, mask: Mask | None) -> float:
    """The sum of squares, where is cleaned."""
    part = residual.ravel() if mask is None else residual[mask]
    return float(np.vdot(part, part))


class Found(Protocol):
    """Components of one minor cycle."""

    def __len__(self) -> int: ...

    def add_to(self, model: Pixels) -> None:
        """Add them to a model, in place."""


class Cleaner:
    """Of one grid."""

    def __init__(
        self, grid: Grid, psf: Pixels, beam: RestoringBeam, parameters: ImagingParameters, mask: Mask | None, tell: Tell
    ) -> None:
        self._grid, self._psf, self._beam, self._parameters, self._tell = grid, psf, beam, parameters, tell
        self._mask = mask
        self._left_over = grid.samples.values
        """Visibilities without the model and the points."""
        self._fit: PointFit | None = None
        self._peak: Callable[[Pixels, Mask | None], float] = peak
        self._minor_cycle: Callable[..., Found] = minor_cycle
        if parameters.deconvolver == "multiscale":
            scales = MultiScale(psf, parameters.scales)
            self._peak, self._minor_cycle = scales.peak, scales.minor_cycle
        clark = parameters.deconvolver == "clark"
        self._half = CLARK_HALF if clark else max(grid.geometry.shape)
        # Between sources at both ends of the image lie sidelobes that no image shows: those farther out in it stand for
        # them.
        self._least_share = _SAFE * outside(psf, min(self._half, min(grid.geometry.shape) // 4))

    def clean(self) -> Cleaned:
        """Down to the threshold, or until `stopped_by` something else."""
        parameters = self._parameters
        state = Cleaned(np.zeros(self._grid.geometry.shape, np.float32), self._grid.dirty(self._left_over))
        if self._mask is not None and not self._mask.any():
            state.stopped_by = "empty mask"
            return state
        least_share = min(_LARGEST_SHARE, max(1 - parameters.mgain, self._least_share))
        mask, share = self._mask, least_share
        widening, stages = parameters.auto_mask is not None, 0
        while state.cycles < MOST_CYCLES:
            highest, rms = self._peak(state.residual, mask), noise(state.residual)
            lowest = max(parameters.threshold_jy, (parameters.auto_threshold or 0) * rms)
            floor = max(lowest, parameters.auto_mask * rms) if widening and parameters.auto_mask else lowest
            if highest <= floor and widening:
                widening = False
                mask = around(state.model, state.points, self._beam, parameters.cell_rad, self._mask)
                continue
            if highest <= floor:
                state.stopped_by = "threshold"
                break
            if state.components >= parameters.niter:
                state.stopped_by = "niter"
                break
            self._tell(f"cleaning, cycle {state.cycles + 1}")
            found = self._minor_cycle(
                state.residual, self._psf, half=self._half, gain=parameters.gain, mask=mask,
                limit_jy=max(floor, share * highest), most=parameters.niter - state.components,
            )  # fmt: skip
            left_over = self._without(found)
            residual = self._grid.dirty(left_over)
            state.cycles += 1
            left = self._peak(residual, mask) / highest
            if left >= 1 and power(residual, mask) > _GAINED * power(state.residual, mask):
                if share >= _LARGEST_SHARE:
                    state.stopped_by = "divergence"
                    break
                share = min(_LARGEST_SHARE, 3 * share)
                continue
            # Where sidelobes reach farther than the image, no cycle can go deeper than these are.
            share = min(_LARGEST_SHARE, max(least_share, left))
            state.components += len(found)
            found.add_to(state.model)
            state.residual, self._left_over = residual, left_over
            most = _MOST_POINT_STAGES if noise(residual) > _ABOVE_NOISE * self._grid.noise_jy else _POINT_STAGES
            if state.cycles >= _POINTS_FROM and stages < most and self._find_points(state):
                stages += 1
        if state.points and self._fit is not None:  # what was cleaned since is no longer in their way
            values = self._left_over.copy()
            self._fit.subtract(state.points, values, -1.0)
            self._refit(state, values)
        return state

    def _without(self, found: Found) -> Values:
        """What is left over without components, too."""
        model, values = np.zeros(self._grid.geometry.shape, np.float32), self._left_over.copy()
        found.add_to(model)
        self._grid.subtract(model, values)
        return values

    def _find_points(self, state: Cleaned) -> bool:
        """Put points in the place of components, and keep each if it leaves less behind than these did.

        All other components go: most are of what the bright ones left, and what is a source is found again.  Whether
        any were tried.
        """
        cell = self._parameters.cell_rad
        least = self._parameters.point_snr * noise(state.residual)
        found = candidates(state.model, self._beam, cell, least, state.points)
        if not found:
            return False
        self._tell("fitting points")
        if self._fit is None:
            self._fit = PointFit(self._grid, self._psf, self._beam)
        before, known = state.residual, state.points
        fluxes = [state.model[each] for each in found]
        state.points = [*known, *(as_point(state.model, each) for each in found)]
        state.model[:] = 0
        self._refit(state, self._grid.samples.values.copy())
        kept = state.points[: len(known)]
        for each, flux, point in zip(found, fluxes, state.points[len(known) :], strict=True):
            if _left(state.residual, point, self._beam, cell) >= _left(before, point, self._beam, cell):
                state.model[each] = flux
            elif point.mean_jy > least / 2:  # otherwise the components were of another's sidelobe
                kept.append(point)
        if len(kept) < len(state.points):
            state.points = kept
            values = self._grid.samples.values.copy()
            self._grid.subtract(state.model, values)
            self._refit(state, values, _ROUNDS_AGAIN)
        return True

    def _refit(self, state: Cleaned, values: Values, rounds: int = ROUNDS) -> None:
        """Fit points to visibilities without the model, and take them out of these, in place."""
        if state.points and self._fit is not None:
            state.points = self._fit.fit(state.points, values, rounds)
            self._fit.subtract(state.points, values)
        state.residual, self._left_over = self._grid.dirty(values), values


def _left(residual: Pixels, point: Point, beam: RestoringBeam, cell_rad: float) -> float:
    """Root mean square of a residual within a beam's width of a point, and 0 outside of the image."""
    reach = max(2, round(beam.major_rad / cell_rad))
    y, x = round(point.y), round(point.x)
    part = residual[max(0, y - reach) : max(0, y + reach + 1), max(0, x - reach) : max(0, x + reach + 1)]
    return float(np.sqrt(np.mean(part.astype(np.float64) ** 2))) if part.size else 0.0
