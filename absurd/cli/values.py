"""What people type, as values: durations, times, JSON, ``key=value``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import click

from absurd import duration
from absurd.errors import InvalidOptionError, InvalidParamsError


def seconds(text: str) -> float:
    """A duration as an option: see `absurd.duration.seconds`."""
    try:
        return duration.seconds(text)
    except InvalidOptionError as error:
        raise click.BadParameter(error.message) from None


def amount(text: str) -> float:
    """A number as an option: see `read_amount`."""
    try:
        return read_amount(text)
    except InvalidOptionError as error:
        raise click.BadParameter(error.message) from None


def read_amount(text: str) -> float:
    """A number, a share such as 10%, or a duration such as 15m in seconds.  Raises InvalidOptionError."""
    plain = text.strip()
    try:
        return float(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
    except ValueError:
        return duration.seconds(text)


def instant(text: str) -> datetime:
    """A time in ISO 8601, aware; without an offset it is in the zone of this machine."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is not a time; write 2027-01-31T21:30 or 2027-01-31T21:30:00Z") from None


def read_params(words: Sequence[str], document: str | None) -> Any:
    """Params from ``key=value`` words, or from the document that ``--params`` names."""
    if document is None:
        return pairs(words, "a parameter")
    if words:
        raise click.UsageError("Give parameters either as key=value or with --params, not both")
    return read_document(document, "--params")


def pairs(words: Sequence[str], what: str) -> dict[str, Any]:
    """``key=value`` words as a dict; a value that is JSON is read as JSON, any other is a text."""
    found: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign or not key:
            raise click.UsageError(f"{word!r} is not {what}; write key=value")
        if key in found:
            raise click.UsageError(f"{key!r} is given twice")
        found[key] = value_of(value)
    return found


def value_of(text: str) -> Any:
    """`text` as JSON where it is JSON, else `text` itself."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def read_document(source: str, option: str) -> Any:
    """JSON given as text, as ``@FILE``, or as ``-`` for stdin."""
    place = option
    try:
        if source == "-":
            place, source = "stdin", sys.stdin.read()
        elif source.startswith("@"):
            place, source = source[1:], Path(source[1:]).read_text(encoding="utf-8")
        return json.loads(source, parse_constant=_refuse)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParamsError(f"{option} cannot be read from {place}: {error}", source=place) from error
    except ValueError as error:
        told = option if place == option else f"{option} from {place}"
        raise InvalidParamsError(f"{told} is not JSON: {error}", source=place) from error


def local_now() -> datetime:
    """Now, with the zone of this machine."""
    return datetime.now().astimezone()


def seconds_since(time: str | datetime | None) -> float | None:
    """How long ago a time was; None for None."""
    if time is None:
        return None
    then = datetime.fromisoformat(time) if isinstance(time, str) else time
    return max(timedelta(), local_now() - then).total_seconds()


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not allowed in JSON")
