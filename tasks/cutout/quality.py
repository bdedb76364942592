"""Whether a cut-out is good enough: what it lacks, against the limits of its request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.request import Limits


@dataclass(frozen=True, slots=True)
class Quality:
    """Fractions of a cut-out's pixels, each from 0 to 1."""

    not_finite: float
    """NaN or infinite, of those on the image."""
    masked: float
    """With a bit of the mask that counts, of those on the image; 0 without a mask."""
    outside: float
    """Beyond the image."""

    def reason(self, limits: Limits) -> str:
        """Why the limits do not accept it; empty if they do."""
        for name, words in (("outside", "outside"), ("not_finite", "not finite"), ("masked", "masked")):
            found, allowed = getattr(self, name), getattr(limits, name)
            if found > allowed:
                return f"{found:.1%} of the pixels are {words}, {allowed:.1%} are allowed"
        return ""


def quality_of(
    pixels: NDArray[Any], mask: NDArray[Any] | None, outside: NDArray[np.bool_], *, mask_bits: int = -1
) -> Quality:
    """The quality of one plane of shape (ny, nx), with its mask if it has one; `outside` is True beyond the image.

    Raises DataIdValidationError for a mask without bits: one that is not of integers.
    """
    if mask is not None and mask.dtype.kind not in "iu":
        raise DataIdValidationError(f"the mask is of {mask.dtype}, which has no bits; it must be of integers")
    total = pixels.size
    beyond = int(np.count_nonzero(outside))
    there = max(total - beyond, 1)
    inside = ~outside
    bad = int(np.count_nonzero(~np.isfinite(pixels) & inside))
    hidden = (
        0 if mask is None else int(np.count_nonzero((mask & mask.dtype.type(_bits(mask, mask_bits)) != 0) & inside))
    )
    return Quality(bad / there, hidden / there, beyond / total)


def _bits(mask: NDArray[Any], bits: int) -> Any:
    """The bits as a number of the mask's own type; -1 is all of them."""
    return np.array(bits & ((1 << 64) - 1), dtype=np.uint64).astype(mask.dtype)
