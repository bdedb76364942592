"""Where a page ends, as text that a caller gives back: the key of its last row."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Any

from absurd.errors import InvalidInputError
from absurd.product_rows import TABLES, Document


def tell_place(table: str, row: Document) -> str:
    """The place of a row."""
    key = [row[column] for column in TABLES[table].key]
    if len(key) == 1 and isinstance(key[0], int):
        return str(key[0])
    return urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode().rstrip("=")


def read_place(table: str, place: str | None) -> tuple[Any, ...] | None:
    """The key that a place tells of.  Raises InvalidInputError for what no page has told."""
    if place is None:
        return None
    kinds = [TABLES[table].columns[column] for column in TABLES[table].key]
    try:
        if place.isdecimal():
            key: Any = [int(place)]
        else:
            key = json.loads(urlsafe_b64decode(place + "=" * (-len(place) % 4)))
        if not isinstance(key, list) or len(key) != len(kinds):
            raise ValueError
        return tuple(_checked(kind, value) for kind, value in zip(kinds, key, strict=True))
    except (ValueError, TypeError, RecursionError):
        raise InvalidInputError("after: it is not `next` of a page of this list") from None


def _checked(kind: str, value: Any) -> Any:
    if kind == "integer":
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise ValueError
        return value
    if not isinstance(value, str) or "\0" in value:
        raise ValueError
    value.encode()  # half a character cannot be stored
    if kind == "time" and value not in ("-infinity", "infinity"):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        return moment
    return value
