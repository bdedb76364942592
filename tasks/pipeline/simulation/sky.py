"""The sky that is simulated: sources that are points, by ICRS position, flux and spectrum."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.flux_scale import FLUX_CALIBRATORS
from absurd.tasks.calibration.sky_model import Component, calibrator_component
from absurd.tasks.radio.errors import DataError, ValidationError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Source:
    """A point, the same in both polarisations.

    Its flux is flux_jy * 10^(a1 x + a2 x^2 + ...) with x = log10(frequency / reference_hz), and a1 (the spectral
    index), a2, ... of `spectrum`: as components of a `SkyModel` have it.
    """

    name: str
    ra: float
    """Degrees, ICRS, as `dec`."""
    dec: float
    flux_jy: float
    spectrum: tuple[float, ...] = ()
    reference_hz: float = 1.4e9

    def flux_at_jy(self, frequency_hz: Floats) -> Floats:
        """At frequencies in Hz."""
        x = np.log10(np.asarray(frequency_hz) / self.reference_hz)
        exponent = np.polynomial.polynomial.polyval(x, (0.0, *self.spectrum))
        value: Floats = self.flux_jy * np.power(10.0, exponent, dtype=np.float64)
        return value

    def as_component(self) -> Component:
        """The same, of a model of the sky that gains are solved against."""
        ra, dec = math.radians(self.ra), math.radians(self.dec)
        return Component(self.name, ra, dec, self.flux_jy, self.reference_hz, self.spectrum)


OTHERS = {
    each.name: each
    for each in (
        Source("0834+555", 128.7287663, 55.5725197, 8.80, (-0.10,)),
        Source("3C454.3", 343.4906163, 16.1482114, 12.50),
    )
}
"""Calibrators beside those of Perley and Butler: places and fluxes of the VLA calibrator manual, at 1.4 GHz."""


def calibrator(name: str) -> Source:
    """The source of that name: one of the scale of Perley and Butler (2017), or of `OTHERS`.

    Raises ValidationError for others.
    """
    if name in OTHERS:
        return OTHERS[name]
    try:
        found = calibrator_component(name)
    except ValidationError:
        known = ", ".join([*OTHERS, *(each.name for each in FLUX_CALIBRATORS)])
        raise ValidationError(f"calibrator {name!r} is not known", advice=f"take one of {known}") from None
    ra, dec = math.degrees(found.ra_rad), math.degrees(found.dec_rad)
    return Source(found.name, ra, dec, found.flux_jy, found.spectrum, found.reference_hz)


def draw(
    random: np.random.Generator,
    number: int,
    *,
    ra_deg: tuple[float, float],
    dec_deg: float,
    radius_deg: float,
    flux_jy: tuple[float, float],
    reference_hz: float,
    counts_index: float = -1.5,
) -> list[Source]:
    """Sources around the arc of constant declination from one right ascension to another (the second not the less).

    They are evenly spread within `radius_deg` of it, as far as the sky goes; fluxes have N(> S) falling with S to
    the power of `counts_index`, and spectral indices are -0.7 with a scatter of 0.2.
    """
    low, high = (math.sin(math.radians(min(90, max(-90, dec_deg + each)))) for each in (-radius_deg, radius_deg))
    declinations = np.degrees(np.arcsin(random.uniform(low, high, number)))
    margin = min(180.0, radius_deg / max(math.cos(math.radians(dec_deg)), 1e-3))
    ascensions = random.uniform(ra_deg[0] - margin, ra_deg[1] + margin, number) % 360
    faint, bright = (each**counts_index for each in flux_jy)
    fluxes = (faint + random.uniform(0, 1, number) * (bright - faint)) ** (1 / counts_index)
    indices = random.normal(-0.7, 0.2, number)
    return [
        Source(f"S{at:04d}", float(ra), float(dec), float(flux), (float(index),), reference_hz)
        for at, (ra, dec, flux, index) in enumerate(zip(ascensions, declinations, fluxes, indices, strict=True))
    ]


def read_sky(path: str | Path) -> list[Source]:
    """The sources of a CSV file with columns ra, dec, flux_jy and perhaps spectrum, reference_hz, name.

    A spectrum is a1, or a1 a2 ... with blanks between.  Raises DataError for a file that cannot be read so, with the
    line.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if missing := {"ra", "dec", "flux_jy"} - set(rows.fieldnames or ()):
                raise DataError(f"{path} has no column {', '.join(sorted(missing))}", path=str(path))
            return [_source(row, f"{path}, line {rows.line_num}", f"S{at:04d}") for at, row in enumerate(rows)]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table: {error}", path=str(path)) from error


def _source(row: dict[str, str | None], where: str, name: str) -> Source:
    def number(column: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise DataError(f"{where}: {column} is {text!r}, no number") from None
        if not math.isfinite(value):
            raise DataError(f"{where}: {column} is {text}")
        return value

    ra, dec, flux = (number(each, row[each] or "") for each in ("ra", "dec", "flux_jy"))
    if not -90 <= dec <= 90:
        raise DataError(f"{where}: dec is {dec:g}, beyond the pole")
    reference = number("reference_hz", row.get("reference_hz") or "1.4e9")
    if reference <= 0:
        raise DataError(f"{where}: reference_hz is {reference:g}, and not above 0")
    spectrum = tuple(number("spectrum", each) for each in (row.get("spectrum") or "").split())
    return Source(row.get("name") or name, ra, dec, flux, spectrum, reference)


def write_sky(sources: Sequence[Source], path: Path) -> None:
    """As `read_sky` reads it, with every digit."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, [each.name for each in fields(Source)], lineterminator="\n")
        rows.writeheader()
        rows.writerows(asdict(each) | {"spectrum": " ".join(map(repr, each.spectrum))} for each in sources)
