"""The header of a cut-out: that of its image, moved with the box, so that every pixel stays where it is on the sky."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

import numpy as np

from absurd.tasks.cutout.errors import NotOnSkyError
from absurd.tasks.cutout.geometry import Box
from absurd.tasks.quiet import quiet

WCS_TOLERANCE = 1e-9
"""Degrees by which a corner of the cut-out may move on the sky: 4 micro-arcseconds, rounding only."""

_FROM_PRIMARY = (
    "TELESCOP", "INSTRUME", "OBJECT", "OBSERVER", "FILTER", "BAND", "DATE-OBS", "TIME-OBS", "MJD-OBS", "TIMESYS",
    "EXPTIME", "AIRMASS", "BUNIT", "FILTER1", "FILTER2", "FILTNAM1", "MAGZERO", "MAGZPT", "ZPTMAG", "PHOTFLAM",
    "PHOTPLAM", "PHOTZPT", "FLUXMAG0", "GAIN", "EXPNUM", "PROPID",
)  # fmt: skip
"""What is taken from the primary header of a file whose extension does not say INHERIT."""

_ABOUT_THE_FILE = (
    "XTENSION", "PCOUNT", "GCOUNT", "GROUPS", "EXTEND", "EXTNAME", "EXTVER", "EXTLEVEL", "INHERIT", "BSCALE", "BZERO",
    "BLANK", "CHECKSUM", "DATASUM", "ZHECKSUM", "ZDATASUM", "DATAMIN", "DATAMAX", "NEXTEND", "LONGSTRN",
)  # fmt: skip
"""What is no longer so in the cut-out."""

_NOT_INHERITED = re.compile(
    r"SIMPLE|BITPIX|NAXIS\d*|THEAP|END|COMMENT|HISTORY|AR_HDU|EXTTYPE|"  # AR_HDU: where in the file the rest is
    r"WCSAXES[A-Z]?|WCSNAME[A-Z]?|WCSDIM|(LONPOLE|LATPOLE|RADESYS|EQUINOX)[A-Z]?|RADECSYS|EPOCH|WAT\d_\d+|"
    r"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME|CRDER|CSYER)\d[A-Z]?|LT[VM]\d.*|(PC|CD)\d+_\d+[A-Z]?|PC\d{6}|"
    r"(PV|PS)\d+_\d+[A-Z]?|(A|B|AP|BP)_(ORDER|DMAX|\d+_\d+)|(CPDIS|CPERR|CQDIS|CQERR|D2IMDIS|D2IMERR|D2IMARR|DP|DQ|D2IM|DVERR)\d?(\..*)?"
)
"""What an extension does not take from the primary header: what is of that HDU alone, its WCS, and words about it."""

_THIRD_AXIS = re.compile(
    r"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA|CNAME|NAXIS|LTV)[3-9][A-Z]?"
    r"|(PC|CD|LTM)(0?[3-9]_0?\d|0?\d_0?[3-9])[A-Z]?|PC00[3-9]\d+|(PV|PS)[3-9]_\d+[A-Z]?"
)


def tables_of(hdus: Iterable[Any]) -> tuple[Any, ...]:
    """The HDUs of a file that hold lookup tables of distortions; mostly none."""
    return tuple(hdu for hdu in hdus if hdu.name in ("WCSDVARR", "D2IMARR"))


def moved_header(header: Any, primary: Any, tables: Sequence[Any], box: Box) -> tuple[Any, tuple[Any, ...]]:
    """The header of an image for a box on it, and its distortion tables likewise; `primary` is that of the file.

    All that belongs to the WCS is given relative to the reference pixel, so that only CRPIX (and LTV, the place on
    the detector) change, by whole pixels, and every other number keeps its digits; the tables have their place in
    CRVAL.
    """
    header = header.copy(strip=True)
    inherits = header.get("INHERIT") is True
    for key in _ABOUT_THE_FILE:
        header.remove(key, ignore_missing=True, remove_all=True)
    for key in [key for key in header if _THIRD_AXIS.fullmatch(key)]:
        header.remove(key, remove_all=True)
    header.pop("WCSAXES", None)
    _take(header, primary, all_there_is=inherits)
    for key, (value, axis) in moving(header).items():
        header[key] = value - box.origin[axis]
    return header, tuple(_moved_table(hdu, box) for hdu in tables)


def _take(header: Any, primary: Any, *, all_there_is: bool) -> None:
    """Add cards of the primary header that a header lacks: all that are about more than that HDU, or a few of them."""
    there = set(header)
    for card in primary.cards:
        key = card.keyword
        if key in there or not key:
            continue
        if key in _FROM_PRIMARY or (all_there_is and not (key in _ABOUT_THE_FILE or _NOT_INHERITED.fullmatch(key))):
            header.append(copy(card))
            there.add(key)


def moving(header: Any) -> dict[str, tuple[float, int]]:
    """What changes with the place of a box, by keyword: its value on the image, and along which axis, x or y.

    The origin of the box goes off it.
    """
    found: dict[str, tuple[float, int]] = {}
    alternatives = {match[1] for key in header if (match := re.fullmatch(r"CTYPE[12]([A-Z]?)", key))}
    for axis in (0, 1):
        for key in (f"CRPIX{axis + 1}{alternative}" for alternative in sorted(alternatives)):
            found[key] = header.get(key, 0.0), axis
        if f"LTV{axis + 1}" in header:
            found[f"LTV{axis + 1}"] = header[f"LTV{axis + 1}"], axis
    return found


def _moved_table(hdu: Any, box: Box) -> Any:
    """A lookup table for pixels of the box, in which CRVAL is the pixel of the image at CRPIX of the table."""
    from astropy.io import fits

    moved = fits.ImageHDU(np.array(hdu.data), hdu.header.copy(), name=hdu.name, ver=hdu.ver)
    for axis, shift in zip("12", box.origin, strict=True):
        moved.header[f"CRVAL{axis}"] = moved.header.get(f"CRVAL{axis}", 0.0) - shift
    return moved


def wcs_of(header: Any, tables: Sequence[Any]) -> Any:
    """The WCS that a reader of the written cut-out will find."""
    from astropy.io import fits

    from absurd.tasks.cutout.sky_wcs import SkyWCS

    with quiet():
        return SkyWCS(header, fobj=fits.HDUList([fits.PrimaryHDU(), *tables]), naxis=2)


def check_kept(name: str, image_wcs: Any, wcs: Any, box: Box) -> None:
    """Raise NotOnSkyError unless a box has the same corners on the sky as its pixels have on the image `name`."""
    (ny, nx), (x, y) = box.shape, box.origin
    corners = np.array([(0, 0), (nx - 1, 0), (0, ny - 1), (nx - 1, ny - 1)], dtype=float)
    try:
        there = wcs.all_pix2world(corners, 0)
    except ValueError as error:
        raise NotOnSkyError(f"the WCS of {name} cannot be carried over to a cut-out: {error}") from error
    before = image_wcs.all_pix2world(corners + np.array([x, y]), 0)
    apart = np.abs((there - before + 180) % 360 - 180)  # NaN off the sky, on both sides
    if not np.array_equal(np.isnan(there), np.isnan(before)) or (apart > WCS_TOLERANCE).any():
        raise NotOnSkyError(f"the WCS of {name} cannot be carried over to a cut-out: its corners would move")
