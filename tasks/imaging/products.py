"""Images as FITS files that carry all that is known of them, and as a picture."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.artifact import write_aside
from absurd.tasks.imaging.imager import ImagingResult
from absurd.tasks.imaging.points import TERMS
from absurd.tasks.quiet import quiet

Pixels = NDArray[np.float32]
UNITS = {"image": "Jy/beam", "residual": "Jy/beam", "psf": "", "model": "Jy/pixel", "pb": "", "pbcor": "Jy/beam"}
"""Products, by what their pixels are in."""
_STOKES_I = 1.0
_MJD_0 = datetime(1858, 11, 17)  # noqa: DTZ001 - written without a zone, as FITS has it
_DEPTH_SIGMA = (-3.0, 20.0)
"""Deviations that a picture is black and white at."""


READ = ("image", "pb", "pbcor")
"""Products that later stages read."""


def kinds(*, pbcor: bool, kept: str = "all") -> list[str]:
    """Products that there are: all, or those that are read."""
    return [each for each in UNITS if (each != "pbcor" or pbcor) and (kept == "all" or each in READ)]


def product_paths(out: str | os.PathLike[str], *, pbcor: bool, kept: str = "all") -> dict[str, str]:
    """Where each product of ``night.fits`` lies: ``night-image.fits`` and so on, and ``night.png``."""
    stem = os.fspath(out).removesuffix(".fits")
    return {each: f"{stem}-{each}.fits" for each in kinds(pbcor=pbcor, kept=kept)} | {"png": f"{stem}.png"}


def write_products(
    results: Sequence[ImagingResult],
    paths: Mapping[str, str],
    *,
    pblimit: float,
    history: Sequence[str] = (),
    private: bool = False,
) -> None:
    """Write each product under its path, whole or not at all; several results are planes by frequency.

    `private` paths are those that ``ctx.artifact`` gives.  Raises OSError.
    """  # fmt: skip
    for name, path in paths.items():
        if name == "png":
            with write_aside(path, private=private) as place:
                write_picture(results[0], place)
            continue
        planes = [_pixels(each, name, pblimit) for each in results]
        with write_aside(path, private=private) as place:
            _write(place, planes, results, name, history)


def _pixels(result: ImagingResult, name: str, pblimit: float) -> Pixels:
    if name != "pbcor":
        pixels: Pixels = getattr(result, name)
        return pixels
    corrected = np.full(result.image.shape, np.nan, np.float32)
    np.divide(result.image, result.pb, out=corrected, where=result.pb >= max(pblimit, 1e-6))
    return corrected


def _write(
    path: Path, planes: Sequence[Pixels], results: Sequence[ImagingResult], name: str, history: Sequence[str]
) -> None:
    from astropy.io import fits

    data = (planes[0][None] if len(planes) == 1 else np.stack(planes))[None]  # Stokes, frequency, y, x
    with quiet():
        image = fits.PrimaryHDU(data, header(results, name, history))
        units: list[Any] = [image]
        if len(results) > 1:
            units.append(_beams(results))
        if name == "model":
            units += [_points(each, number) for number, each in enumerate(results) if each.points]
        with path.open("wb") as file:
            fits.HDUList(units).writeto(file)


def header(results: Sequence[ImagingResult], name: str, history: Sequence[str] = ()) -> Any:
    """Of a product: WCS of four axes, beam, unit, times, telescope, and how it was made."""
    from astropy.io import fits

    first, middle = results[0], results[len(results) // 2]
    made = first.geometry.wcs.to_header()
    made["WCSAXES"] = 4
    frequencies = [each.frequency_hz for each in results]
    step = float(np.diff(frequencies).mean()) if len(results) > 1 else first.bandwidth_hz
    for axis, (kind, value, change, unit) in enumerate(
        (("FREQ", frequencies[0], step, "Hz"), ("STOKES", _STOKES_I, 1.0, "")), 3
    ):
        made[f"CTYPE{axis}"], made[f"CRVAL{axis}"], made[f"CDELT{axis}"] = kind, value, change
        made[f"CRPIX{axis}"], made[f"CUNIT{axis}"] = 1.0, unit
    cards = fits.Header()
    cards.update(made)
    if UNITS[name]:
        cards["BUNIT"] = UNITS[name]
    cards["BTYPE"] = {"psf": "psf", "pb": "primary beam"}.get(name, "Intensity")
    cards["BMAJ"] = (math.degrees(middle.beam.major_rad), "[deg] restoring beam")
    cards["BMIN"] = (math.degrees(middle.beam.minor_rad), "[deg]")
    cards["BPA"] = (math.degrees(middle.beam.position_angle_rad), "[deg] north through east")
    cards["TELESCOP"] = first.telescope
    cards["RESTFRQ"] = (middle.frequency_hz, "[Hz] middle of the band")
    cards["BANDWID"] = (sum(each.bandwidth_hz for each in results), "[Hz]")
    cards["TIMESYS"] = "UTC"
    begin, end = first.span_s
    for key, seconds in (("DATE-OBS", begin), ("DATE-AVG", (begin + end) / 2), ("DATE-END", end)):
        cards[key] = (_MJD_0 + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")
    cards["ENGINE"] = first.engine
    cards["STOPPED"] = (first.stopped_by, "why cleaning ended")
    for key, what in (("NOISE", "rms_jy"), ("THERMAL", "thermal_jy"), ("DYNRANGE", "dynamic_range")):
        measured = first.statistics.get(what, math.nan)
        if math.isfinite(measured):
            cards[key] = measured
    cards["ORIGIN"] = "absurd"
    for line in history:
        cards.add_history(line)
    return cards


def _beams(results: Sequence[ImagingResult]) -> Any:
    """The table of beams by plane, as CASA writes it, with the frequency and the noise of each."""
    from astropy.io import fits

    beams = [each.beam for each in results]
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column("BMAJ", "E", "arcsec", array=[math.degrees(each.major_rad) * 3600 for each in beams]),
            fits.Column("BMIN", "E", "arcsec", array=[math.degrees(each.minor_rad) * 3600 for each in beams]),
            fits.Column("BPA", "E", "deg", array=[math.degrees(each.position_angle_rad) for each in beams]),
            fits.Column("CHAN", "J", array=np.arange(len(beams))),
            fits.Column("POL", "J", array=np.zeros(len(beams), np.int32)),
            fits.Column("FREQ", "D", "Hz", array=[each.frequency_hz for each in results]),
            *(
                fits.Column(name, "E", "Jy/beam", array=[each.statistics.get(what, math.nan) for each in results])
                for name, what in (("NOISE", "rms_jy"), ("THERMAL", "thermal_jy"))
            ),
        ],
        name="BEAMS",
    )
    table.header["NCHAN"], table.header["NPOL"] = len(beams), 1
    return table


def _points(result: ImagingResult, plane: int) -> Any:
    """Points of a plane, which its model has at the nearest pixels: where they are, and how their flux goes."""
    from astropy.io import fits

    rows = result.points
    places = np.array([result.geometry.wcs.wcs_pix2world([[each.x, each.y]], 0)[0] for each in rows])
    return fits.BinTableHDU.from_columns(
        [
            fits.Column("RA", "D", "deg", array=places[:, 0]),
            fits.Column("DEC", "D", "deg", array=places[:, 1]),
            fits.Column("X", "D", "pixel", array=[each.x for each in rows]),
            fits.Column("Y", "D", "pixel", array=[each.y for each in rows]),
            fits.Column("FLUX", "D", "Jy", array=[each.mean_jy for each in rows]),
            fits.Column("TERMS", f"{len(TERMS)}D", "Jy", array=[each.terms_jy for each in rows]),
        ],
        name="POINTS",
        ver=plane + 1,
    )


def write_picture(result: ImagingResult, path: Path, *, most: int = 1024) -> None:
    """The image as PNG, north up, black at -3 and white at 20 deviations; of large ones the mean of pixels."""
    from PIL import Image as Picture
    from PIL.PngImagePlugin import PngInfo

    ny, nx = result.image.shape
    step = -(-max(ny, nx) // most)
    part = result.image[: ny // step * step, : nx // step * step]
    small = part.reshape(ny // step, step, nx // step, step).max(axis=(1, 3))
    noise = result.statistics["rms_jy"] or float(np.abs(small).max()) or 1.0
    low, high = (each * noise for each in _DEPTH_SIGMA)
    grey = np.clip(np.nan_to_num((small[::-1] - low) / (high - low)), 0, 1)
    told = PngInfo()
    told.add_text("Description", f"Stokes I, black {low:.3g} to white {high:.3g} Jy/beam")
    with path.open("wb") as file:
        Picture.fromarray((255 * grey + 0.5).astype(np.uint8)).save(file, "PNG", pnginfo=told)
