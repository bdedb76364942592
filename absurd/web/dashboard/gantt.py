"""The drawing of a workflow over time: a bar for each task (pure; lengths in pixels at full size)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from absurd.web.dashboard.axis import time_marks
from absurd.web.dashboard.words import moment

LEFT, RIGHT = 170, 900
"""Between these is the time."""
ROW = 20
TOP = 26
MOST = 200
"""Bars at most: those that began first."""


@dataclass(frozen=True)
class Bar:
    """A task from its first start to its end, or until now."""

    node: Mapping[str, Any]
    x: float
    y: float
    width: float
    begin: datetime
    end: datetime


@dataclass(frozen=True)
class Chart:
    """Bars and marks of the time."""

    height: float
    bars: list[Bar]
    marks: list[tuple[float, str]]
    left_out: int
    """How many tasks have begun for which there is no room."""


def chart(nodes: Sequence[Mapping[str, Any]], begin: str, end: str | None, now: datetime) -> Chart:
    """Those of the nodes that have begun, in the order in which they did."""
    low, high = moment(begin), moment(end) if end else now
    begun = sorted((each for each in nodes if each["started_at"]), key=lambda each: moment(each["started_at"]))
    ends = [moment(each["finished_at"]) if each["finished_at"] else now for each in begun]
    high = max([high, *ends]) if end is None else high
    scale = (RIGHT - LEFT) / max((high - low).total_seconds(), 1e-3)
    bars = []
    for place, (each, until) in enumerate(zip(begun[:MOST], ends, strict=False)):
        since = moment(each["started_at"])
        x = LEFT + scale * max((since - low).total_seconds(), 0)
        width = max(scale * (until - since).total_seconds(), 2)
        bars.append(Bar(each, x, TOP + place * ROW, min(width, RIGHT - x + 2), since, until))
    marks = [(LEFT + at * (RIGHT - LEFT), told) for at, told in time_marks(low, high)]
    return Chart(TOP + len(bars) * ROW + 6, bars, marks, max(len(begun) - MOST, 0))
