"""The VLA's list of calibrators: where they are, how strong in each band, and how far they are points.

The text that the VLA calibrator manual (NRAO) gives: for each source a line for its J2000 and one for its B1950
position, and one for each band it was measured in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from absurd.tasks.calibration.sky_model import Component
from absurd.tasks.radio.errors import DataError, ValidationError

BAND_HZ = {"P": 327.5e6, "L": 1425e6, "C": 4860e6, "X": 8460e6, "U": 14.94e9, "K": 22.46e9, "Q": 43.34e9}
"""Where the manual's flux densities of a band were measured, by its letter."""
CONFIGURATIONS = "ABCD"
_REACH_M = {"D": 1.03e3, "C": 3.4e3, "B": 11.1e3, "A": 36.4e3}
"""The longest baseline of each configuration of the VLA."""
QUALITIES = "PSWCX?"
"""Errors of closure to expect: P below 3 %, S 3 to 10 %, W above 10 %; C confused, X not to be used, ? unknown."""
_WORSE = {
    "W": "more than 10 % away from a point",
    "C": "confused with other sources",
    "X": "not to be used as a calibrator",
}
_BEYOND = 1.25
"""How far outside of the bands with a flux density one is still taken, as a factor of frequency."""
_PLACE = re.compile(
    r"^(?P<name>\S+)\s+(?P<equinox>J2000|B1950)\s+(?P<code>[ABCT])\s+"
    r"(?P<h>\d\d)h(?P<m>\d\d)m(?P<s>\d\d(?:\.\d*)?)s\s+"
    r"(?P<sign>[+-]?)(?P<deg>\d\d?)d(?P<min>\d\d)'(?P<sec>\d\d(?:\.\d*)?)\"(?P<rest>.*)$"
)
_BAND = re.compile(
    r"^\s*\d+(?:\.\d+)?cm\s*(?P<letter>[A-Z])(?P<quality>(?:\s+[PSWCXpswcx?](?!\S)){0,4})(?P<rest>\s.*)$"
)
_NUMBER = re.compile(r"\d+(?:\.\d*)?")
_DATE = re.compile(r"^[A-Z][a-z]{2}\d\d$")
_UVMAX_FROM = 38
"""Columns after the band's letter: numbers that end there or beyond are of UVMAX, before it of UVMIN."""


@dataclass(frozen=True, slots=True)
class Band:
    """A source in one band."""

    letter: str
    qualities: str
    """Of each configuration, A to D: see `QUALITIES`."""
    flux_jy: float
    shortest_wavelengths: float | None
    """Baselines, projected, outside of which it is no point; None where nothing is said."""
    longest_wavelengths: float | None

    @property
    def frequency_hz(self) -> float:
        return BAND_HZ[self.letter]


@dataclass(frozen=True, slots=True)
class VlaCalibrator:
    """A source of the list."""

    name: str
    """As 0137+331, by its J2000 position."""
    b1950_name: str
    other_names: tuple[str, ...]
    position_code: str
    """A below 0.002 arcsec, B 0.002 to 0.01, C 0.01 to 0.15, T above."""
    ra_rad: float
    """J2000, as `dec_rad`."""
    dec_rad: float
    bands: tuple[Band, ...]

    def flux_jy(self, frequency_hz: float) -> float:
        """Jy: a power law between the two bands around, or the nearest band's within a quarter of its frequency.

        Raises ValidationError where no band is near enough.
        """
        known = sorted((each.frequency_hz, each.flux_jy) for each in self.bands if each.flux_jy > 0)
        if not known or not known[0][0] / _BEYOND <= frequency_hz <= known[-1][0] * _BEYOND:
            told = ", ".join(f"{each / 1e9:g}" for each, _ in known) or "no frequency"
            raise ValidationError(
                f"the VLA's list has no flux density of {self.name} near {frequency_hz / 1e9:g} GHz: it has {told}",
                advice="take another calibrator, or give a flux density of your own",
            )
        x, y = np.log(np.array(known).T)
        return float(np.exp(np.interp(np.log(frequency_hz), x, y)))

    def band_at(self, frequency_hz: float) -> Band:
        """The nearest one with a flux density.  Raises ValidationError as `flux_jy` does."""
        self.flux_jy(frequency_hz)
        known = (each for each in self.bands if each.flux_jy > 0)
        return min(known, key=lambda each: abs(np.log(each.frequency_hz / frequency_hz)))

    def closure_error(self, frequency_hz: float, longest_m: float) -> str:
        """How bad it is as a point for an array of such baselines, in words; empty where nothing is said against it.

        Raises ValidationError as `flux_jy` does.
        """
        like = next((each for each, reach in _REACH_M.items() if longest_m <= reach), "A")
        return _WORSE.get(self.band_at(frequency_hz).qualities[CONFIGURATIONS.index(like)], "")

    def component(self, frequency_hz: float) -> Component:
        """A point with its flux density at that frequency and the slope of the spectrum there, for one band.

        Raises ValidationError as `flux_jy` does.
        """
        flux, step = self.flux_jy(frequency_hz), 1.01
        near = [self._flux_or(frequency_hz * factor, flux) for factor in (1 / step, step)]
        slope = float(np.log(near[1] / near[0]) / (2 * np.log(step)))
        return Component(
            self.name, self.ra_rad, self.dec_rad, flux, frequency_hz, (slope,),
            lowest_hz=frequency_hz / _BEYOND, highest_hz=frequency_hz * _BEYOND,
        )  # fmt: skip

    def _flux_or(self, frequency_hz: float, otherwise: float) -> float:
        try:
            return self.flux_jy(frequency_hz)
        except ValidationError:
            return otherwise


