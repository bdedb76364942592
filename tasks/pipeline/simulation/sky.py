"""The sky that is simulated: sources that are points, by ICRS position, flux and spectral index."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.radio.errors import DataError, ValidationError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Source:
    """A point whose flux is flux_jy (frequency / reference_hz)^spectral_index, the same in both polarisations."""

    name: str
    ra: float
    """Degrees, ICRS, as `dec`."""
    dec: float
    flux_jy: float
    spectral_index: float = 0.0
    reference_hz: float = 1.4e9

    def flux_at_jy(self, frequency_hz: Floats) -> Floats:
        """At frequencies in Hz."""
        value: Floats = self.flux_jy * (np.asarray(frequency_hz) / self.reference_hz) ** self.spectral_index
        return value


def _degrees(hours: str, degrees: str) -> tuple[float, float]:
    """From ``hh mm ss.s`` and ``±dd mm ss.s``."""
    h, m, s = (float(each) for each in hours.split())
    sign = -1 if degrees.startswith("-") else 1
    d, minutes, seconds = (float(each) for each in degrees.lstrip("+-").split())
    return 15 * (h + m / 60 + s / 3600), sign * (d + minutes / 60 + seconds / 3600)


CALIBRATORS = {
    name: Source(name, *_degrees(hours, degrees), flux, index)
    for name, hours, degrees, flux, index in (
        ("3C48", "01 37 41.2995", "+33 09 35.133", 16.23, -0.85),
        ("3C138", "05 21 09.8860", "+16 38 22.051", 8.57, -0.54),
        ("3C147", "05 42 36.1379", "+49 51 07.234", 22.32, -0.74),
        ("0834+555", "08 34 54.9039", "+55 34 21.071", 8.80, -0.10),
        ("3C286", "13 31 08.2881", "+30 30 32.959", 15.05, -0.50),
        ("3C454.3", "22 53 57.7479", "+16 08 53.561", 12.50, 0.00),
    )
}
"""Places of the VLA calibrator manual, fluxes at 1.4 GHz and slopes there: the first of Perley and Butler (2017)."""


def calibrator(name: str) -> Source:
    """The source of that name.  Raises ValidationError for others."""
    if name not in CALIBRATORS:
        raise ValidationError(f"calibrator {name!r} is not known", advice=f"take one of {', '.join(CALIBRATORS)}")
    return CALIBRATORS[name]


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
        Source(f"S{at:04d}", float(ra), float(dec), float(flux), float(index), reference_hz)
        for at, (ra, dec, flux, index) in enumerate(zip(ascensions, declinations, fluxes, indices, strict=True))
    ]


def read_sky(path: str | Path) -> list[Source]:
    """The sources of a CSV file with columns ra, dec, flux_jy and perhaps spectral_index, reference_hz, name.

    Raises DataError for a file that cannot be read so, with the line.
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
    numbers = {}
    for column in ("ra", "dec", "flux_jy", "spectral_index", "reference_hz"):
        text = row.get(column)
        if not text and column in ("spectral_index", "reference_hz"):
            continue
        try:
            numbers[column] = float(text or "")
        except ValueError:
            raise DataError(f"{where}: {column} is {text!r}, no number") from None
        if not math.isfinite(numbers[column]):
            raise DataError(f"{where}: {column} is {text}")
    if not -90 <= numbers["dec"] <= 90:
        raise DataError(f"{where}: dec is {numbers['dec']:g}, beyond the pole")
    return Source(row.get("name") or name, **numbers)


def write_sky(sources: Sequence[Source], path: Path) -> None:
    """As `read_sky` reads it, with every digit."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, [each.name for each in fields(Source)], lineterminator="\n")
        rows.writeheader()
        rows.writerows(asdict(each) for each in sources)
