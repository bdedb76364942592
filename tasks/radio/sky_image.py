"""Radio images as FITS: two celestial axes among others of one plane, a restoring beam, a frequency, a time."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.quiet import quiet
from absurd.tasks.radio.errors import DataError

Pixels = NDArray[np.float32]
_OF_PLANES = {"BMAJ": "deg", "BMIN": "deg", "BPA": "deg", "FREQ": "Hz", "THERMAL": "Jy/beam"}
"""What a table of beams may tell of a plane, by units."""


@dataclass(frozen=True, slots=True)
class RestoringBeam:
    """The Gaussian that a point source is shown as."""

    major_deg: float
    """Full width at half maximum of the long axis, degrees."""
    minor_deg: float
    angle_deg: float
    """Of the long axis, from north through east, degrees."""

    @property
    def area_deg2(self) -> float:
        """Its integral, square degrees."""
        return math.pi * self.major_deg * self.minor_deg / (4 * math.log(2))


@dataclass(frozen=True, slots=True, eq=False)
class SkyImage:
    """An image on the disk, of which windows are read."""

    path: str
    hdu: int
    shape: tuple[int, int]
    """Pixels along (y, x)."""
    wcs: Any
    """`astropy.wcs.WCS` of the two celestial axes, longitude first, for 0-based pixels."""
    unit: str
    """BUNIT in lower case without blanks: ``jy/beam``; empty where the header has none."""
    beam: RestoringBeam | None
    frequency_hz: float | None
    span: tuple[datetime, datetime] | None
    """Begin and end of what was observed, UTC: DATE-OBS (or MJD-OBS) and DATE-END; the same where there is no end."""
    header: Any
    """`astropy.io.fits.Header`."""
    thermal_jy: float | None
    """Noise that the weights of the visibilities promise, of a beam."""

    @property
    def observed(self) -> datetime | None:
        """The middle of what was observed."""
        return None if self.span is None else self.span[0] + (self.span[1] - self.span[0]) / 2

    @property
    def cell_deg(self) -> float:
        """Side of a square as large as a pixel at the reference point, degrees."""
        return math.sqrt(abs(np.linalg.det(self.wcs.pixel_scale_matrix)))

    offset: int | None
    """Where the pixels begin in the file, if they are 32-bit floats as they stand; None: astropy reads them."""
    plane: int = 0
    """Which of several it is, counted as they lie in the file."""

    def window(self, rows: slice, columns: slice) -> Pixels:
        """Pixels (y, x) of a box, infinities and all; `rows` may have a step.

        Only the box is read where the file holds plain 32-bit floats.
        """
        taken = range(*rows.indices(self.shape[0]))
        if self.offset is not None:
            return self._read(self.offset, taken, range(*columns.indices(self.shape[1])))
        from astropy.io import fits

        with quiet(), fits.open(self.path, memmap=False) as hdus:  # scaled integers cannot be mapped
            planes = hdus[self.hdu]
            lead = np.unravel_index(self.plane, planes.shape[:-2]) if planes.shape[:-2] else ()
            box = slice(taken.start, max(taken.stop, taken.start)), columns
            read = np.array(planes.section[(*lead, *box)], dtype=np.float32)
        return np.ascontiguousarray(read[:: taken.step])

    def _read(self, offset: int, rows: range, columns: range) -> Pixels:
        """A line after the other: a map of the file in memory took six times as long, for its pages."""
        made = np.empty((len(rows), len(columns)), ">f4")
        file = os.open(self.path, os.O_RDONLY)
        try:
            for line, row in zip(made, rows, strict=True):
                at = offset + 4 * (row * self.shape[1] + columns.start)
                if os.preadv(file, [line.view(np.uint8).data], at) != line.nbytes:
                    raise DataError(f"{self.path} ends before its last pixel", path=self.path)
        finally:
            os.close(file)
        return made.byteswap(inplace=True).view(np.float32) if sys.byteorder == "little" else made.view(np.float32)

    def pixels(self) -> Pixels:
        """All of it; what is no number is NaN."""
        pixels = self.window(slice(0, self.shape[0]), slice(0, self.shape[1]))
        pixels[np.isinf(pixels)] = np.nan
        return pixels


def open_sky_image(path: str | os.PathLike[str], *, plane: int | None = None) -> SkyImage:
    """The first image on the sky in a FITS file; of several planes the one with a number, as they lie in the file.

    Without a number, axes beside the two celestial ones have one plane, as those of frequency and Stokes parameter.

    Raises DataError: no such file, no FITS, no celestial image, several planes, no such plane.
    """
    name = os.fspath(path)
    with _first_image(name) as found:
        if found is None:
            raise DataError(f"{name} has no image with celestial coordinates", path=name)
        number, hdu, whole, table = found
        if (whole.wcs.lng, whole.wcs.lat) != (0, 1):
            raise DataError(f"{name}: the first axis is not longitude and the second latitude", path=name)
        more = _more(hdu.header)
        if plane is None and math.prod(more) != 1:
            raise DataError(
                f"{name} has several planes (axes of {more}): an image of one is needed",
                path=name,
                advice="imaging.mosaic makes one of a plane, of one cube or several, that all else takes",
            )
        if plane is not None and plane >= math.prod(more):
            raise DataError(
                f"{name} has {math.prod(more)} planes, counted from 0: there is no plane {plane}", path=name
            )
        return _described(name, number, hdu, whole, _row(table, hdu.header, plane or 0), plane or 0)


def planes_of(path: str | os.PathLike[str]) -> int:
    """How many planes the first image on the sky in a FITS file has; 0 where there is none.

    Raises DataError: no such file, no FITS.
    """
    with _first_image(os.fspath(path)) as found:
        return 0 if found is None else math.prod(_more(found[1].header))


@contextmanager
def _first_image(name: str) -> Iterator[tuple[int, Any, Any, Any] | None]:
    """The number of the HDU, itself, the WCS of all its axes, and the table of beams by plane, if there is one."""
    from astropy.io import fits
    from astropy.wcs import WCS

    try:
        with quiet(), fits.open(name, memmap=True) as hdus:
            for number, each in enumerate(hdus):
                if int(each.header.get("NAXIS", 0)) < 2 or not getattr(each, "is_image", False):
                    continue
                whole = WCS(each.header)
                if whole.has_celestial:
                    yield number, each, whole, hdus["BEAMS"].data if "BEAMS" in hdus else None
                    return
            yield None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{name} cannot be read as a FITS image ({error})", path=name) from None


def _more(header: Any) -> list[int]:
    """Lengths of the axes beside the first two."""
    return [int(header[f"NAXIS{n}"]) for n in range(3, int(header["NAXIS"]) + 1)]


def _row(table: Any, header: Any, plane: int) -> dict[str, float]:
    """Of a plane in a table of beams (CASA's, by CHAN and POL), in our units; empty where there is none."""
    from astropy.units import Unit

    if table is None or not {"BMAJ", "CHAN", "POL"} <= set(table.names):
        return {}
    inner, outer = ("CHAN", "POL") if str(header.get("CTYPE3", "")).startswith("FREQ") else ("POL", "CHAN")
    outer_of, inner_of = divmod(plane, int(header.get("NAXIS3", 1)))
    here = np.flatnonzero((table[inner] == inner_of) & (table[outer] == outer_of))
    if not len(here):
        return {}
    row = {}
    for name, unit in _OF_PLANES.items():
        if name in table.names and math.isfinite(value := float(table[name][here[0]])):
            row[name] = value * Unit(table.columns[name].unit or unit).to(unit)
    return row


def _described(name: str, number: int, hdu: Any, whole: Any, own: dict[str, float], plane: int) -> SkyImage:
    """`own` is what holds of this plane instead of what the header has for all."""
    header = hdu.header
    of_all = ("BMAJ", "BMIN", "BPA") if plane else ("BMAJ", "BMIN", "BPA", "THERMAL")
    told = {key: float(header[key]) for key in of_all if header.get(key) is not None} | own
    ny, nx = int(header["NAXIS2"]), int(header["NAXIS1"])
    plain = type(hdu).__name__ in {"PrimaryHDU", "ImageHDU"} and header["BITPIX"] == -32
    scaled = header.get("BSCALE", 1) != 1 or header.get("BZERO", 0) != 0
    major = told.get("BMAJ")
    beam = None
    if major:
        beam = RestoringBeam(major, told.get("BMIN", major), told.get("BPA", 0.0))
    return SkyImage(
        path=name,
        hdu=number,
        shape=(ny, nx),
        wcs=whole.celestial,
        unit=str(header.get("BUNIT", "")).replace(" ", "").lower(),
        beam=beam,
        frequency_hz=own.get("FREQ") or _frequency(header, plane),
        span=_span(header),
        header=header,
        thermal_jy=told.get("THERMAL") or None,
        plane=plane,
        offset=int(hdu.fileinfo()["datLoc"]) + 4 * plane * ny * nx if plain and not scaled else None,
    )


def _frequency(header: Any, plane: int) -> float | None:
    """Of a plane: along the axis of frequencies, if that is the first one that has several."""
    for number in range(3, 8):
        if str(header.get(f"CTYPE{number}", "")).startswith("FREQ"):
            place = plane % int(header.get(f"NAXIS{number}", 1)) if number == 3 else 0
            return float(header[f"CRVAL{number}"]) + place * float(header.get(f"CDELT{number}", 0.0))
    for key in ("RESTFRQ", "RESTFREQ", "FREQ", "OBSFREQ"):
        if header.get(key):
            return float(header[key])
    return None


def _span(header: Any) -> tuple[datetime, datetime] | None:
    begin, end = (_time(header, which) for which in ("OBS", "END"))
    if begin is None:
        return None
    return begin, begin if end is None else max(begin, end)


def _time(header: Any, which: str) -> datetime | None:
    from astropy.time import Time

    told = header.get(f"DATE-{which}")
    try:
        if told:
            time = datetime.fromisoformat(str(told))
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time
        if header.get(f"MJD-{which}") is not None:
            found: datetime = Time(float(header[f"MJD-{which}"]), format="mjd").to_datetime(timezone=UTC)
            return found
    except ValueError:
        return None
    return None
