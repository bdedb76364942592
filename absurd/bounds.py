"""What the database takes from a run, checked where the run says it."""

from __future__ import annotations

from datetime import timedelta

from absurd.errors import InvalidNameError, InvalidOptionError

LONGEST_SECONDS = 10 * 31_536_000.0
LONGEST_NAME = 500


def check_word(kind: str, name: str) -> None:
    """Raise InvalidNameError for what no step, event or file can be called."""
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidNameError(
            f"{kind} name {name!r:.100} is not a text of 1 to {LONGEST_NAME} printable characters", name=name
        )


def check_seconds(option: str, value: float | timedelta) -> float:
    """A length of time in seconds; raises InvalidOptionError for one that is negative or longer than ten years."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise InvalidOptionError(
            f"{option} is {value!r}; it must be from 0 to {LONGEST_SECONDS:.0f} seconds", option=option
        )
    return seconds
