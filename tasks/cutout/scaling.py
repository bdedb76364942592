"""What stored numbers mean: BSCALE, BZERO and BLANK, in the arithmetic of astropy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STORED = {8: "u1", 16: "i2", 32: "i4", 64: "i8", -32: "f4", -64: "f8"}


@dataclass(frozen=True, slots=True)
class Scaling:
    """From stored to physical numbers.

    Unsigned integers (BSCALE 1, BZERO half the range) and signed bytes stay integers; other scaled integers, and
    those with a BLANK, become floats, of single precision up to 16 bits.  As in astropy, a BLANK of 0 is not heeded.
    """

    bitpix: int
    scale: float = 1
    zero: float = 0
    blank: int | None = None

    @classmethod
    def of(cls, header: Mapping[str, Any], bitpix: int) -> Scaling:
        """That of an image's header.  Raises ValueError where BSCALE or BZERO is no number."""
        blank = header.get("BLANK")
        if bitpix < 0 or isinstance(blank, bool) or not isinstance(blank, int):
            blank = None
        scale, zero = header.get("BSCALE", 1), header.get("BZERO", 0)
        if not all(isinstance(each, int | float) for each in (scale, zero)):
            raise ValueError(f"BSCALE is {scale!r} and BZERO {zero!r}; they must be numbers")
        return cls(bitpix, scale, zero, blank)

    @property
    def stored(self) -> np.dtype[Any]:
        """Type of the stored numbers, in the byte order of this machine."""
        return np.dtype(_STORED[self.bitpix])

    @property
    def is_none(self) -> bool:
        """Whether numbers are stored as they are meant."""
        return self.scale == 1 and self.zero == 0 and self.blank is None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the physical numbers."""
        if self.is_none or self.bitpix < 0:
            return self.stored
        if self.scale == 1:
            if self.bitpix == 8 and self.zero == -128:
                return np.dtype("int8")
            if self.bitpix > 8 and self.zero == 1 << (self.bitpix - 1):
                return np.dtype(f"uint{self.bitpix}")
        return np.dtype("float64" if self.bitpix > 16 else "float32")

    def __call__(self, stored: NDArray[Any]) -> NDArray[Any]:
        """The physical numbers; `stored` may be overwritten."""
        if self.is_none:
            return stored
        dtype = self.dtype
        if dtype.kind == "u":
            return np.asarray(stored.astype(dtype) - dtype.type(1 << (self.bitpix - 1)))
        blank = stored == self.blank if self.blank else None
        numbers = stored if self.bitpix < 0 else stored.astype(dtype)
        if self.scale != 1:
            np.multiply(numbers, self.scale, numbers)
        if self.zero != 0:
            numbers += dtype.type(self.zero)
        if blank is not None and dtype.kind == "f":
            numbers[blank] = np.nan
        return numbers
