"""Images of the whole band, or planes by frequency."""

from __future__ import annotations

from itertools import pairwise

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
    parts = parts_of(samples, parameters).values()
    return [image_samples(samples.channels(each), parameters, tell) for each in parts]


def parts_of(samples: Samples, parameters: ImagingParameters) -> dict[int, slice]:
    """Channels of each plane in which anything is usable, by the plane's number, parted as WSClean does.

    Raises ValidationError for more planes than channels.
    """
    channels, planes = len(samples.frequencies_hz), parameters.planes
    if planes > channels:
        raise ValidationError(f"{planes} planes of {channels} channels", advice="take fewer planes")
    bounds = [each * channels // planes for each in range(planes + 1)]
    parts = {number: slice(*ends) for number, ends in enumerate(pairwise(bounds))}
    return {number: part for number, part in parts.items() if samples.weights[:, part].any()}
