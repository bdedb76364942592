"""What an index of images holds of a file: documents made of its headers, without its pixels."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from absurd.tasks.cutout.bands import band_in_headers, band_in_name
from absurd.tasks.cutout.fits_image import FitsImage, open_images, own_images, read_wcs
from absurd.tasks.cutout.sources.folder import planes_of
from absurd.tasks.cutout.sources.footprint import bounds_of, cap_of, corners_of
from absurd.tasks.quiet import quiet

Document = dict[str, Any]

_OF_WCS = re.compile(
    r"NAXIS\d*|WCSAXES|(CTYPE|CRPIX|CRVAL|CDELT|CUNIT|CROTA)\d+|(CD|PC)\d+_\d+|PC\d{6}|(PV|PS)\d+_\d+|LONPOLE|LATPOLE"
    r"|RADESYS|RADECSYS|EQUINOX|EPOCH|(A|B|AP|BP)_(ORDER|DMAX|\d+_\d+)|TIMESYS|(DATE|MJD)-(OBS|AVG|BEG|END)|MJDREF[IF]?"
)
"""Cards that a WCS is read from; what else it may need is found out by reading it."""

_SCALES = {"": "utc", "UTC": "utc", "UT": "utc", "GMT": "utc", "TAI": "tai", "IAT": "tai", "TT": "tt", "TDT": "tt",
           "ET": "tt", "TDB": "tdb"}  # fmt: skip
"""Scales of time by TIMESYS (FITS standard 4.0, table 30), as astropy calls them; others need more than is here."""


def images_of(path: Path) -> list[Document]:
    """The images of the sky in a file, as an index keeps them; none of a file that is weights.

    Raises SourceNotFoundError, ImageUnreadableError, NotOnSkyError.
    """
    with open_images(path) as images:
        return [_image(each) for each in own_images(images)]


def wcs_of_text(text: str) -> Any:
    """The WCS of the cards that an index has kept."""
    from astropy.io import fits

    return read_wcs(fits.Header.fromstring(text, sep="\n"))


def _image(image: FitsImage) -> Document:
    headers = (image.header, image.hdus[0].header)
    told = band_in_headers(*headers)
    observed_at = observed(*headers)
    return {
        "hdu": image.hdu,
        "bounds": bounds_of(*cap_of(image.wcs, image.shape)),
        "band": told or band_in_name(image.path.name),
        "band_told": told is not None,
        "hdus": planes_of(image),
        "wcs": _wcs_text(image),
        "shape": image.shape,
        "footprint": corners_of(image.wcs, image.shape),
        "observed_at": observed_at and observed_at.isoformat(),
        "tract": _number("TRACT", *headers),
        "patch": _number("PATCH", *headers),
    }


def observed(*headers: Any) -> datetime | None:
    """When an exposure began, by the first of the headers that tells it by DATE-OBS, DATE-BEG, MJD-OBS or MJD-BEG.

    A date without a time of day counts where TIME-OBS or nothing else tells that.  Scales of time other than UTC
    are converted; None where the scale is unknown, or what is told is no time.
    """
    for header in headers:
        for value, kind in _times(header):
            found = _moment(value, kind, str(header.get("TIMESYS", "")).strip().upper())
            if found is not None:
                return found
    return None


def _times(header: Any) -> list[tuple[Any, str]]:
    dates = [str(header[key]).strip() for key in ("DATE-OBS", "DATE-BEG") if key in header]
    found: list[tuple[Any, str]] = [(each, "isot") for each in dates if "T" in each]
    if dates and "TIME-OBS" in header:
        found.append((f"{dates[0]}T{str(header['TIME-OBS']).strip()}", "isot"))
    found += [(header[key], "mjd") for key in ("MJD-OBS", "MJD-BEG") if key in header]
    return found + [(f"{each}T00:00:00", "isot") for each in dates if "T" not in each]


def _moment(value: Any, kind: str, system: str) -> datetime | None:
    from astropy.time import Time

    if system not in _SCALES or isinstance(value, bool):
        return None
    try:
        with quiet():  # of years for which leap seconds are not known
            told = Time(value, format=kind, scale=_SCALES[system])
            found: datetime = told.utc.to_datetime(timezone=UTC, leap_second_strict="silent")
    except (ValueError, TypeError, OverflowError):
        return None
    return found


def _number(name: str, *headers: Any) -> int | None:
    """TRACT or PATCH, or what the Butler wrote of the data ID."""
    for header in headers:
        for key in (name, f"LSST BUTLER DATAID {name}"):
            value = header.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31:
                return value
    return None


def _wcs_text(image: FitsImage) -> str | None:
    """The cards that give the very same WCS: those that tell it, else the whole header; None if tables are needed."""
    header = image.header
    wanted = [card for card in header.cards if _OF_WCS.fullmatch(card.keyword)]
    whole = [card for card in header.cards if card.keyword not in ("COMMENT", "HISTORY", "")]
    for cards in (wanted, whole):
        text = "\n".join(str(card).rstrip() for card in cards)
        try:
            wcs = wcs_of_text(text)
            if wcs.has_celestial and np.array_equal(_grid(wcs, image), _grid(image.wcs, image), equal_nan=True):
                return text
        except (ValueError, KeyError, AssertionError, OSError):
            continue
    return None


def _grid(wcs: Any, image: FitsImage) -> Any:
    """Where some pixels are on the sky."""
    from astropy.wcs.utils import pixel_to_skycoord

    ny, nx = image.shape
    x, y = np.meshgrid(np.linspace(-0.5, nx - 0.5, 5), np.linspace(-0.5, ny - 0.5, 5))
    sky = pixel_to_skycoord(x.ravel(), y.ravel(), wcs, origin=0, mode="all").icrs
    return np.stack([sky.ra.deg, sky.dec.deg])
