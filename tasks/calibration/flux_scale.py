"""Flux densities of standard calibrators: the scale of Perley and Butler (2017), 50 MHz to 50 GHz.

R. A. Perley and B. J. Butler, "An Accurate Flux Density Scale from 50 MHz to 50 GHz", ApJS 230, 7 (2017), Table 6,
whose coefficients CASA's `setjy` has as "Perley-Butler 2017".  Accurate to 3 to 5 % over the whole range.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import ValidationError

Floats = NDArray[np.float64]
_LOST = 0.1
"""Share of the flux density of a Gaussian as wide as a source that the longest baseline may lose to its width."""


@dataclass(frozen=True)
class FluxCalibrator:
    """A source of the scale: log10 S = a0 + a1 x + a2 x^2 + ..., S in Jy, x = log10 of the frequency in GHz."""

    name: str
    aliases: tuple[str, ...]
    ra: str
    """Hours, minutes and seconds, J2000; of extended sources their core or middle."""
    dec: str
    coefficients: tuple[float, ...]
    lowest_hz: float
    """Frequencies that the polynomial is fitted to."""
    highest_hz: float
    extent_arcsec: float
    """Largest angular size, roughly: a point is no model of it on baselines that resolve this."""
    variable: bool = False
    """Seen to vary by some per cent in decades: what the scale gives is of about 2016."""

    @property
    def longest_wavelengths(self) -> float:
        """Projected baselines up to which a point is a model of it, as if it were a Gaussian of its largest size."""
        width = np.radians(self.extent_arcsec / 3600)
        return float(np.sqrt(-np.log(1 - _LOST) * 4 * np.log(2)) / (np.pi * width))

    @cached_property
    def ra_rad(self) -> float:
        """ICRS."""
        hours, minutes, seconds = (float(part) for part in self.ra.split(":"))
        return float(np.radians(15 * (hours + minutes / 60 + seconds / 3600)))

    @cached_property
    def dec_rad(self) -> float:
        """ICRS."""
        degrees, minutes, seconds = (abs(float(part)) for part in self.dec.split(":"))
        size = np.radians(degrees + minutes / 60 + seconds / 3600)
        return float(-size if self.dec.startswith("-") else size)

    def flux_jy(self, frequencies_hz: Floats) -> Floats:
        """Jy, of the shape of the frequencies.  Raises ValidationError outside of those that the scale is for."""
        frequencies = np.asarray(frequencies_hz, np.float64)
        check_range(self.name, frequencies, self.lowest_hz, self.highest_hz)
        exponent = np.polynomial.polynomial.polyval(np.log10(frequencies / 1e9), self.coefficients)
        flux: Floats = np.power(10.0, exponent, dtype=np.float64)
        return flux


def check_range(name: str, frequencies_hz: Floats, lowest_hz: float, highest_hz: float) -> None:
    """Raise ValidationError where a frequency is not of the range that a flux density is known for."""
    if not frequencies_hz.size:
        return
    least, most = float(np.min(frequencies_hz)), float(np.max(frequencies_hz))
    if not (lowest_hz <= least and most <= highest_hz):
        wrong = least if not lowest_hz <= least else most
        raise ValidationError(
            f"the flux density of {name} is known from {lowest_hz / 1e9:g} to {highest_hz / 1e9:g} GHz, "
            f"not at {wrong / 1e9:g} GHz",
            advice="nothing is extrapolated: take another calibrator, or give a flux density of your own",
            source=name,
        )


def _source(
    name: str, aliases: str, place: str, coefficients: tuple[float, ...], ghz: tuple[float, float], extent: float
) -> FluxCalibrator:
    ra, dec = place.split()
    known = tuple(each for each in aliases.split(",") if each)
    variable = name in ("3C48", "3C138", "3C147", "3C380", "3C461")
    return FluxCalibrator(name, known, ra, dec, coefficients, ghz[0] * 1e9, ghz[1] * 1e9, extent, variable)


_WHOLE = (0.05, 50.0)
FLUX_CALIBRATORS = (
    _source("J0133-3629", "PKS0131-36", "01:33:57.6 -36:29:34", (1.0440, -0.6619, -0.2252), (0.2, 4), 860),
    _source(
        "3C48", "J0137+3309,0137+331,0134+329", "01:37:41.2994 +33:09:35.134",
        (1.3253, -0.7553, -0.1914, 0.0498), _WHOLE, 1.2,
    ),
    _source("Fornax A", "For A,J0322-3712", "03:22:41.7 -37:12:30", (2.2175, -0.6606), (0.2, 0.5), 3000),
    _source(
        "3C123", "J0437+2940,0437+296,0433+295", "04:37:04.3753 +29:40:13.819",
        (1.8017, -0.7884, -0.1035, -0.0248, 0.0090), _WHOLE, 44,
    ),
    _source("J0444-2809", "PKS0442-28", "04:44:37.7 -28:09:54", (0.9710, -0.8938, -0.1176), (0.2, 2), 120),
    _source("Pictor A", "Pic A,J0519-4546", "05:19:49.7 -45:46:44", (1.9380, -0.7470, -0.0739), (0.2, 4), 500),
    _source(
        "3C138", "J0521+1638,0521+166,0518+165", "05:21:09.8860 +16:38:22.051",
        (1.0088, -0.4981, -0.1552, -0.0102, 0.0223), (0.2, 50), 0.7,
    ),
    _source(
        "3C144", "Taurus A,Tau A,Crab,J0534+2200", "05:34:31.94 +22:00:52.2",
        (2.9516, -0.2173, -0.0473, -0.0674), (0.05, 4), 450,
    ),
    _source(
        "3C147", "J0542+4951,0542+498,0538+498", "05:42:36.1379 +49:51:07.234",
        (1.4516, -0.6961, -0.2007, 0.0640, -0.0464, 0.0289), _WHOLE, 0.9,
    ),
    _source(
        "3C196", "J0813+4813,0813+482,0809+483", "08:13:36.0561 +48:13:02.636",
        (1.2872, -0.8530, -0.1534, -0.0200, 0.0201), _WHOLE, 7,
    ),
    _source(
        "3C218", "Hydra A,Hya A,J0918-1205", "09:18:05.669 -12:05:43.95",
        (1.7795, -0.9176, -0.0843, -0.0139, 0.0295), (0.05, 12), 480,
    ),
    _source(
        "3C274", "Virgo A,Vir A,M87,J1230+1223", "12:30:49.423 +12:23:28.04", (2.4466, -0.8116, -0.0483), (0.05, 3), 840
    ),
    _source(
        "3C286", "J1331+3030,1331+305,1328+307", "13:31:08.2880 +30:30:32.960",
        (1.2481, -0.4507, -0.1798, 0.0357), _WHOLE, 3,
    ),
    _source(
        "3C295", "J1411+5212,1411+522,1409+524", "14:11:20.519 +52:12:09.97",
        (1.4701, -0.7658, -0.2780, -0.0347, 0.0399), _WHOLE, 5,
    ),
    _source(
        "3C348", "Hercules A,Her A,J1651+0459", "16:51:08.147 +04:59:33.32", (1.8298, -1.0247, -0.0951), (0.2, 12), 190
    ),
    _source("3C353", "J1720-0059", "17:20:28.158 -00:58:46.62", (1.8627, -0.6938, -0.0998, -0.0732), (0.2, 4), 320),
    _source(
        "3C380", "J1829+4845,J1829+4844,1829+487,1828+487", "18:29:31.7248 +48:44:46.952",
        (1.2320, -0.7909, 0.0947, 0.0976, -0.1794, -0.1566), (0.05, 4), 20,
    ),
    _source(
        "3C405", "Cygnus A,Cyg A,J1959+4044", "19:59:28.357 +40:44:02.10",
        (3.3498, -1.0022, -0.2246, 0.0227, 0.0425), (0.05, 12), 120,
    ),
    _source("3C444", "J2214-1701", "22:14:25.752 -17:01:36.29", (1.1064, -1.0052, -0.0750, -0.0767), (0.2, 12), 120),
    _source(
        "3C461", "Cassiopeia A,Cas A,J2323+5848", "23:23:27.94 +58:48:42.4", (3.3584, -0.7518, -0.0347, -0.0705),
        (0.2, 4), 480,
    ),
)  # fmt: skip
"""All twenty of the table.  Where they are is from the VLA's list of calibrators and from NED."""


def flux_calibrator(name: str) -> FluxCalibrator:
    """The source of that name, or of another name that it is known by; spaces, dashes and capitals do not matter.

    Raises ValidationError for others.
    """
    known = {_plain(each): source for source in FLUX_CALIBRATORS for each in (source.name, *source.aliases)}
    if _plain(name) not in known:
        told = ", ".join(source.name for source in FLUX_CALIBRATORS)
        raise ValidationError(
            f"{name!r} is no calibrator of the scale of Perley and Butler (2017)", advice=f"these are {told}"
        )
    return known[_plain(name)]


def _plain(name: str) -> str:
    """3C 286, 3c_286 are 3C286; a minus of a declination counts, so it stays in names that have figures around it."""
    text = name.strip().upper().replace("_", " ")
    if any(sign in text[1:] for sign in "+-") and any(each.isdigit() for each in text.split("-")[-1]):
        return text.replace(" ", "")
    return text.replace(" ", "").replace("-", "")
