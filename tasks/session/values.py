"""Values from outside in the form in which journal and file keep them: what JSON holds, and NaN and infinities."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

from absurd.tasks.session.errors import SessionValueError

LONGEST_NAME = 200
"""Characters of a key: YAML reads none longer than 1,024."""
LARGEST_ARRAY = 4096
"""Elements of an array among values; larger ones are frames."""
LARGEST = 16 << 20
"""Bytes of one entry as JSON."""
LONGEST_REPR = 1000
DEEPEST = 32

_SIMPLE = frozenset([float, bool, type(None)])

_LARGEST_INTEGER = 1 << 63  # of ASDF
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode(value: Any, name: str) -> bytes:
    """A value as JSON in UTF-8; NaN and infinities stand in it as Python writes them.

    Text, numbers, booleans and None stay as they are; mappings and sequences stay, with keys as text.  Numpy scalars
    become numbers, arrays of up to 4,096 elements lists, sets sorted lists, enumerations their values, dataclasses
    mappings.  Times become ISO 8601, in UTC if they have a zone, durations seconds; paths, UUIDs, decimals and
    quantities with units text, bytes hexadecimal digits; integers beyond 64 bits text.  Exceptions become their type
    and message, any other object its `repr`, cut at 1,000 characters.  Lone surrogates in text are
    written out, as a backslash and ``ud800``.

    Raises SessionValueError, which names the place, for larger arrays, keys of more than 200 characters, nesting of
    more than 32 levels (such as a list within itself), and more than 16 MiB in all.
    """
    try:
        data = _json(plain(value, name)).encode()
    except (RecursionError, MemoryError) as error:
        raise SessionValueError(f"{name} cannot be written: {type(error).__name__}", name=name) from error
    if len(data) > LARGEST:
        raise SessionValueError(f"{name} has {len(data):,} bytes, more than {LARGEST:,}; keep it as a frame", name=name)
    return data


def plain(value: Any, name: str, depth: int = 0) -> Any:
    """`value` in the form that `encode` tells.  Raises SessionValueError."""
    if _is_plain(value):
        return value
    if type(value) is str:
        return _text(value)
    if type(value) is int:
        return str(value)
    if depth >= DEEPEST:
        raise SessionValueError(f"{name} is nested more than {DEEPEST} deep, or within itself", name=name)
    if type(value) is dict or isinstance(value, Mapping):
        made = {}
        for key, each in value.items():
            text = key if type(key) is str and key.isascii() and len(key) <= LONGEST_NAME else key_of(key, name)
            made[text] = each if _is_plain(each) else plain(each, f"{name}.{text}", depth + 1)
        return made
    if isinstance(value, AbstractSet):
        return sorted((plain(each, name, depth + 1) for each in value), key=lambda each: (str(type(each)), str(each)))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview):
        return [plain(each, f"{name}[{at}]", depth + 1) for at, each in enumerate(value)]
    return _converted(value, name, depth)


def _is_plain(value: Any) -> bool:
    """Whether a value stays as it is, as most do."""
    kind = type(value)
    if kind is str:
        return bool(value.isascii())
    return kind in _SIMPLE or (kind is int and -_LARGEST_INTEGER <= value < _LARGEST_INTEGER)


def key_of(key: Any, name: str) -> str:
    """A key as text.  Raises SessionValueError for one of more than 200 characters."""
    text = _text(key if type(key) is str else str(plain(key, name, DEEPEST - 1)))
    if len(text) > LONGEST_NAME:
        raise SessionValueError(f"{name} has a key of {len(text):,} characters, more than {LONGEST_NAME}", name=name)
    return text


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _converted(value: Any, name: str, depth: int) -> Any:
    if isinstance(value, Enum):
        return plain(value.value, name, depth + 1)
    if isinstance(value, bool | int | float):
        return plain(int(value) if isinstance(value, int) else float(value), name)
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str | PurePath | UUID | Decimal | Fraction):
        return _text(str(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, BaseException):
        return _text(f"{type(value).__name__}: {value}")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return plain(fields, name, depth)
    if hasattr(value, "unit") and hasattr(value, "dtype"):  # a quantity: the number alone would say something else
        return _text(str(value))
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return _array(value, name, depth)
    return _shown(value)


def _array(value: Any, name: str, depth: int) -> Any:
    """A scalar or small array of numpy, or of what is like it."""
    kind = value.dtype.kind
    if value.size > LARGEST_ARRAY:
        raise SessionValueError(
            f"{name} is an array of {value.size:,} elements, more than {LARGEST_ARRAY:,} are no value: "
            "add_frame and add_calibration keep arrays",
            name=name,
        )
    if value.shape == ():
        scalar = {"f": float, "i": int, "u": int, "b": bool}.get(kind, str)
        return plain(scalar(value), name, depth + 1)
    made = value.astype(str) if kind in "mMc" else value  # times in nanoseconds would become bare integers
    return plain(made.tolist(), name, depth + 1)


def _shown(value: Any) -> str:
    try:
        told = value.isot if isinstance(getattr(value, "isot", None), str) else repr(value)
    except Exception as error:
        told = f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
    return _text(told if len(told) <= LONGEST_REPR else told[: LONGEST_REPR - 1] + "…")


def moment(value: datetime | int) -> str:
    """A time, or nanoseconds since 1970 UTC, in ISO 8601 to the microsecond; one with a zone in UTC, ending in Z."""
    if isinstance(value, int):
        seconds, nanoseconds = divmod(value, 1_000_000_000)
        value = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1000)
    if value.tzinfo is None:
        return value.isoformat()
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
