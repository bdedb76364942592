"""Pixel grids on the sky: what images of one tract share, and what each image has for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from absurd.tasks.cutout.patches import PixelBox
from absurd.tasks.cutout.sphere import Booleans, Floats, unit_vectors
from absurd.tasks.cutout.world import to_pixels, to_sky

ALIGNED = 1e-6
"""Pixels by which two grids may differ from a whole shift and still count as one."""


class Grid(Protocol):
    """Pixels (x, y) and positions (degrees, ICRS), of a `Tract` or of an image; equal grids are one."""

    def to_pixel(self, positions: Floats) -> Floats:
        """(n, 2) pixels of positions; NaN where there are none."""
        ...

    def to_sky(self, pixels: Floats) -> Floats:
        """(n, 2) positions of pixels; NaN where there are none."""
        ...

    def areas(self, positions: Floats) -> Floats:
        """(n,) solid angles of its pixels at positions, steradians."""
        ...

    def owns(self, positions: Floats) -> Booleans:
        """(n,) whether the sky map gives positions to it before all others."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ImageGrid:
    """The grid of one image, pixels counted from its first; no sky map tells what belongs to it."""

    wcs: Any

    def to_pixel(self, positions: Floats) -> Floats:
        return to_pixels(self.wcs, positions)

    def to_sky(self, pixels: Floats) -> Floats:
        return to_sky(self.wcs, pixels)

    def areas(self, positions: Floats) -> Floats:
        """By the vectors along both sides of a pixel, whatever the projection and its distortions."""
        pixels = self.to_pixel(positions)
        x, y = (
            unit_vectors(self.to_sky(pixels + half)) - unit_vectors(self.to_sky(pixels - half))
            for half in np.array([(0.5, 0.0), (0.0, 0.5)])
        )
        area: Floats = np.linalg.norm(np.cross(x, y), axis=1)
        return area

    def owns(self, positions: Floats) -> Booleans:
        return np.zeros(len(positions), bool)


def shift_between(grid: Grid, other: Grid, box: PixelBox) -> tuple[int, int] | None:
    """What is added to pixels (x, y) of `grid` to have those of `other`, if that is one whole shift all over `box`."""
    x, y = (np.array([low, (low + high - 1) / 2, high - 1]) for low, high in ((box.x0, box.x1), (box.y0, box.y1)))
    pixels = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    shifts = other.to_pixel(grid.to_sky(pixels)) - pixels
    whole = np.round(shifts[0])
    if not np.isfinite(shifts).all() or np.abs(shifts - whole).max() > ALIGNED:
        return None
    return int(whole[0]), int(whole[1])
