"""Spans of time as people write them."""

from __future__ import annotations

import re

from absurd.errors import InvalidOptionError

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PART = re.compile(rf"\s*({_NUMBER})\s*(ms|min|[smhdw])")
LONGEST = 100
"""Characters of a text."""


def seconds(text: str) -> float:
    """Seconds (``90``, ``0.5``) or numbers with their units (``90s``, ``15m``, ``1h30m``, ``2d``).

    Raises InvalidOptionError for what is none.
    """
    plain = str(text).lower().strip()
    if len(plain) <= LONGEST and re.fullmatch(_NUMBER, plain):
        return float(plain)
    # Spaces part numbers from units, and parts from parts, but no number: 1 30 m is not 130 minutes.
    if len(plain) > LONGEST or not re.fullmatch(rf"(?:{_PART.pattern})+", plain):
        raise InvalidOptionError(
            f"{_short(text)} is not a duration; write 90, 90s, 15m, 1h30m or 2d", option="duration"
        )
    parts = _PART.findall(plain)
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _short(text: str) -> str:
    return repr(text if len(str(text)) <= LONGEST else f"{str(text)[:LONGEST]}…")
