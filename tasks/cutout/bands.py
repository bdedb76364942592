"""Names of bands: what headers and the names of files call them, and their order from blue to red."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

KNOWN_BANDS = {
    "u": 355, "U": 365, "B": 445, "g": 477, "V": 551, "r": 622, "R": 658, "i": 763, "I": 806, "z": 905, "y": 963,
    "Y": 1020, "J": 1250, "H": 1650, "K": 2200, "w1": 3400, "w2": 4600, "w3": 12000, "w4": 22000,
}  # fmt: skip
"""Bands and about their wavelengths, nm; also what is looked for in a file's name where its header tells none."""

_LETTER = re.compile(r"HSC-(?P<hsc>[GRIZY])2?|(?P<one>[A-Za-z])\.(MP|WC)?\d{4,5}")
"""Filters that are one band by their names: HSC-R2, r.MP9601 and J.WC8101 of CFHT, g.00000 of Pan-STARRS."""

_BY_NUMBER = re.compile(r"F(?P<number>\d{3,4})(?P<kind>LPW?|BW|W2?|WR|M|N|C|X)")
"""Filters of HST and JWST: a number, and how wide they are."""

_TENS = frozenset({
    "F200W", "F205W", "F207M", "F210M", "F212N", "F215N", "F216N", "F222M", "F237M", "F240M", "F250M", "F277W",
    "F300M", "F322W2", "F323N", "F335M", "F356W", "F360M", "F380M", "F405N", "F410M", "F430M", "F444W", "F460M",
    "F466N", "F470N", "F480M", "F560W", "F770W",
})  # fmt: skip
"""Those of NICMOS, NIRCam, NIRISS and MIRI whose numbers, in 10 nm, are such as HST has in nm.

F410M is in both, WFC3's of 410 nm: it is taken for that of JWST.
"""

_ULTRAVIOLET = frozenset({"F122M", "F160BW", "F170W", "F185W"})
"""Those of HST below 200 nm by their number in nm, beside the long-pass filters."""

_NO_FILTER = re.compile(r"(CLEAR|OPEN|EMPTY|NONE|POL\d).*", re.IGNORECASE)
"""What a filter wheel has that is no band."""


def by_wavelength(band: str | None) -> tuple[float, str]:
    """What sorts bands from blue to red; those of unknown place, and images without band, come last."""
    if band is None:
        return math.inf, ""
    return float(KNOWN_BANDS.get(letter_of(band) or band, _nanometres(band))), band


def letter_of(band: str) -> str | None:
    """The letter of a band whose filter is called otherwise: ``r`` of HSC-R, HSC-R2 and r.MP9601; else None."""
    found = _LETTER.fullmatch(band)
    return (found["one"] or found["hsc"].lower()) if found is not None else None


def _nanometres(band: str) -> float:
    """The wavelength in the name of a filter of HST or JWST; infinite where there is none."""
    found = _BY_NUMBER.fullmatch(band)
    if found is None:
        return math.inf
    number = int(found["number"])
    tens = found["number"][0] == "0" or number >= 1000 or band in _TENS
    if 100 <= number < 200:
        tens = "LP" not in found["kind"] and band not in _ULTRAVIOLET
    if band == "F1042M":  # of HST
        tens = False
    return number * (10.0 if tens else 1.0)


def is_meant(wanted: str, band: str) -> bool:
    """Whether a wanted band may be this one: by its name, in capitals or not, or by the letter that the name is of."""
    return wanted.lower() in (band.lower(), (letter_of(band) or band).lower())


def as_spelled(wanted: str, there: Iterable[str | None]) -> str | None:
    """A wanted band as it is called there; None if there is none.

    The same name first, then the same but for capitals, then a filter that is this band by its letter; of the latter
    two only if there is but one.
    """
    bands = {each for each in there if each is not None}
    alike = [each for each in bands if each.lower() == wanted.lower()]
    meant = alike or [each for each in bands if is_meant(wanted, each)]
    return wanted if wanted in bands else meant[0] if len(meant) == 1 else None


def band_in_headers(*headers: Any) -> str | None:
    """The band by the first of the headers that tells it: the first word of BAND, of FILTER, or of a filter wheel.

    Wheels are FILTER1, FILTER2 and FILTNAM1; what is in them and is no band, as CLEAR1L, is passed over.
    """
    for header in headers:
        for key in ("BAND", "FILTER"):
            words = str(header.get(key, "")).split()
            if words:
                return words[0]
        for key in ("FILTER1", "FILTER2", "FILTNAM1"):
            value = header.get(key)
            words = value.split() if isinstance(value, str) else []  # a number is a place on the wheel
            if words and not _NO_FILTER.fullmatch(words[0]):
                return words[0]
    return None


def band_in_name(name: str, wanted: Iterable[str] = ()) -> str | None:
    """The one word of a file's name that is in `wanted` or in `KNOWN_BANDS`; None if there is none, or two."""
    known = {*KNOWN_BANDS, *wanted}
    found = {word for word in re.split(r"[^A-Za-z0-9]+", name.partition(".")[0]) if word in known}
    return found.pop() if len(found) == 1 else None
