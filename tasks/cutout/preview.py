"""Pictures of cut-outs for people: one band in grey, three in colour."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.artifact import write_aside
from absurd.tasks.image import Image

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SMALLEST, LARGEST = 512, 2048
"""Pixels of the picture's longer side: smaller images are enlarged in whole steps, larger ones reduced."""

NO_DATA = ((34, 52, 84), (44, 66, 104))
"""The two blues of the stripes that stand for NaN; no value looks like them."""
STRIPE = 8

_INK = (255, 214, 102)
_SHADOW = (0, 0, 0)
_MARGIN = 14


def stretch(pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Values to brightness from 0 to 1 so that faint and bright things both show; NaN stays NaN.

    asinh((v - low) / soft) / asinh((high - low) / soft), where `low` is one standard deviation of the sky below its
    median, `high` the 99.8th percentile, and `soft` two deviations.  Sky and deviation come from the median and the
    median absolute deviation.  An image of one value becomes 0.5 throughout.
    """
    values = pixels.astype(np.float64)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return np.full(values.shape, np.nan, dtype=np.float64)
    sky, noise = sky_level(finite)
    low, high = sky - noise, float(np.percentile(finite, 99.8))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    if high <= low:
        return np.asarray(np.where(np.isnan(values), np.nan, 0.5), dtype=np.float64)
    soft = max(2 * noise, (high - low) / 500)
    brightness = np.arcsinh((np.clip(values, low, high) - low) / soft) / math.asinh((high - low) / soft)
    return np.asarray(brightness, dtype=np.float64)


def sky_level(values: NDArray[Any]) -> tuple[float, float]:
    """Median of finite values, and the standard deviation that their median absolute deviation stands for."""
    median = float(np.median(values))
    return median, 1.4826 * float(np.median(np.abs(values - median)))


def combine(
    red: NDArray[Any], green: NDArray[Any], blue: NDArray[Any], *, same_unit: bool = False
) -> NDArray[np.float64]:
    """Three bands to colours, shape (ny, nx, 3), 0 to 1; NaN where no band has a finite value.

    Each band is freed of its sky.  With `same_unit`, equal values in all bands are white; without, each band is put
    in units of its own bright end, which makes the average object white.  The asinh is taken of the mean, and the
    three are scaled by one factor, so that things keep their colour but for the brightest, which become white.
    A band that has no value at a pixel is left out of its mean, and shown there as its sky.
    """
    bands = [_without_sky(band) for band in (red, green, blue)]
    ends = [end for _, end in bands]
    known = [end for end in ends if end is not None]
    if not known:
        return np.full((*red.shape, 3), np.nan)
    if same_unit:
        ends = [float(np.mean(known))] * 3
    cube = np.stack([values / (end or 1.0) for (values, _), end in zip(bands, ends, strict=True)], axis=-1)
    there = np.isfinite(cube)
    cube = np.where(there, cube, 0.0)
    count = there.sum(axis=-1)
    mean = np.divide(cube.sum(axis=-1), count, out=np.full(count.shape, np.nan), where=count > 0)
    finite = mean[count > 0]
    _, noise = sky_level(finite)
    soft, floor = max(3 * noise, 0.004), -noise
    brightness = np.arcsinh(np.maximum(mean - floor, 0) / soft) / math.asinh((1 - floor) / soft)
    factor = np.divide(brightness, np.maximum(mean - floor, 1e-12))
    mapped: NDArray[np.float64] = np.clip((cube - floor) * factor[..., None], 0.0, 1.0)
    return mapped


def render(image: Image, *, label: str = "") -> Picture:
    """One image as a picture: north as the pixels have it, y up, with scale bar, compass and label."""
    return _picture(stretch(image.pixels)[..., None], image, label)


def render_colour(images: Sequence[Image], *, label: str = "") -> Picture:
    """Three images of one shape and one place, the reddest first, as one picture.

    Raises ValueError if they do not have the same shape, or their pixels are not the same places on the sky.
    """
    if len(images) != 3 or not all(aligned(images[0], image) for image in images[1:]):
        raise ValueError("a colour picture needs three images of the same pixels on the sky")
    red, green, blue = (image.pixels for image in images)
    same_unit = of_one_unit([image.unit for image in images])
    return _picture(combine(red, green, blue, same_unit=same_unit), images[0], label)


def of_one_unit(units: Sequence[str | None]) -> bool:
    """Whether the values of bands can be compared: all units are known, and the same."""
    return None not in units and len(set(units)) == 1


def aligned(one: Image, other: Image) -> bool:
    """Whether two images have the same shape and their pixels lie within a fifth of a pixel of each other."""
    if one.shape != other.shape:
        return False
    ny, nx = one.shape
    corners = np.array([(0, 0), (nx - 1, 0), (0, ny - 1), (nx - 1, ny - 1)], dtype=float)
    there = np.atleast_2d(other.wcs.all_pix2world(corners, 0))
    here = np.atleast_2d(one.wcs.all_pix2world(corners, 0))
    across = np.cos(np.radians(here[:, 1]))
    apart = np.hypot(((there - here)[:, 0] + 180) % 360 * across - 180 * across, (there - here)[:, 1])
    return bool((apart * 3600 < 0.2 * min(one.pixel_scale)).all())


def write_preview(
    images: Image | Sequence[Image], path: str | os.PathLike[str], *, label: str = "", private: bool = False
) -> None:
    """Write the picture of an image, or of three in colour, as PNG, whole or not at all.

    A `private` path, as ``ctx.artifact`` gives, is written as it is.  Raises OSError.
    """
    picture = render(images, label=label) if isinstance(images, Image) else render_colour(images, label=label)
    with write_aside(path, private=private) as part:
        picture.save(part, format="PNG", optimize=True)


def _without_sky(band: NDArray[Any]) -> tuple[NDArray[np.float64], float | None]:
    """A band above its sky, and its bright end: the 99.7th percentile, or 12 times the noise where that is more.

    A band without a finite value has no end.
    """
    values = band.astype(np.float64)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return values, None
    sky, noise = sky_level(finite)
    return values - sky, max(float(np.percentile(finite, 99.7)) - sky, 12 * noise) or 1.0


def _picture(colours: NDArray[np.float64], image: Image, label: str) -> Picture:
    """Colours from 0 to 1, shape (ny, nx, 3), or greys, (ny, nx, 1), enlarged and annotated.

    FITS counts rows upwards, PNG downwards.
    """
    from PIL import Image as Pictures

    nan = np.asarray(np.isnan(colours).any(axis=-1))
    shades = np.round(np.nan_to_num(colours) * 255).astype(np.uint8)
    ny, nx = nan.shape
    factor = max(1, math.ceil(SMALLEST / max(ny, nx)))
    shades = shades[::-1].repeat(factor, axis=0).repeat(factor, axis=1)
    nan = nan[::-1].repeat(factor, axis=0).repeat(factor, axis=1)
    rows, columns = (np.arange(side, dtype=np.int32) for side in nan.shape)
    stripes = np.array(NO_DATA, dtype=np.uint8)[np.add.outer(rows, columns) // STRIPE % 2]
    picture = Pictures.fromarray(np.where(nan[..., None], stripes, shades))
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST), Pictures.Resampling.BOX)
    if min(picture.size) >= SMALLEST // 4:
        _annotate(picture, image, label)
    return picture


def _annotate(picture: Picture, image: Image, label: str) -> None:
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=15)
    width, height = picture.size
    zoom = width / image.shape[1]
    if label:
        _text(draw, (_MARGIN, _MARGIN), label, font, "la")
    length, name = _scale_bar(width / 3 / zoom * image.pixel_scale[1])
    pixels = length / image.pixel_scale[1] * zoom
    base = height - _MARGIN
    for offset, colour in ((1, _SHADOW), (0, _INK)):
        draw.line([(_MARGIN + offset, base + offset), (_MARGIN + pixels + offset, base + offset)], colour, 2)
    _text(draw, (_MARGIN, base - 5), name, font, "ld")
    _compass(draw, image, font, (width, height))


def _compass(draw: Any, image: Image, font: Any, size: tuple[int, int]) -> None:
    """Short lines to the north and the east, bottom right."""
    ra, dec = image.centre
    if not math.isfinite(ra) or abs(dec) > 89.9:
        return
    from absurd.tasks.cutout.geometry import to_pixel

    step = image.pixel_scale[0] / 3600
    middle = to_pixel(image.wcs, ra, dec)
    ends = {"N": to_pixel(image.wcs, ra, dec + step)}
    ends["E"] = to_pixel(image.wcs, (ra + step / math.cos(math.radians(dec))) % 360, dec)
    arm = 30
    directions = {}
    for name, end in ends.items():
        if middle is None or end is None:
            return
        x, y = end[0] - middle[0], -(end[1] - middle[1])
        length = math.hypot(x, y)
        if length == 0:
            return
        directions[name] = (x / length, y / length)
    reach = arm + 14
    high = [max(0.0, *(direction[axis] for direction in directions.values())) for axis in (0, 1)]
    origin = [size[axis] - _MARGIN - reach * max(high[axis], 0.15) for axis in (0, 1)]
    for name, (x, y) in directions.items():
        for offset, colour in ((1, _SHADOW), (0, _INK)):
            start = (origin[0] + offset, origin[1] + offset)
            draw.line([start, (start[0] + arm * x, start[1] + arm * y)], colour, 2)
        _text(draw, (origin[0] + (arm + 9) * x, origin[1] + (arm + 9) * y), name, font, "mm")


def _text(draw: Any, where: tuple[float, float], text: str, font: Any, anchor: str) -> None:
    draw.text(where, text, fill=_INK, font=font, anchor=anchor, stroke_width=2, stroke_fill=_SHADOW)


def _scale_bar(longest: float) -> tuple[float, str]:
    """The longest round angle, in arcseconds, that is no longer than `longest`, and its name."""
    unit, sign = next((each for each in ((3600.0, "°"), (60.0, "'"), (1.0, '"')) if longest >= each[0]), (1.0, '"'))
    decade = 10.0 ** math.floor(math.log10(longest / unit))
    steps = (1, 2, 5) if unit == 1.0 or decade < 10 else (1, 2, 3)
    length = max(step * decade for step in steps if step * decade <= longest / unit * (1 + 1e-9))
    return length * unit, f"{length:g}{sign}"
