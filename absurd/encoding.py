"""Values to the JSON text that the database stores.

What JSON has, is stored as it is.  Beyond that:

=================================  ==============================================================
NaN and infinities                 the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``
numpy scalars and arrays           their Python value; arrays become nested lists
paths, UUIDs, Decimals             their text
datetimes, dates, times            ISO 8601 text, with the offset where there is one
timedeltas                         seconds, as a number
bytes                              base64 text
enum members                       their value
tuples, sets                       lists; sets in the order of their elements' JSON texts
dataclasses, pydantic models       objects
keys that are not strings          the text of what their value would be stored as
=================================  ==============================================================

They come back as what is named here, not as what they were.  The database keeps JSON numbers
exactly but without exponents: 1e22 comes back as the int 10000000000000000000000, which is the same
number.  The character NUL and lone surrogates cannot be stored: they are refused, or replaced by
U+FFFD where `replace` is set.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from absurd.errors import AbsurdError, InvalidParamsError, PayloadTooLargeError, ResultError

LIMIT = 1 << 20
"""Largest JSON text of params, of headers and of a result, in bytes of UTF-8 (1 MiB)."""

_UNSTORABLE = re.compile("[\\x00\\ud800-\\udfff]")
_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class _NotJson(Exception):
    """A value that has no documented form; `path` leads to it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


def encode(
    value: Any,
    what: str = "params",
    *,
    limit: int | None = LIMIT,
    replace: bool = False,
    error: type[AbsurdError] = InvalidParamsError,
) -> str:
    """`value` as JSON text; `what` is what messages call it.

    Raises `error` for a value without a JSON form, naming the place, and PayloadTooLargeError when
    the text is longer than `limit` bytes (None: no limit).
    """
    text = ""
    try:
        text = _dumps(value)
        storable = "\\u0000" not in text and (text.isascii() or not _UNSTORABLE.search(text))
    except (TypeError, ValueError, RecursionError):
        storable = False
    if not storable:  # or a text that spells out an escaped NUL
        try:
            text = _dumps(_plain(value, what, replace))
        except _NotJson as reason:
            raise error(str(reason)) from None
        except (ValueError, RecursionError):
            raise error(f"{what}: nested too deeply, within itself, or a number of thousands of digits") from None
    if limit is not None and len(text) * 4 > limit:
        check_size(text, what, limit)
    return text


def encode_result(value: Any, *, limit: int | None = LIMIT) -> str | None:
    """A run's result as JSON text, None for None.

    Characters that cannot be stored are replaced, so that they do not spoil the work done.  Raises
    ResultError for a value without a JSON form, PayloadTooLargeError for one that is too large.
    """
    return None if value is None else encode(value, "result", limit=limit, replace=True, error=ResultError)


def check_size(text: str, what: str, limit: int = LIMIT) -> None:
    """Raise PayloadTooLargeError if `text` has more than `limit` bytes in UTF-8."""
    size = len(text) if text.isascii() else len(text.encode("utf-8"))
    if size > limit:
        raise PayloadTooLargeError(
            f"{what}: {size} bytes of JSON, more than the {limit} that are stored; put it in a file and pass the path",
            size=size,
            limit=limit,
        )


def decode(text: str | None) -> Any:
    """The value of a JSON text; None for an SQL null.

    An integer of more digits than Python reads comes back as its text: who spawns by SQL can store one.
    """
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


# The careful walk --------------------------------------------------------------------------------


def _plain(value: Any, path: str, replace: bool) -> Any:
    """`value` with everything in its documented form."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, path, replace)
    if isinstance(value, str):
        return _text(value, path, replace)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _number(float(value))
    if isinstance(value, Mapping):
        return {_key(key, path, replace): _plain(each, f"{path}.{key}", replace) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{path}[{place}]", replace) for place, each in enumerate(value)]
    if isinstance(value, AbstractSet):
        return sorted((_plain(each, f"an element of {path}", replace) for each in value), key=_dumps)
    return _plain(_form(value, path), path, replace)


def _text(value: str, path: str, replace: bool) -> str:
    if not _UNSTORABLE.search(value):
        return str(value)
    if not replace:
        raise _NotJson(path, "text with NUL characters or lone surrogates cannot be stored")
    return _UNSTORABLE.sub("\ufffd", value)


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _key(key: Any, path: str, replace: bool) -> str:
    plain = _plain(key, f"a key of {path}", replace)
    if isinstance(plain, list | dict):
        raise _NotJson(path, f"a key is a {type(key).__name__}; keys must be texts")
    return plain if isinstance(plain, str) else _dumps(plain)


def _form(value: Any, path: str) -> Any:
    """The documented form of a value that JSON has not; it may itself need another turn."""
    for kinds, convert in _FORMS:
        if isinstance(value, kinds):
            return convert(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    dtype = getattr(value, "dtype", None)
    if hasattr(value, "unit"):
        raise _NotJson(path, "a quantity would lose its unit; pass the number, and name the unit in the key")
    if dtype is not None and type(value).__module__.partition(".")[0] == "numpy":
        if dtype.kind in "mM":  # in any other unit than microseconds the Python value may be a bare count
            value = value.astype(f"{'datetime64' if dtype.kind == 'M' else 'timedelta64'}[us]")
        return value.tolist()
    raise _NotJson(path, f"a {type(value).__module__}.{type(value).__qualname__} has no form in JSON")


_FORMS: Sequence[tuple[type | tuple[type, ...], Callable[[Any], Any]]] = (
    ((datetime, date, time), lambda value: value.isoformat()),
    (timedelta, timedelta.total_seconds),
    ((PurePath, UUID, Decimal), str),
    ((bytes, bytearray, memoryview), lambda value: b64encode(value).decode("ascii")),
)


def storable(text: str, longest: int) -> str:
    """A text that PostgreSQL takes: no NUL, no lone surrogates, not longer than `longest`."""
    return str(text)[:longest].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
