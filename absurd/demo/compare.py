"""What came out of the night against what went in (pure but for the files that it reads)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from absurd.demo.plan import NEW
from absurd.demo.telescope import Pointing

SCALE = 0.02
"""Of a flux density: what the gains of one transit leave.  It is added in quadrature to the errors of the noise."""
WITHIN_ARCSEC = 20.0
"""A source is where it was put in, to so much."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """A source in one recording; Jy, at the middle of the band."""

    begin: str
    injected_jy: float
    measured_jy: float
    error_jy: float
    detected: bool
    limit_jy: float | None

    @property
    def deviation(self) -> float:
        """Of the measured from the injected, in errors."""
        return (self.measured_jy - self.injected_jy) / self.error_jy


@dataclass(frozen=True, slots=True)
class Source:
    """A source of the night."""

    name: str
    field: str
    """Name of the calibrator that transits in it."""
    ra: float
    """Degrees, ICRS, as `dec`."""
    dec: float
    epochs: tuple[Epoch, ...]
    """Those in which it was measured."""
    found_as: str | None
    """Name in the catalogue of the night; None for one that was not found."""
    kind: str
    """What the pipeline takes it for: steady, variable, transient; empty where it does not judge."""

    @property
    def injected_jy(self) -> float:
        """Mean over its epochs."""
        return float(np.mean([each.injected_jy for each in self.epochs])) if self.epochs else math.nan

    @property
    def measured_jy(self) -> float:
        """Mean over its epochs."""
        return float(np.mean([each.measured_jy for each in self.epochs])) if self.epochs else math.nan

    @property
    def error_jy(self) -> float:
        """Of that mean: noise averages out, the scale does not."""
        if not self.epochs:
            return math.nan
        scale = SCALE * abs(self.measured_jy)
        noise = [max(0.0, each.error_jy**2 - (SCALE * each.measured_jy) ** 2) for each in self.epochs]
        return math.hypot(math.sqrt(sum(noise)) / len(noise), scale)

    @property
    def deviation(self) -> float:
        """Of the measured mean from the injected, in errors."""
        return (self.measured_jy - self.injected_jy) / self.error_jy


@dataclass(frozen=True, slots=True)
class Comparison:
    """All sources that were put in, and what else was found."""

    sources: tuple[Source, ...]
    strange: tuple[str, ...]
    """Names of catalogued sources where none was put in: sidelobes."""

    @property
    def worst(self) -> float:
        """Largest deviation of a source, in errors, without sign."""
        return max((abs(each.deviation) for each in self.sources if each.epochs), default=math.nan)


def compare(
    pointings: Sequence[Pointing], photometry: Iterable[str | Path], variability: Iterable[str | Path]
) -> Comparison:
    """Match what `photometry.forced` and `photometry.variability` wrote with what shone."""
    from pyarrow import parquet

    rows = [row for path in photometry for row in parquet.read_table(path).to_pylist()]
    kinds = {row["source_id"]: row["kind"] for path in variability for row in parquet.read_table(path).to_pylist()}
    places = {row["source_id"]: (row["ra"], row["dec"]) for row in rows}
    found: list[Source] = []
    taken: set[str] = set()
    for pointing in pointings:
        for each in pointing.recording.sources:
            name = _nearest(places, each.ra, each.dec)
            own = [row for row in rows if row["source_id"] == name]
            taken |= {name} if name else set()
            epochs = tuple(_epochs(pointing, each, own))
            kind = kinds.get(name, "") if name else ""
            found.append(Source(each.name, pointing.place.calibrator, each.ra, each.dec, epochs, name, kind))
    return Comparison(tuple(found), tuple(sorted(set(places) - taken)))


def _epochs(pointing: Pointing, source: Any, rows: Sequence[Mapping[str, Any]]) -> Iterable[Epoch]:
    middle = np.asarray(np.mean(pointing.recording.frequencies_hz))
    for number in range(pointing.place.recordings):
        begin = f"{pointing.recording.stamp(number, 0):%Y-%m-%dT%H:%M:%S}"
        lit = [each for each in pointing.at(number).sources if each.name == source.name]
        truth = float(lit[0].flux_at_jy(middle)) if lit else 0.0
        for row in rows:
            if Path(row["image"]).name.startswith(begin) and row["flux_jy"] is not None:
                error = math.hypot(row["error_jy"], SCALE * row["flux_jy"])
                yield Epoch(begin, truth, row["flux_jy"], error, bool(row["detected"]), row["upper_limit_jy"])


def _nearest(places: Mapping[str, tuple[float, float]], ra: float, dec: float) -> str | None:
    def apart(place: tuple[float, float]) -> float:
        east = (place[0] - ra + 180) % 360 - 180
        return 3600 * math.hypot(east * math.cos(math.radians(dec)), place[1] - dec)

    near = min(places, key=lambda name: apart(places[name]), default=None)
    return near if near is not None and apart(places[near]) <= WITHIN_ARCSEC else None


def new_one(comparison: Comparison) -> Source | None:
    """The source that was not there before."""
    return next((each for each in comparison.sources if each.name == NEW), None)
