"""Image, mask and variance of one FITS file as the Rubin pipelines write it: any box of it, read without afw.

Such a file has HDUs IMAGE, MASK and VARIANCE of one shape.  LTV1 and LTV2 of their headers are what is added to the
pixels of the tract or the detector, the parent, to get those of the file, and MP_<name> in the header of the mask
are the bits of its planes (lsst.afw.fits and lsst.afw.image.Mask).
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.cutout.errors import DataIdValidationError, PlaneNotFoundError, PositionOutsideError
from absurd.tasks.cutout.fits_image import FitsImage, mask_bits, open_image
from absurd.tasks.cutout.images import ImageRef
from absurd.tasks.cutout.patches import PixelBox
from absurd.tasks.cutout.request import IMAGE, MASK, VARIANCE
from absurd.tasks.cutout.sources.folder import planes_of, version_of
from absurd.tasks.quiet import quiet

LAYOUT = {IMAGE: 1, MASK: 2, VARIANCE: 3}
"""The HDU of each plane as the pipelines write them; what a file says of itself goes before."""


BoxLike: TypeAlias = Any
"""A box, its four numbers (x0, y0, x1, y1), or an lsst.geom.Box2I."""


def as_box(box: BoxLike) -> PixelBox:
    """The box that is meant.  Raises DataIdValidationError."""
    if hasattr(box, "getMinX"):
        x, y = box.getMinX(), box.getMinY()
        made = PixelBox(x, y, x + box.getWidth(), y + box.getHeight())
    else:
        try:
            x0, y0, x1, y1 = (operator.index(number) for number in box)
        except (TypeError, ValueError) as error:
            raise DataIdValidationError(f"bbox is {box!r}; it must be four whole numbers x0, y0, x1, y1") from error
        made = PixelBox(x0, y0, x1, y1)
    if 0 in made.shape:
        raise DataIdValidationError(f"bbox is {tuple(made)}: from (x0, y0) to before (x1, y1) there is no pixel")
    return made


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """Planes of an image, or of a box of one, with its place on the parent."""

    planes: Mapping[str, NDArray[Any]]
    """By name, "image" among them; shape (ny, nx)."""
    header: Any
    """`astropy.io.fits.Header` of the image, its WCS that of these pixels."""
    origin: tuple[int, int] = (0, 0)
    """(x, y) of the first pixel on the parent."""
    mask_bits: Mapping[str, int] = field(default_factory=dict)
    """The bit of each plane of the mask, by its name, from 0."""

    @property
    def image(self) -> NDArray[Any]:
        return self._plane(IMAGE)

    @property
    def mask(self) -> NDArray[Any]:
        return self._plane(MASK)

    @property
    def variance(self) -> NDArray[Any]:
        return self._plane(VARIANCE)

    @property
    def box(self) -> PixelBox:
        """Where it lies on the parent."""
        (x, y), (ny, nx) = self.origin, self.image.shape
        return PixelBox(x, y, x + nx, y + ny)

    @property
    def wcs(self) -> Any:
        """`astropy.wcs.WCS` of these pixels."""
        from absurd.tasks.cutout.sky_wcs import SkyWCS

        with quiet():
            return SkyWCS(self.header)

    def mask_value(self, *names: str) -> int:
        """The bits of named planes of the mask together.  Raises PlaneNotFoundError."""
        unknown = [name for name in names if name not in self.mask_bits]
        if unknown:
            raise PlaneNotFoundError(
                f"the mask has no plane {', '.join(unknown)}; it has {', '.join(sorted(self.mask_bits)) or 'none'}"
            )
        return sum({1 << self.mask_bits[name] for name in names})

    def cut(self, box: BoxLike) -> Exposure:
        """A box of it, which must lie within.  Raises PositionOutsideError."""
        wanted = as_box(box)
        _check_within(wanted, self.box, "the exposure")
        part = wanted.slices(self.box)
        planes = {name: pixels[part] for name, pixels in self.planes.items()}
        header = moved(self.header, (part[1].start, part[0].start))
        return Exposure(planes, header, (wanted.x0, wanted.y0), self.mask_bits)

    def _plane(self, name: str) -> NDArray[Any]:
        if name not in self.planes:
            raise PlaneNotFoundError(f"no plane {name!r} was read; there are {', '.join(self.planes)}", plane=name)
        return self.planes[name]


class ExposureFile:
    """An exposure that is read when it is asked for its pixels, and no more of it than that.

    Its headers are read once, on first use, and again when it has changed.  For several threads.
    """

    def __init__(self, path: str | os.PathLike[str], band: str | None = None) -> None:
        self.path = Path(path)
        self.band = band
        self._told: _Told | None = None
        self._lock = threading.Lock()

    @property
    def box(self) -> PixelBox:
        """Where it lies on the parent."""
        return self._about().box

    @property
    def mask_bits(self) -> Mapping[str, int]:
        """The bit of each plane of the mask, by its name."""
        return self._about().mask_bits

    @property
    def planes(self) -> tuple[str, ...]:
        """What the file has."""
        return tuple(self._about().hdus)

    def ref(self, *, tract: int | None = None, patch: int | None = None) -> ImageRef:
        """The reference that a batch of cut-outs reads it by."""
        told = self._about()
        return ImageRef(str(self.path), self.band or told.band, told.hdus, tract, patch, told.version)

    def read(self, bbox: BoxLike | None = None, planes: Sequence[str] = ()) -> Exposure:
        """All of it, or a box of the parent's pixels that must lie within; all planes, or those wanted.

        Raises PositionOutsideError, PlaneNotFoundError, SourceNotFoundError, ImageUnreadableError, NotOnSkyError.
        """
        known = self._known()
        with open_image(self.path, hdu=known.hdus[IMAGE] if known else None) as image:
            told = self._told = known or _told_by(image, version_of(self.path))
            box = told.box if bbox is None else as_box(bbox)
            _check_within(box, told.box, self.path.name)
            part = box.slices(told.box)
            wanted = planes or tuple(name for name in told.hdus if name in LAYOUT)
            read = {name: image.read(part) if name == IMAGE else image.plane(name, part) for name in wanted}
            header = moved(image.header, (part[1].start, part[0].start))
            return Exposure(read, header, (box.x0, box.y0), told.mask_bits)

    def _about(self) -> _Told:
        with self._lock:
            known = self._known()
            if known is None:
                with open_image(self.path) as image:
                    known = self._told = _told_by(image, version_of(self.path))
            return known

    def _known(self) -> _Told | None:
        """What was told, if the file is still the same."""
        told = self._told
        try:
            return told if told is not None and told.version == version_of(self.path) else None
        except FileNotFoundError:  # the reader will say so
            return None


@dataclass(frozen=True, slots=True)
class _Told:
    """What the headers of a file tell."""

    box: PixelBox
    hdus: dict[str, int]
    mask_bits: dict[str, int]
    band: str | None
    version: str


def _told_by(image: FitsImage, version: str) -> _Told:
    hdus = planes_of(image)
    ny, nx = image.shape
    x, y = (round(-image.header.get(f"LTV{axis}", 0)) for axis in (1, 2))
    bits = mask_bits(image.hdus[hdus[MASK]].header) if MASK in hdus else {}
    return _Told(PixelBox(x, y, x + nx, y + ny), hdus, bits, image.band(), version)


def _check_within(box: PixelBox, whole: PixelBox, name: str) -> None:
    if not whole.contains(box):
        raise PositionOutsideError(f"bbox {tuple(box)} is not wholly on {name}, which is {tuple(whole)}", source=name)


def moved(header: Any, shift: tuple[int, int]) -> Any:
    """A header for pixels that begin `shift` (x, y) later: CRPIX and LTV count from there, in all its WCS."""
    made = header.copy(strip=True)
    for axis, by in zip("12", shift, strict=True):
        for key in [key for key in made if key.startswith(f"CRPIX{axis}")]:
            made[key] -= by
        if f"LTV{axis}" in made:
            made[f"LTV{axis}"] -= by
    return made


def write_exposure(exposure: Exposure, path: str | os.PathLike[str]) -> None:
    """Write an exposure in the layout above, its planes compressed in tiles without loss.  Raises OSError."""
    from astropy.io import fits

    hdus: list[Any] = [fits.PrimaryHDU()]
    for name, pixels in exposure.planes.items():
        header = exposure.header.copy()
        for axis, first in zip((1, 2), exposure.origin, strict=True):
            header[f"LTV{axis}"] = -float(first)
        if name == MASK:
            for plane, bit in exposure.mask_bits.items():
                header[f"HIERARCH MP_{plane}"] = bit
        hdus.append(
            fits.CompImageHDU(
                np.ascontiguousarray(pixels), header, name=name.upper(), compression_type="GZIP_2", quantize_level=0.0
            )
        )
    with quiet():  # names of planes leave no room for comments
        fits.HDUList(hdus).writeto(path, overwrite=True, output_verify="silentfix+ignore", checksum=True)