def parse_vla_calibrators(text: str) -> list[VlaCalibrator]:
    """All sources of the list, in its order.  Raises DataError with the number of a line that cannot be read."""
    found: list[VlaCalibrator] = []
    head: re.Match[str] | None = None
    b1950, bands = "", list[Band]()
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped[0] in "-=" or stripped.startswith(("IAU NAME", "BAND")):
            continue
        if place := _PLACE.match(line):
            if place["equinox"] == "B1950":
                b1950 = place["name"]
                continue
            if head:
                found.append(_calibrator(head, b1950, bands))
            head, b1950, bands = place, "", []
        elif (band := _BAND.match(line)) and head:
            bands.append(_band(band, number))
        else:
            raise DataError(f"line {number} of the list of calibrators cannot be read: {stripped[:80]!r}")
    if head:
        found.append(_calibrator(head, b1950, bands))
    return found


def _calibrator(head: re.Match[str], b1950: str, bands: list[Band]) -> VlaCalibrator:
    size = float(head["deg"]) + float(head["min"]) / 60 + float(head["sec"]) / 3600
    hours = float(head["h"]) + float(head["m"]) / 60 + float(head["s"]) / 3600
    return VlaCalibrator(
        name=head["name"],
        b1950_name=b1950,
        other_names=tuple(each for each in head["rest"].split() if not _DATE.match(each)),
        position_code=head["code"],
        ra_rad=float(np.radians(15 * hours)),
        dec_rad=float(np.radians(-size if head["sign"] == "-" else size)),
        bands=tuple(bands),
    )


def _band(found: re.Match[str], number: int) -> Band:
    if found["letter"] not in BAND_HZ:
        raise DataError(f"line {number} of the list of calibrators is of a band {found['letter']!r} that is not known")
    rest, offset = found["rest"], found.start("rest") - found.start("letter")
    numbers = list(_NUMBER.finditer(rest))
    flux, limits = 0.0, numbers
    if numbers and numbers[0].start() + offset < 26:
        flux, limits = float(numbers[0][0]), numbers[1:]
    shortest = longest = None
    for each in limits:
        if each.end() + offset >= _UVMAX_FROM:
            longest = 1e3 * float(each[0])
        else:
            shortest = 1e3 * float(each[0])
    qualities = "".join(found["quality"].split()).upper().ljust(len(CONFIGURATIONS), "?")
    return Band(found["letter"], qualities, flux, shortest, longest)


SHIPPED = tuple(
    parse_vla_calibrators("""\
0834+555   J2000  A 08h34m54.904117s  55d34'21.070980"  Aug01
0831+557   B1950  A 08h31m04.379700s  55d44'41.323000"
 90cm    P  S S S S          9
 20cm L  S P P P       8.80                      100
  6cm    C  X S P P       5.60                      100
3.7cm    X  X X S P       3.30                      100
""")
)
"""What is known without a list: the calibrator of DSA-110 that the simulator has transit."""
