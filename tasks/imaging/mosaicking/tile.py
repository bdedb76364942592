"""A tile of a mosaic: an image, the power that the dish receives at each place of it, and its noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.beam import Beam
from absurd.tasks.radio.errors import DataError, ValidationError
from absurd.tasks.radio.robust import robust_rms
from absurd.tasks.radio.sky_image import SkyImage, open_sky_image, planes_of
from absurd.tasks.radio.sky_pixels import pixels_to_sky, separation_rad

Pixels = NDArray[np.float32]
_SAMPLED = 200_000
"""Pixels by which a tile's noise is measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """What a mosaic takes of an image."""

    image: SkyImage
    gain: Pixels
    """Power of the primary beam, 1 on its axis, at nodes (see `lattice`); NaN where it is not known."""
    precision: Pixels
    """1 / noise^2 of what the beam attenuates, beam^2 / Jy^2, at the same places."""
    power: int
    """Of the gain beside the image in a weighted sum: 1 as the beam attenuates it, 2 where it is corrected."""
    noise_jy: float
    """Noise of what the beam attenuates, Jy/beam: the median where it differs."""

    @property
    def every(self) -> int:
        """Pixels between nodes."""
        return spacing(self.image.shape)

    @property
    def centre(self) -> tuple[float, float]:
        """Right ascension and declination of the middle, degrees, in the frame of the image."""
        ny, nx = self.image.shape
        lon, lat = pixels_to_sky(self.image.wcs, np.array([(nx - 1) / 2]), np.array([(ny - 1) / 2]))
        return float(lon[0]), float(lat[0])


def spacing(shape: tuple[int, int]) -> int:
    """Pixels between nodes, at which beam and noise of a tile are known; between them they are interpolated.

    There are 300 of them along an image, or all pixels, and at least every 16th one.  A beam whose width is that of the
    image is then right to 0.00001, a quarter as wide one to 0.0001.
    """
    return max(1, min(min(shape) // 300, 16))


def lattice(shape: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions (y, x) of the nodes over an image, from the first pixel to beyond the last."""
    every = spacing(shape)
    y, x = (every * np.arange((side - 1) // every + 2, dtype=float) for side in shape)
    y, x = np.meshgrid(y, x, indexing="ij")
    return y, x


def model_gain(image: SkyImage, beam: Beam, pointing: tuple[float, float] | None = None) -> Pixels:
    """Power of a beam over an image, at its nodes.

    It points at `pointing` (degrees, in the image's frame), else at what the header tells as OBSRA and OBSDEC, else at
    the image's reference position.  Raises DataError where no frequency is known.
    """
    if image.frequency_hz is None:
        raise DataError(f"{image.path} tells no frequency, by which its primary beam is known", path=image.path)
    if pointing is None:
        header = image.header
        told = header.get("OBSRA"), header.get("OBSDEC")
        pointing = tuple(image.wcs.wcs.crval) if None in told else (float(told[0]), float(told[1]))
    y, x = lattice(image.shape)
    lon, lat = pixels_to_sky(image.wcs, x.ravel(), y.ravel())
    power = beam.power(separation_rad(lon, lat, *pointing), np.array(image.frequency_hz))
    return power.reshape(x.shape).astype(np.float32)


def sampled(image: SkyImage, of: SkyImage) -> Pixels:
    """A smooth image, such as a beam or a noise map, at the nodes of the one whose pixels it has.

    Nodes beyond the last pixel have its value.  Raises DataError for another shape.
    """
    if image.shape != of.shape:
        raise DataError(
            f"{image.path} has {image.shape} pixels, and {of.path} {of.shape}: they belong to the same pixels",
            path=image.path,
        )
    ny, nx = of.shape
    step = spacing(of.shape)
    lines = [image.window(slice(0, ny, step), slice(0, nx)), image.window(slice(ny - 1, ny), slice(0, nx))]
    rows, columns = ((side - 1) // step + 2 for side in (ny, nx))
    read = np.concatenate(lines)
    read = read[np.minimum(np.arange(rows), len(read) - 1)]
    return np.ascontiguousarray(read[:, np.minimum(step * np.arange(columns), nx - 1)])


def make_tile(
    image: SkyImage,
    gain: Pixels,
    *,
    noise: float | Pixels | None = None,
    corrected: bool = False,
    least_gain: float = 0.1,
) -> Tile:
    """A tile of an image in Jy/beam.

    `noise` is that of what the beam attenuates, in Jy/beam, at the nodes where it differs; without it 1.4826 times
    the median deviation of pixels within 3 of it, where the gain is not below `least_gain`.  `corrected`: the image is
    divided by the gain.

    Raises ValidationError for a noise that is not positive, DataError for an image of another unit or without pixels.
    """
    if image.unit not in {"jy/beam", "jybeam-1", "beam-1jy", "jybeam^-1", "jybeam**-1"}:
        raise DataError(
            f"{image.path} is in {image.unit or 'no unit that is told'}: tiles are in Jy/beam", path=image.path
        )
    power = 2 if corrected else 1
    if noise is None:
        noise = measured_noise(image, gain, corrected=corrected, least_gain=least_gain)
    if isinstance(noise, np.ndarray):
        known = np.isfinite(noise) & (noise > 0)
        if not known.any():
            raise DataError(f"the noise map of {image.path} has no value above 0", path=image.path)
        precision = np.where(known, 1 / np.where(known, noise, 1).astype(float) ** 2, 0)
        return Tile(image, gain, precision.astype(np.float32), power, float(np.median(noise[known])))
    if not (math.isfinite(noise) and noise > 0):
        raise ValidationError(f"noise {noise} Jy/beam of {image.path} is not positive", path=image.path)
    return Tile(image, gain, np.full(gain.shape, noise**-2, np.float32), power, float(noise))


def measured_noise(image: SkyImage, gain: Pixels, *, corrected: bool, least_gain: float) -> float:
    """Noise of what the beam attenuates, Jy/beam, by up to 200,000 pixels or more; NaN where there are too few."""
    ny, nx = image.shape
    step = spacing(image.shape)
    every = max(1, math.isqrt(ny * nx // _SAMPLED))
    values = image.window(slice(0, ny, every), slice(0, nx))[:, ::every]
    at = gain[np.arange(0, ny, every) // step][:, np.arange(0, nx, every) // step]
    return robust_rms((values * at if corrected else values)[at >= least_gain])


def tile_of(
    path: str,
    beam: Beam | str,
    *,
    noise: float | str | None = None,
    pointing: tuple[float, float] | None = None,
    corrected: bool = False,
    least_gain: float = 0.1,
    plane: int | None = None,
) -> Tile:
    """A tile of files; `beam` is a model, or an image of the gain, and `noise` a number or an image.

    `plane` is that of a cube; a beam or noise map that has one plane only holds for all.
    """
    image = open_sky_image(path, plane=plane)

    def beside(name: str) -> Pixels:
        return sampled(open_sky_image(name, plane=plane if planes_of(name) > 1 else None), image)

    gain = beside(beam) if isinstance(beam, str) else model_gain(image, beam, pointing)
    known = beside(noise) if isinstance(noise, str) else noise
    return make_tile(image, gain, noise=known, corrected=corrected, least_gain=least_gain)
