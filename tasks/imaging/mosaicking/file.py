"""FITS files of mosaics: header first, then pixels, block by block."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.imaging.mosaicking.grid import Grid
from absurd.tasks.imaging.mosaicking.tile import Tile
from absurd.tasks.quiet import quiet
from absurd.tasks.radio.sky_pixels import frame_of, pixels_to_sky

_RECORD = 2880


class MosaicFile:
    """An image of 32-bit floats that is written in boxes; it is whole once the block ends.

    It has the axes of a radio image: the two on the sky, frequency, Stokes parameter.
    """

    def __init__(
        self, path: str | os.PathLike[str], header: Any, shape: tuple[int, int], *, after: bytes = b""
    ) -> None:
        """`after` are whole extensions, as they follow the image."""
        self._path, self._shape, self._after, self._file = path, shape, after, -1
        self._text = header.tostring(sep="", endcard=True, padding=True).encode("ascii")

    def __enter__(self) -> Self:
        size = len(self._text) + -(-4 * self._shape[0] * self._shape[1] // _RECORD) * _RECORD
        with open(self._path, "wb") as file:
            file.write(self._text)
            file.truncate(size)
            file.seek(size)
            file.write(self._after)
        self._file = os.open(self._path, os.O_WRONLY)
        return self

    def write(self, rows: range, columns: range, pixels: NDArray[np.float32]) -> None:
        """Put pixels (y, x) in a box, which may be done by several threads at once.  Raises OSError."""
        # Not mapped: where the disk is full, a map would end the process.
        for row, line in zip(rows, pixels.astype(">f4"), strict=True):
            rest = line.view(np.uint8).data
            at = len(self._text) + 4 * (row * self._shape[1] + columns.start)
            while rest:
                written = os.pwrite(self._file, rest, at)
                rest, at = rest[written:], at + written

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                os.fsync(self._file)
        finally:
            os.close(self._file)


def mosaic_header(tiles: Sequence[Tile], grid: Grid) -> Any:
    """The header of a mosaic: where its pixels are, its beam, frequency, times, and the tiles it was made of.

    The beam is the tiles' median: each pixel is a mean over tiles, in whose beams the same flux density of a point
    source has the same peak.
    """
    from astropy.io import fits

    told = fits.Header()
    told["SIMPLE"], told["BITPIX"], told["NAXIS"] = True, -32, 4
    told["NAXIS1"], told["NAXIS2"], told["NAXIS3"], told["NAXIS4"] = grid.shape[1], grid.shape[0], 1, 1
    told["EXTEND"] = True
    told["BUNIT"], told["BTYPE"] = "JY/BEAM", "Intensity"
    told.update(grid.wcs.to_header())
    told["WCSAXES"] = 4
    images = [each.image for each in tiles]
    frequencies = [each.frequency_hz for each in images if each.frequency_hz is not None]
    told["CTYPE3"], told["CRPIX3"], told["CDELT3"], told["CUNIT3"] = "FREQ", 1.0, 1.0, "Hz"
    told["CRVAL3"] = float(np.median(frequencies)) if frequencies else 0.0
    told["CTYPE4"], told["CRPIX4"], told["CDELT4"], told["CRVAL4"], told["CUNIT4"] = "STOKES", 1.0, 1.0, 1.0, ""
    if str(images[0].header.get("CTYPE3", "")).startswith("FREQ"):
        told["CDELT3"] = images[0].header.get("CDELT3", 1.0)
    if frequencies:
        told["RESTFRQ"] = told["CRVAL3"]
    beams = [each.beam for each in images if each.beam is not None]
    if beams:
        told["BMAJ"] = float(np.median([each.major_deg for each in beams]))
        told["BMIN"] = float(np.median([each.minor_deg for each in beams]))
        turn = np.exp(2j * np.radians([each.angle_deg for each in beams]))
        told["BPA"] = float(np.degrees(np.angle(turn.mean())) / 2)
    spans = [each.span for each in images if each.span is not None]
    if spans:
        told["DATE-OBS"], told["DATE-END"] = _iso(min(spans)[0]), _iso(max(end for _, end in spans))
        told["TIMESYS"] = "UTC"
    for key in ("TELESCOP", "INSTRUME", "OBJECT", "OBSERVER"):
        values = {each.header.get(key) for each in images}
        if len(values) == 1 and (value := values.pop()) is not None:
            told[key] = value
    told["NTILES"] = (len(tiles), "images combined")
    told["ORIGIN"] = "absurd"
    for each in tiles:
        told.add_history(f"{os.path.basename(each.image.path)} noise {each.noise_jy:.6g} Jy/beam")
    return told


def tiles_table(tiles: Sequence[Tile]) -> bytes:
    """The extension TILES: name and noise of each tile, and where its corners are on the sky, as FITS has it."""
    from astropy.coordinates import SkyCoord
    from astropy.io import fits

    corners = []
    for each in tiles:
        ny, nx = each.image.shape
        lon, lat = pixels_to_sky(each.image.wcs, np.array([0.0, nx - 1, nx - 1, 0]), np.array([0.0, 0, ny - 1, ny - 1]))
        places = SkyCoord(lon, lat, unit="deg", frame=frame_of(each.image.wcs)).icrs
        corners.append(np.column_stack([places.ra.deg, places.dec.deg]).ravel())
    names = [os.path.basename(each.image.path) for each in tiles]
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("NAME", f"{max(map(len, names))}A", array=names),
            fits.Column("NOISE", "D", "Jy/beam", array=[each.noise_jy for each in tiles]),
            fits.Column("CORNERS", "8D", "deg", dim="(2,4)", array=np.array(corners)),
        ],
        name="TILES",
    )
    file = io.BytesIO()
    with quiet():
        fits.HDUList([fits.PrimaryHDU(), table]).writeto(file)
    return file.getvalue()[_RECORD:]


def _iso(time: datetime) -> str:
    return time.replace(tzinfo=None).isoformat(timespec="milliseconds")
