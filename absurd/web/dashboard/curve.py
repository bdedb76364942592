"""The drawing of a light curve: flux densities with their errors, and limits (pure; lengths in pixels at full size)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from absurd.web.dashboard.axis import number_marks, time_marks
from absurd.web.dashboard.words import moment

LEFT, RIGHT, TOP, BOTTOM = 64, 880, 12, 300
"""The frame."""


@dataclass(frozen=True)
class Point:
    """A measurement: a flux density with its error, or a limit, which lies above what was there."""

    row: Mapping[str, Any]
    x: float
    y: float
    low: float
    high: float
    """Ends of the error bar; of a limit both are its y."""
    limit: bool


@dataclass(frozen=True)
class Curve:
    """Points, and marks of both axes."""

    points: list[Point]
    times: list[tuple[float, str]]
    fluxes: list[tuple[float, str]]
    unit: str
    left_out: int
    """How many measurements tell neither a flux density nor a limit, or no time."""


def draw(rows: Sequence[Mapping[str, Any]]) -> Curve:
    """A light curve of rows of photometry, flux densities in Jy/beam."""
    told = [(when, *value, each) for each in rows if (when := _time(each)) and (value := _value(each)) is not None]
    if not told:
        return Curve([], [], [], "mJy/beam", len(rows))
    begin, end = min(each[0] for each in told), max(each[0] for each in told)
    margin = (end - begin) * 0.03 or timedelta(minutes=30)
    begin, end = begin - margin, end + margin
    low = min(0.0, *(flux - error for _, flux, error, _ in told))
    high = max(flux + error for _, flux, error, _ in told)
    high = high + 0.06 * (high - low) if high > low else low + 1e-6
    factor, unit = (1.0, "Jy/beam") if high >= 1 else (1e3, "mJy/beam") if high >= 1e-3 else (1e6, "µJy/beam")

    def across(when: datetime) -> float:
        return LEFT + (RIGHT - LEFT) * ((when - begin) / (end - begin))

    def down(flux: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (flux - low) / (high - low)

    points = [
        Point(each, across(when), down(flux), down(flux - error), down(flux + error), not each["detected"])
        for when, flux, error, each in told
    ]
    times = [(LEFT + at * (RIGHT - LEFT), text) for at, text in time_marks(begin, end)]
    fluxes = [(down(each / factor), f"{each:g}") for each in number_marks(low * factor, high * factor)]
    return Curve(points, times, fluxes, unit, len(rows) - len(told))


def _time(row: Mapping[str, Any]) -> datetime | None:
    """When it was observed; an image that does not tell is of ``-infinity``."""
    return None if row["observed_at"] in (None, "-infinity") else moment(row["observed_at"])


def _value(row: Mapping[str, Any]) -> tuple[float, float] | None:
    if row["detected"]:
        return None if row["flux_jy"] is None else (row["flux_jy"], row["error_jy"] or 0.0)
    return None if row["upper_limit_jy"] is None else (row["upper_limit_jy"], 0.0)
