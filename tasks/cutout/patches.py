"""How a tract is parted: boxes of pixels, legacy patches, and patches of cells."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from absurd.tasks.cutout.errors import DataIdValidationError
from absurd.tasks.cutout.geometry import Slices


class PixelBox(NamedTuple):
    """Whole pixels of a grid: from (x0, y0) to before (x1, y1); may begin below 0."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def shape(self) -> tuple[int, int]:
        """(ny, nx); 0 along an axis where the box is empty."""
        return max(0, self.y1 - self.y0), max(0, self.x1 - self.x0)

    @property
    def empty(self) -> bool:
        return self.x1 <= self.x0 or self.y1 <= self.y0

    def common(self, other: PixelBox) -> PixelBox:
        """The pixels of both; maybe none."""
        return PixelBox(max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1))

    def grown(self, by: int) -> PixelBox:
        """With `by` more pixels at each side."""
        return PixelBox(self.x0 - by, self.y0 - by, self.x1 + by, self.y1 + by)

    def contains(self, other: PixelBox) -> bool:
        """Whether each pixel of `other` is one of these."""
        return other.empty or self.common(other) == other

    def slices(self, whole: PixelBox) -> Slices:
        """(y, x) of this box in an array of the box `whole`, which must contain it."""
        return (
            slice(self.y0 - whole.y0, self.y1 - whole.y0),
            slice(self.x0 - whole.x0, self.x1 - whole.x0),
        )


@dataclass(frozen=True, slots=True)
class LegacyPatches:
    """Patches whose outer boxes overlap by `border` pixels and stop at the edge of the tract."""

    inner: tuple[int, int] = (4000, 4000)
    """Pixels along (x, y) that are a patch's own."""
    border: int = 100
    clipped: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.inner, border=self.border)

    def packed(self) -> bytes:
        """What a sky map's hash holds of it."""
        return struct.pack("<iii", *self.inner, self.border)


@dataclass(frozen=True, slots=True)
class CellPatches:
    """Patches of whole cells; outer boxes reach over the edge of the tract."""

    cell: tuple[int, int] = (150, 150)
    """Pixels along (x, y) that are a cell's own."""
    cell_border: int = 50
    """Pixels by which a cell's outer box is larger at each side."""
    cells_per_patch: int = 20
    """Along each axis, in the inner box."""
    cells_in_border: int = 1
    """At each side of the inner box."""
    clipped: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.cell, cell_border=self.cell_border, cells_in_border=self.cells_in_border)
        if self.cells_per_patch < 1:
            raise DataIdValidationError(f"cells_per_patch is {self.cells_per_patch}; it must be 1 or more")
        if self.cell[0] != self.cell[1]:
            raise DataIdValidationError(f"a cell is {self.cell[0]} x {self.cell[1]} pixels; it must be square")

    @property
    def inner(self) -> tuple[int, int]:
        """Pixels along (x, y) that are a patch's own."""
        return self.cell[0] * self.cells_per_patch, self.cell[1] * self.cells_per_patch

    @property
    def border(self) -> int:
        """Pixels by which the outer box is larger at each side."""
        return self.cells_in_border * self.cell[0] + self.cell_border

    @property
    def cells_across(self) -> int:
        """Cells along each axis of a patch, its border included."""
        return self.cells_per_patch + 2 * self.cells_in_border

    def cell_box(self, inner: PixelBox, cell: int, *, outer: bool = False) -> PixelBox:
        """The box on the tract of cell number y * cells_across + x of the patch that has the box `inner`.

        Cell 0 is the one at the low corner of the border.  Raises DataIdValidationError.
        """
        across = self.cells_across
        if not 0 <= cell < across * across:
            raise DataIdValidationError(f"cell is {cell}; a patch has the cells 0 to {across * across - 1}")
        y, x = divmod(cell, across)
        x0 = inner.x0 + (x - self.cells_in_border) * self.cell[0]
        y0 = inner.y0 + (y - self.cells_in_border) * self.cell[1]
        return PixelBox(x0, y0, x0 + self.cell[0], y0 + self.cell[1]).grown(self.cell_border if outer else 0)

    def packed(self) -> bytes:
        """What a sky map's hash holds of it."""
        return struct.pack("<iiiii", *self.cell, self.cell_border, self.cells_per_patch, self.cells_in_border)


Patches = LegacyPatches | CellPatches


def _check(sides: tuple[int, int], **borders: int) -> None:
    if min(sides) < 1:
        raise DataIdValidationError(f"patches or cells of {sides} pixels; two numbers of 1 or more are needed")
    for name, border in borders.items():
        if border < 0:
            raise DataIdValidationError(f"{name} is {border}; it must be 0 or more")
