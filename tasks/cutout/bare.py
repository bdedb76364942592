"""A cut-out before it has a header of its own: making that takes longer than pixels take to cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from absurd.tasks.cutout.engine import Cutout
from absurd.tasks.cutout.geometry import Box
from absurd.tasks.cutout.header import moved_header, wcs_of
from absurd.tasks.cutout.parsed import ParsedFile
from absurd.tasks.cutout.request import IMAGE
from absurd.tasks.image import Image


@dataclass(frozen=True, slots=True, eq=False)
class BareCutout:
    """The pixels of a box, and the image that it is on; fields of the same name are those of `Cutout`."""

    file: ParsedFile
    band: str | None
    pixels: Mapping[str, NDArray[Any]]
    """By plane, (ny, nx); the image is among them."""
    box: Box
    position: tuple[float, float]
    pixel_position: tuple[float, float]
    stitched: tuple[str, ...] = ()
    n_missing: int | None = None

    @property
    def source(self) -> str:
        """Name of the file, without its folder."""
        return self.file.name

    @property
    def hdu(self) -> int:
        """Place of the image in the file, from 0."""
        return self.file.hdu

    @property
    def n_outside(self) -> int:
        """Pixels that there are none for."""
        return self.box.n_outside if self.n_missing is None else self.n_missing

    def cutout(self) -> Cutout:
        """The same with its header and WCS, as `engine.extract` gives it; the pixels are not copied."""
        file = self.file
        header, tables = moved_header(file.header, file.primary, file.tables, self.box)
        return Cutout(
            image=Image(self.pixels[IMAGE], wcs_of(header, tables), file.unit),
            header=header,
            tables=tables,
            position=self.position,
            pixel_position=self.pixel_position,
            box=self.box,
            band=self.band,
            source=file.name,
            hdu=file.hdu,
            planes={name: pixels for name, pixels in self.pixels.items() if name != IMAGE},
            meanings=file.meanings,
            stitched=self.stitched,
            n_missing=self.n_missing,
        )
