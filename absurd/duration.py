"""Spans of time as people write them."""

from __future__ import annotations

import re

from absurd.errors import InvalidOptionError

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|min|[smhdw])")


def seconds(text: str) -> float:
    """Seconds (``90``, ``0.5``) or numbers with their units (``90s``, ``15m``, ``1h30m``, ``2d``).

    Raises InvalidOptionError for what is none.
    """
    plain = re.sub(r"\s", "", str(text).lower())
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        return float(plain)
    parts = _PART.findall(plain)
    if not parts or plain != "".join(number + unit for number, unit in parts):
        raise InvalidOptionError(f"{text!r} is not a duration; write 90, 90s, 15m, 1h30m or 2d", option="duration")
    return sum(float(number) * UNITS[unit] for number, unit in parts)
