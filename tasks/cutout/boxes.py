"""Many boxes of one shape on one image, at once; see geometry for one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.geometry import Box, Slices

FAR = 1 << 40
"""Pixels beyond which no image reaches: what is farther away counts as outside, as what is nowhere does."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of `shape` on an image of `image_shape`, both (ny, nx)."""

    shape: tuple[int, int]
    image_shape: tuple[int, int]
    origins: NDArray[np.int64]
    """(n, 2): (x, y) on the image of each box's first pixel."""

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, i: int) -> Box:
        x, y = self.origins[i]
        return Box(self.shape, (int(x), int(y)), self.image_shape)

    def take(self, which: NDArray[np.int64]) -> Boxes:
        """Some of them."""
        return Boxes(self.shape, self.image_shape, self.origins[which])

    @cached_property
    def n_inside(self) -> NDArray[np.int64]:
        """How many pixels of each box are on the image."""
        length, limit = np.array(self.shape[::-1]), np.array(self.image_shape[::-1])
        sides = np.minimum(self.origins + length, limit) - np.maximum(self.origins, 0)
        return np.asarray(np.maximum(sides, 0).prod(axis=1), np.int64)

    @property
    def n_outside(self) -> NDArray[np.int64]:
        """How many pixels of each box are not on the image."""
        return self.shape[0] * self.shape[1] - self.n_inside

    def sections(self) -> Iterator[tuple[int, Slices, Slices]]:
        """Of each box that has any pixel of the image: its place, and (y, x) slices of the image and of the box."""
        for i in np.flatnonzero(self.n_inside).tolist():
            box = self[i]
            yield i, box.on_image, box.in_box


def boxes_at(pixels: NDArray[np.float64], shape: tuple[int, int], image_shape: tuple[int, int]) -> Boxes:
    """The boxes around (n, 2) pixel positions (x, y), as `geometry.box_at`; NaN gives one that is outside."""
    ny, nx = shape
    with np.errstate(invalid="ignore"):
        first = np.ceil(pixels - np.array([nx / 2.0, ny / 2.0]))
    nowhere = ~(np.abs(first) < FAR).all(axis=1)
    first[nowhere] = FAR
    return Boxes(shape, image_shape, first.astype(np.int64))
