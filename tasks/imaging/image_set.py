"""Images of the whole band, or planes by frequency."""

from __future__ import annotations

import numpy as np

from absurd.tasks.imaging.deconvolve import Tell
from absurd.tasks.imaging.imager import ImagingResult, image_samples
from absurd.tasks.imaging.parameters import ImagingParameters
from absurd.tasks.imaging.samples import Samples
from absurd.tasks.radio.errors import ValidationError


def image_planes(samples: Samples, parameters: ImagingParameters, tell: Tell) -> list[ImagingResult]:
    """An image of each part of the band; parts in which nothing is usable are left out.

    Raises as `image_visibilities`.
    """
    if parameters.planes == 1:
        return [image_samples(samples, parameters, tell)]
    parts = [each for each in parts_of(len(samples.frequencies_hz), parameters) if samples.weights[:, each].any()]
    return [image_samples(samples.channels(each), parameters, tell) for each in parts]


def parts_of(channels: int, parameters: ImagingParameters) -> list[slice]:
    """Channels of each plane.  Raises ValidationError for more planes than channels."""
    if parameters.planes > channels:
        raise ValidationError(f"{parameters.planes} planes of {channels} channels", advice="take fewer planes")
    split = np.array_split(np.arange(channels), parameters.planes)
    return [slice(int(each[0]), int(each[-1]) + 1) for each in split]
