"""Positions, and the images that they are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.images import ImageRef


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Positions, and which image each is cut from in each band."""

    positions: NDArray[np.float64]
    """(n, 2): right ascension and declination, degrees, ICRS."""
    images: Sequence[ImageRef]
    which: NDArray[np.int32]
    """(n, bands): place in `images`, or -1 where there is none."""
    bands: tuple[str | None, ...]

    def __post_init__(self) -> None:
        if self.positions.ndim != 2 or self.positions.shape[1] != 2:
            raise DataIdValidationError(f"positions have the shape {self.positions.shape}; it must be (n, 2)")
        if self.which.shape != (len(self.positions), len(self.bands)):
            raise DataIdValidationError(
                f"which has the shape {self.which.shape}; it must be (positions, bands), "
                f"{(len(self.positions), len(self.bands))}"
            )

    @classmethod
    def on(cls, positions: NDArray[np.float64], images: Sequence[ImageRef]) -> Targets:
        """All positions on the same images, one for each band."""
        which = np.broadcast_to(np.arange(len(images), dtype=np.int32), (len(positions), len(images)))
        return cls(np.asarray(positions, np.float64), images, which, tuple(each.band for each in images))

    @classmethod
    def of(
        cls, positions: NDArray[np.float64], found: Sequence[Sequence[ImageRef]], bands: Sequence[str] = ()
    ) -> Targets:
        """What `Source.find` found: the first image of each band; without `bands`, of all bands that there are."""
        images: dict[tuple[Any, ...], int] = {}
        refs: list[ImageRef] = []
        wanted: list[str | None] = list(bands) or list(dict.fromkeys(each.band for row in found for each in row))
        columns = {band: column for column, band in enumerate(wanted)}
        which = np.full((len(positions), len(wanted)), -1, np.int32)
        for row, those in enumerate(found):
            for each in reversed(those):  # so that the first of a band stays
                if each.band in columns:
                    key = (each, tuple(sorted(each.hdus.items())))
                    if key not in images:
                        images[key] = len(refs)
                        refs.append(each)
                    which[row, columns[each.band]] = images[key]
        return cls(np.asarray(positions, np.float64), refs, which, tuple(wanted))
