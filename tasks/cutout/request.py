"""What is asked for: where, how much, of what, and what counts as good."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from absurd.tasks.cutout.errors import DataIdValidationError, InvalidSizeError
from absurd.tasks.cutout.geometry import Unit, check_position

Edge = Literal["fill", "refuse"]
"""What becomes of a box that reaches beyond what there is: NaN there (0 in masks), or an error."""

Normalisation = Literal["none", "asinh", "min-max", "z-score"]
"""What range the pixels of tensors are brought to."""

IMAGE, MASK, VARIANCE, PSF = "image", "mask", "variance", "psf"
"""Planes by the names that are used here, whatever a file calls them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Up to which fraction of its pixels a cut-out is accepted; 1 accepts any."""

    not_finite: float = 1.0
    """NaN or infinite, on the image."""
    masked: float = 1.0
    """With any bit of the mask, where a mask is cut; see `mask_bits`."""
    outside: float = 1.0
    """Beyond the image, or all images."""
    mask_bits: int = -1
    """Bits of the mask that count."""

    def __post_init__(self) -> None:
        for name in ("not_finite", "masked", "outside"):
            value = getattr(self, name)
            if not 0 <= value <= 1:  # so that NaN does not pass
                raise DataIdValidationError(f"the limit {name} is {value:g}; it must be a fraction from 0 to 1")


@dataclass(frozen=True, slots=True)
class CutoutRequest:
    """One position and its box.

    `size` is in `unit`: pixels of the image, or arcseconds, measured at the reference point of the image's WCS and
    rounded to whole pixels.  Raises DataIdValidationError.
    """

    ra: float
    """Right ascension of the centre, 0 to 360 degrees, ICRS."""
    dec: float
    """Declination of the centre, -90 to 90 degrees, ICRS."""
    size: float | tuple[float, float] = 64
    """Side of a square, or (height, width) along (y, x)."""
    unit: Unit = "pixel"
    bands: tuple[str, ...] = ()
    """In this order; none: all there are, from blue to red."""
    planes: tuple[str, ...] = (IMAGE,)
    edge: Edge = "fill"
    limits: Limits = Limits()
    id: str | None = None
    """What the manifest calls it; its number if it has none."""

    def __post_init__(self) -> None:
        check_position(self.ra, self.dec)
        sides = (self.size, self.size) if isinstance(self.size, int | float) else self.size
        if len(sides) != 2 or not all(math.isfinite(side) and side > 0 for side in sides):
            raise InvalidSizeError(f"size is {self.size}; it must be a number of {self.unit}s above 0, or two")
        for name, given in (("bands", self.bands), ("planes", self.planes)):
            if len(set(given)) < len(given):
                raise DataIdValidationError(f"{name} are {', '.join(given)}: each one counts once")
        if not self.planes:
            raise DataIdValidationError("planes are none; 'image' is one")
        if self.unit not in ("arcsec", "pixel"):
            raise DataIdValidationError(f"unit is {self.unit!r}; it must be 'arcsec' or 'pixel'")
        if self.edge not in ("fill", "refuse"):
            raise DataIdValidationError(f"edge is {self.edge!r}; it must be 'fill' or 'refuse'")
