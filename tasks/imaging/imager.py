"""The embedded imager: gridding and minor cycles in turn, until nothing is left to clean."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.beam_fit import RestoringBeam, fit_beam, restore
from absurd.tasks.imaging.deconvolve import Cleaner, Stop, Tell, noise
from absurd.tasks.imaging.geometry import Geometry
from absurd.tasks.imaging.grid import Grid
from absurd.tasks.imaging.masks import read_mask
from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.imaging.points import Point
from absurd.tasks.imaging.primary_beam import primary_beam
from absurd.tasks.imaging.samples import Samples, samples_of
from absurd.tasks.imaging.weighting import imaging_weights
from absurd.tasks.radio.beam import Beam, beam_named
from absurd.tasks.radio.errors import ValidationError
from absurd.tasks.visibility.visibilities import Visibilities

Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class ImagingResult:
    """An image and what belongs to it: arrays (y, x), y upwards, x to the west."""

    image: Pixels
    """Jy of a beam: what was cleaned, as the restoring beam shows it, on the residual.  As the dishes received it."""
    model: Pixels
    """Jy of a pixel."""
    residual: Pixels
    psf: Pixels
    pb: Pixels
    """Power that dishes receive, as a share."""
    geometry: Geometry
    beam: RestoringBeam
    frequency_hz: float
    """Middle of the band, by weight."""
    bandwidth_hz: float
    span_s: tuple[float, float]
    """Begin and end of what was observed, seconds of UTC since MJD 0."""
    telescope: str
    engine: str
    stopped_by: Stop
    statistics: dict[str, float] = field(default_factory=dict)
    """rms_jy (of the residual, robust), thermal_jy (what the weights promise), peak_jy, dynamic_range, and more."""
    points: tuple[Point, ...] = ()
    """Sources whose flux follows the drift."""

    def summary(self) -> dict[str, Any]:
        """What is to be told of it in a few numbers, for JSON."""
        beam = (self.beam.major_rad, self.beam.minor_rad)
        return {
            "engine": self.engine,
            "stopped_by": self.stopped_by,
            "frequency_hz": self.frequency_hz,
            "beam_arcsec": [3600 * math.degrees(each) for each in beam],
            "beam_angle_deg": math.degrees(self.beam.position_angle_rad),
            "points": len(self.points),
            "statistics": self.statistics,
        }


def image_visibilities(
    visibilities: Visibilities, parameters: ImagingParameters, tell: Tell = lambda stage: None
) -> ImagingResult:
    """Stokes I of visibilities, cleaned and restored.

    `tell` is told what is done.  Raises DataError where nothing is usable, ValidationError for what this engine has
    not, ImagingError where no image can be made.
    """
    return image_samples(samples_of(visibilities, parameters), parameters, tell)


def image_samples(samples: Samples, parameters: ImagingParameters, tell: Tell = lambda stage: None) -> ImagingResult:
    """The same of visibilities that are Stokes I already, so that the others need not be kept in memory."""
    if parameters.deconvolver == "mtmfs":
        raise ValidationError("deconvolver mtmfs is one of tclean", advice="take engine tclean, or multiscale")
    tell("weighting")
    weights = imaging_weights(samples, parameters)
    grid = Grid(samples, weights, parameters)
    tell("gridding")
    psf = grid.psf()
    beam = fit_beam(psf, parameters.cell_rad)
    mask = None if parameters.mask is None else read_mask(parameters.mask, grid.geometry)
    cleaned = Cleaner(grid, psf, beam, parameters, mask, tell).clean()
    tell("restoring")
    image, model, points = cleaned.residual.copy(), cleaned.model, cleaned.points
    pixels = np.nonzero(model)
    restore(image, beam, parameters.cell_rad, np.column_stack([*pixels, model[pixels]]))
    restore(image, beam, parameters.cell_rad, np.array([[each.y, each.x, each.mean_jy] for each in points]))
    for each in points:
        y, x = round(each.y), round(each.x)
        if 0 <= y < model.shape[0] and 0 <= x < model.shape[1]:
            model[y, x] += np.float32(each.mean_jy)
    by_channel = weights.sum(axis=0, dtype=np.float64)
    rms = noise(cleaned.residual)
    top = float(image.max())
    return ImagingResult(
        image=image,
        model=model,
        residual=cleaned.residual,
        psf=psf,
        pb=primary_beam(samples, weights, grid.geometry, dish_beam(parameters, samples)),
        geometry=grid.geometry,
        beam=beam,
        frequency_hz=float(np.average(samples.frequencies_hz, weights=by_channel)),
        bandwidth_hz=float(np.abs(samples.channel_width_hz).sum()),
        span_s=samples.span_s,
        telescope=samples.array.telescope,
        engine="embedded",
        stopped_by=cleaned.stopped_by,
        statistics={
            "rms_jy": rms,
            "thermal_jy": grid.noise_jy,
            "peak_jy": top,
            "dynamic_range": top / rms if rms else float("inf"),
            "components": cleaned.components,
            "cycles": cleaned.cycles,
        },
        points=tuple(points),
    )


def dish_beam(parameters: ImagingParameters, samples: Samples) -> Beam | None:
    """The beam that is asked for, of the recording's dishes."""
    if parameters.primary_beam == "none":
        return None
    return beam_named(parameters.primary_beam, samples.array.dish_diameter_m)
