"""Where a cut-out lies on an image: from sky position and size to whole pixels.

Pixel coordinates are 0-based, (x, y), with the centre of the first pixel at (0, 0); shapes are (ny, nx).  The
conventions are those of `astropy.nddata.Cutout2D` with ``mode="partial"``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

from absurd.tasks.cutout.errors import InvalidPositionError, InvalidSizeError, PositionOutsideError
from absurd.tasks.quiet import quiet

Unit = Literal["arcsec", "pixel"]
Slices: TypeAlias = "tuple[slice[int, int, None], slice[int, int, None]]"
"""Along (y, x)."""

LARGEST = 1 << 28
"""Pixels that a cut-out may have at most: 2 GiB in double precision."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box of whole pixels and its part that is on the image."""

    shape: tuple[int, int]
    """(ny, nx) of the whole box."""
    origin: tuple[int, int]
    """(x, y) on the image of the box's first pixel; negative where the box begins before the image."""
    image_shape: tuple[int, int]

    @property
    def on_image(self) -> Slices:
        """(y, x) slices of the image that the box covers."""
        (ny, nx), (x, y), (height, width) = self.shape, self.origin, self.image_shape
        return slice(max(0, y), min(height, y + ny)), slice(max(0, x), min(width, x + nx))

    @property
    def in_box(self) -> Slices:
        """(y, x) slices of the box that are on the image."""
        (x, y), (rows, columns) = self.origin, self.on_image
        return slice(rows.start - y, rows.stop - y), slice(columns.start - x, columns.stop - x)

    @property
    def clipped_origin(self) -> tuple[int, int]:
        """(x, y) of the first pixel of the image in the box: `Cutout2D.origin_original`."""
        rows, columns = self.on_image
        return columns.start, rows.start

    @property
    def n_outside(self) -> int:
        """How many pixels of the box are not on the image."""
        rows, columns = self.on_image
        return self.shape[0] * self.shape[1] - (rows.stop - rows.start) * (columns.stop - columns.start)

    @property
    def overlaps(self) -> bool:
        """Whether any pixel of the box is on the image."""
        rows, columns = self.on_image
        return rows.start < rows.stop and columns.start < columns.stop


def check_position(ra: float, dec: float) -> None:
    """Raise InvalidPositionError unless 0 <= `ra` <= 360 and -90 <= `dec` <= 90, degrees."""
    for name, value, low, high in (("ra", ra, 0.0, 360.0), ("dec", dec, -90.0, 90.0)):
        if not _is_number(value) or not low <= value <= high:  # so that NaN does not pass
            told: dict[str, Any] = {name: value}
            raise InvalidPositionError(
                f"{name} is {_told(value)}; it must be a number of degrees from {low:g} to {high:g}", **told
            )


def sides_of(size: Any, unit: Unit) -> tuple[float, float]:
    """The (height, width) of a size, a number or two of any kind.  Raises InvalidSizeError unless each is above 0."""
    try:
        height, width = (size, size) if _is_number(size) else size
        if all(_is_number(each) and 0 < each < math.inf for each in (height, width)):
            return float(height), float(width)
    except (TypeError, ValueError):  # not two
        pass
    raise InvalidSizeError(f"size is {_told(size)}; it must be a number of {unit}s above 0, or two: (height, width)")


def shape_in_pixels(size: float | tuple[float, float], unit: Unit, pixel_scale: tuple[float, float]) -> tuple[int, int]:
    """The (ny, nx) of a cut-out, rounded to whole pixels (halves to the even number).

    Parameters
    ----------
    size
        Side of a square, or (height, width) along (y, x), in `unit`.
    unit
        ``"pixel"``, or ``"arcsec"`` measured by `pixel_scale`.
    pixel_scale
        Arcseconds per pixel along (y, x).

    Raises
    ------
    InvalidSizeError
        A side is not above 0, rounds to 0 pixels, or the box is larger than `LARGEST`.
    """
    sides = sides_of(size, unit)
    scales = (1.0, 1.0) if unit == "pixel" else pixel_scale
    ny, nx = (round(side / scale) for side, scale in zip(sides, scales, strict=True))
    if ny < 1 or nx < 1:
        raise InvalidSizeError(
            f"size is {_told(size)} {unit}, less than half a pixel"
            + (f" (of {scales[0]:.3g} arcsec)" if unit == "arcsec" else "")
        )
    if ny * nx > LARGEST:
        raise InvalidSizeError(f"size is {_told(size)} {unit}, that is {ny} x {nx} pixels; {LARGEST} are allowed")
    return ny, nx


def box_at(x: float, y: float, shape: tuple[int, int], image_shape: tuple[int, int]) -> Box:
    """The box of `shape` around a pixel position; an even side reaches one pixel further to the low end.

    The first pixel along an axis is ceil(position - n / 2).
    """
    ny, nx = shape
    return Box(shape, (math.ceil(x - nx / 2.0), math.ceil(y - ny / 2.0)), image_shape)


def to_pixel(wcs: Any, ra: float, dec: float) -> tuple[float, float] | None:
    """Pixel position (x, y) of an ICRS position in degrees, distortions included; None where the WCS has none.

    That is so on the far side of the sky, and where a distortion far from the image cannot be inverted.
    """
    import astropy.units as u
    from astropy.coordinates import SkyCoord
    from astropy.wcs import NoConvergence
    from astropy.wcs.utils import skycoord_to_pixel

    try:
        with quiet():  # of NaN, behind a projection with distortions
            x, y = skycoord_to_pixel(SkyCoord(ra, dec, unit=u.deg, frame="icrs"), wcs, origin=0, mode="all")
    except (NoConvergence, ValueError):
        return None
    x, y = float(x), float(y)
    if wcs.wcs.lng > wcs.wcs.lat:  # astropy gives the pixel along longitude first, also where that is y
        x, y = y, x
    return (x, y) if math.isfinite(x) and math.isfinite(y) else None


def place(
    wcs: Any, image_shape: tuple[int, int], ra: float, dec: float, shape: tuple[int, int], name: str
) -> tuple[Box, tuple[float, float]]:
    """The box of `shape` (ny, nx) around an ICRS position in degrees, and that position in pixels (x, y).

    Raises PositionOutsideError if box and image, called `name` in the message, have no pixel in common.
    """
    pixel = to_pixel(wcs, ra, dec)
    if pixel is not None:
        box = box_at(*pixel, shape, image_shape)
        if box.overlaps:
            return box, pixel
    raise outside(ra, dec, shape, name)


def outside(ra: float, dec: float, shape: tuple[int, int], name: str) -> PositionOutsideError:
    """The error of a box of `shape` around an ICRS position in degrees that has no pixel of the image `name`."""
    return PositionOutsideError(
        f"ra {ra:.6f}, dec {dec:+.6f} is outside {name}: a box of {shape[0]} x {shape[1]} pixels there has none in "
        "common with the image",
        ra=ra,
        dec=dec,
        source=name,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real)  # numpy's own too, of whatever precision


def _told(value: Any) -> str:
    if _is_number(value):
        return f"{float(value):g}"
    if isinstance(value, tuple) and len(value) == 2:
        return " x ".join(map(_told, value))
    return repr(value)[:40]
