"""What is asked for: where, how much, of what, and what counts as good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.geometry import Unit, check_position, sides_of

Edge = Literal["fill", "refuse"]
"""What becomes of a box that reaches beyond what there is: NaN there (0 in masks), or an error."""

Normalisation = Literal["none", "asinh", "min-max", "z-score"]
"""What range the pixels of tensors are brought to."""

IMAGE, MASK, VARIANCE, PSF = "image", "mask", "variance", "psf"
"""Planes by the names that are used here, whatever a file calls them."""


def names(given: Sequence[str]) -> tuple[str, ...]:
    """Bands or planes; a text is one of them, and not one for each of its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


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
        sides = sides_of(self.size, self.unit)
        for name, value in (
            ("ra", float(self.ra)),
            ("dec", float(self.dec)),
            ("size", sides[0] if sides[0] == sides[1] else sides),
            ("bands", names(self.bands)),
            ("planes", names(self.planes)),
        ):
            object.__setattr__(self, name, value)  # plain, whatever they came as: numpy's numbers, lists, a text
        for name, given in (("bands", self.bands), ("planes", self.planes)):
            if len(set(given)) < len(given):
                raise DataIdValidationError(f"{name} are {', '.join(given)}: each one counts once")
        if not self.planes:
            raise DataIdValidationError("planes are none; 'image' is one")
        if self.unit not in ("arcsec", "pixel"):
            raise DataIdValidationError(f"unit is {self.unit!r}; it must be 'arcsec' or 'pixel'")
        if self.edge not in ("fill", "refuse"):
            raise DataIdValidationError(f"edge is {self.edge!r}; it must be 'fill' or 'refuse'")
