"""Directions of other frames as ICRS."""

from __future__ import annotations

from absurd.tasks.quiet import quiet
from absurd.tasks.radio.errors import DataError

_FRAMES = {
    "icrs": "icrs",
    "j2000": "fk5",
    "fk5": "fk5",
    "b1950": "fk4",
    "fk4": "fk4",
    "galactic": "galactic",
}
"""Names of CASA and astropy, in lower case."""


def to_icrs(longitude_rad: float, latitude_rad: float, frame: str) -> tuple[float, float]:
    """Right ascension (0 to 2 pi) and declination of a direction in a frame, by its name in CASA or astropy.

    J2000 is FK5 at equinox 2000, as CASA has it: up to 0.03 seconds of arc from ICRS.  Raises DataError for frames that
    move with the Earth, and others that are not known.
    """
    import math

    known = _FRAMES.get(frame.lower())
    if known is None:
        raise DataError(f"directions in frame {frame} are not taken", advice=f"those of {', '.join(_FRAMES)} are")
    if known == "icrs":
        return longitude_rad % math.tau, latitude_rad
    from astropy.coordinates import SkyCoord

    with quiet():
        there = SkyCoord(longitude_rad, latitude_rad, unit="rad", frame=known).icrs
    return float(there.ra.rad), float(there.dec.rad)
