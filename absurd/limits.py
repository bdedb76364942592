"""Limits of queues: what people write, as the database takes it, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypedDict

from absurd.call import Call, Row
from absurd.encoding import decode, encode
from absurd.errors import InvalidOptionError

PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
"""Words for the time of a rate, in seconds."""


class QueueLimits(TypedDict, total=False):
    """Limits of a queue.  What is left out stays as it is; None lifts it."""

    running: int | None
    """How many of the queue's tasks run at once."""
    per_lane: int | None
    """How many tasks of one lane run at once; tasks without a lane are not held to it."""
    rate: str | tuple[int, float | timedelta] | None
    """How many start in a time: "100/minute", "5/30" (seconds), or (100, 60)."""
    fair: bool | None
    """Whether lanes take turns, instead of going by priority and order alone."""


def set_queue_limits(name: str, limits: QueueLimits) -> Call[dict[str, Any]]:
    """Change limits of a queue; gives those now in force.  Raises QueueNotFoundError, InvalidOptionError."""
    given: dict[str, Any] = dict(limits)
    if "rate" in given:
        given["rate"], given["rate_seconds"] = read_rate(given["rate"])
    text = encode(given, "limits", error=InvalidOptionError)
    return Call("select {schema}.set_queue_limits($1::text, $2::text::jsonb)::text as limits", (name, text), _limits)


def read_rate(rate: Any) -> tuple[int | None, float | None]:
    """A rate as (starts, seconds).  Raises InvalidOptionError."""
    if rate is None:
        return None, None
    parts: Any = rate.split("/") if isinstance(rate, str) else rate
    count, period = parts if isinstance(parts, Sequence) and len(parts) == 2 else (None, None)
    seconds = period.total_seconds() if isinstance(period, timedelta) else PERIODS.get(str(period), period)
    if re.fullmatch(r"\d{1,9}", str(count)) and re.fullmatch(r"\d{1,9}(\.\d+)?", str(seconds)):
        return int(str(count)), float(str(seconds))
    raise InvalidOptionError(
        f"limit rate is {rate!r}; write so many starts in a time: '100/minute', or '5/30' for 5 in 30 seconds",
        option="rate",
    )


def tell_limits(limits: Mapping[str, Any]) -> str:
    """Limits in force in few words; empty where there are none."""
    words = []
    if "running" in limits:
        words.append(f"{limits['running']} running")
    if "per_lane" in limits:
        words.append(f"{limits['per_lane']} per lane")
    if "rate" in limits:
        seconds = limits["rate_seconds"]
        names = {length: word for word, length in PERIODS.items()}
        words.append(f"{limits['rate']}/{names.get(seconds) or f'{seconds:g} s'}")
    if limits.get("fair"):
        words.append("lanes in turn")
    return ", ".join(words)


def _limits(rows: Sequence[Row]) -> dict[str, Any]:
    return dict(decode(rows[0]["limits"]))
