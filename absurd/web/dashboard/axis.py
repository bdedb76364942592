"""Axes of drawings: round values between two ends, for times, numbers and powers of ten (pure)."""

from __future__ import annotations

import math
from datetime import UTC, datetime

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
"""Between marks of times, in seconds; of longer times multiples of a day."""


def time_marks(begin: datetime, end: datetime, most: int = 7) -> list[tuple[float, str]]:
    """Where on the way from `begin` (0) to `end` (1) round times lie, and what they are in UTC; `most` of them."""
    span = max((end - begin).total_seconds(), 1e-3)
    step = next((each for each in _STEPS if span / each < most), 86_400 * math.ceil(span / 86_400 / most))
    shape = "%Y-%m-%d" if step >= 86_400 else "%H:%M" if step >= 60 else "%H:%M:%S"
    first = math.ceil(begin.timestamp() / step) * step
    marks = []
    for count in range(most + 1):
        at = first + count * step
        if at > end.timestamp():
            break
        told = datetime.fromtimestamp(at, UTC)
        midnight = step < 86_400 <= span and at % 86_400 == 0
        marks.append(((at - begin.timestamp()) / span, told.strftime("%m-%d" if midnight else shape)))
    return marks


def number_marks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, `most` of them."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(each * power for each in (1, 2, 5, 10, 20) if span / (each * power) <= most)
    return [
        round(count * step, 12) for count in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]
