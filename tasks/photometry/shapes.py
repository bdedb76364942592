"""Gaussians on the sky as they lie on pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.sky_image import RestoringBeam, SkyImage
from absurd.tasks.radio.sky_pixels import sky_to_pixels

Floats = NDArray[np.float64]
_EIGHT_LN2 = 8 * np.log(2)
_OFFSET_DEG = 1e-4


def beam_shape(image: SkyImage, beam: RestoringBeam) -> Floats:
    """The restoring beam as (xx, xy, yy) of its quadratic form on pixels; it is the same all over the image.

    A Gaussian is exp(-(xx dx^2 + 2 xy dx dy + yy dy^2) / 2), dx and dy in pixels.  The beam's angle is from the y axis
    at the reference position, where north is.
    """
    matrix = np.asarray(image.wcs.pixel_scale_matrix)  # degrees (east, north) per pixel (x, y)
    form: Floats = _forms(np.linalg.inv(matrix)[None], *(np.array([each]) for each in _widths(beam)))[0]
    return form


def round_shape(width_pixels: float) -> Floats:
    """The form of a round Gaussian of that full width at half maximum, pixels."""
    inverse = _EIGHT_LN2 / width_pixels**2
    return np.array([inverse, 0.0, inverse])


def beam_shapes(image: SkyImage, beam: RestoringBeam, ra_deg: Floats, dec_deg: Floats) -> Floats:
    """The restoring beam as forms (n, 3) at positions.

    On the plane that an interferometer sees (SIN) it is the same everywhere.  On others, as those of mosaics, pixels
    grow away from the centre, and the beam is the same on the sky.
    """
    if image.wcs.wcs.ctype[0].endswith("SIN"):
        return np.ascontiguousarray(np.broadcast_to(beam_shape(image, beam), (len(ra_deg), 3)))
    return source_shapes(image, ra_deg, dec_deg, *(np.full(len(ra_deg), each) for each in _widths(beam)))


def source_shapes(
    image: SkyImage, ra_deg: Floats, dec_deg: Floats, major_deg: Floats, minor_deg: Floats, angle_deg: Floats
) -> Floats:
    """Gaussians by their widths at half maximum and angle from north through east, as forms (n, 3) on pixels.

    North is that of each position, which turns over an image, and pixels are as large as they are there.
    """
    lon, lat = np.asarray(ra_deg, float), np.asarray(dec_deg, float)
    x, y = sky_to_pixels(image.wcs, lon, lat, _icrs())
    inward = np.where(lat > 0, -1.0, 1.0)  # away from the pole, beyond which north is south
    north = np.stack(sky_to_pixels(image.wcs, lon, lat + inward * _OFFSET_DEG, _icrs())) - (x, y)
    turn = _OFFSET_DEG / np.maximum(np.cos(np.radians(lat)), 1e-9)
    east = np.stack(sky_to_pixels(image.wcs, (lon + turn) % 360, lat, _icrs())) - (x, y)
    pixels = (
        np.stack([east, north * inward], axis=-1) / _OFFSET_DEG
    )  # (2, n, 2): pixels (x, y) per degree (east, north)
    return _forms(np.moveaxis(pixels, 0, 1), np.asarray(major_deg), np.asarray(minor_deg), np.asarray(angle_deg))


def areas(forms: Floats) -> Floats:
    """Integrals of Gaussians, pixels."""
    area: Floats = 2 * np.pi / np.sqrt(forms[..., 0] * forms[..., 2] - forms[..., 1] ** 2)
    return area


def width_pixels(form: Floats) -> tuple[float, float]:
    """Full widths at half maximum of the long and the short axis of a form, pixels."""
    values = np.linalg.eigvalsh([[form[0], form[1]], [form[1], form[2]]])
    minor, major = (float(np.sqrt(_EIGHT_LN2 / each)) for each in values[::-1])
    return major, minor


def _forms(pixels: Floats, major_deg: Floats, minor_deg: Floats, angle_deg: Floats) -> Floats:
    """Inverses of the covariances that `pixels` (n, 2, 2), from degrees to pixels, makes of those on the sky."""
    angle = np.radians(angle_deg)
    along = np.stack([np.sin(angle), np.cos(angle)], axis=-1)  # (east, north)
    across = np.stack([np.cos(angle), -np.sin(angle)], axis=-1)
    sky = sum(
        (width**2 / _EIGHT_LN2)[:, None, None] * axis[:, :, None] * axis[:, None, :]
        for width, axis in ((np.asarray(major_deg, float), along), (np.asarray(minor_deg, float), across))
    )
    inverse = np.linalg.inv(pixels @ sky @ np.swapaxes(pixels, 1, 2))
    return np.ascontiguousarray(np.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], axis=-1))


def _widths(beam: RestoringBeam) -> tuple[float, float, float]:
    return beam.major_deg, beam.minor_deg, beam.angle_deg


def _icrs() -> Any:
    from astropy.coordinates import ICRS

    return ICRS()
