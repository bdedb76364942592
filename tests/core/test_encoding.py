"""What is stored for what: the table in `absurd.encoding`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from absurd.encoding import LIMIT, decode, encode, encode_result
from absurd.errors import InvalidParamsError, PayloadTooLargeError, ResultError


class Band(Enum):
    """A plain enum."""

    RED = ("r", 620)


class Colour(StrEnum):
    """An enum of texts."""

    RED = "r"


class Bit(IntEnum):
    """An enum of numbers."""

    SATURATED = 4


@dataclass
class Position:
    """A dataclass with a value JSON has not."""

    ra: float
    catalog: Path


class Model(pydantic.BaseModel):
    """A pydantic model."""

    at: datetime


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (math.nan, "NaN"),
        ([math.inf, -math.inf], ["Infinity", "-Infinity"]),
        (Path("/data/x.fits"), "/data/x.fits"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "1.10"),
        (datetime(2026, 3, 1, 12, tzinfo=UTC), "2026-03-01T12:00:00+00:00"),
        (datetime(2026, 3, 1, 12), "2026-03-01T12:00:00"),  # noqa: DTZ001
        (date(2026, 3, 1), "2026-03-01"),
        (timedelta(minutes=1.5), 90.0),
        (b"\x00\xff", "AP8="),
        (Band.RED, ["r", 620]),
        ([Colour.RED, Bit.SATURATED], ["r", 4]),
        ((1, {3, 2}), [1, [2, 3]]),
        (Position(1.5, Path("c")), {"ra": 1.5, "catalog": "c"}),
        (Model(at=datetime(2026, 3, 1, tzinfo=UTC)), {"at": "2026-03-01T00:00:00Z"}),
        ({1: math.nan, None: 2, Path("p"): 3, math.nan: 4}, {"1": "NaN", "null": 2, "p": 3, "NaN": 4}),
        ("ü µJy 🔭 \\u0000", "ü µJy 🔭 \\u0000"),
    ],
)
def test_documented_forms(value: Any, stored: Any) -> None:
    """Each kind of value is stored as the table says, alone and within others."""
    assert stored == decode(encode(value))
    assert {"deep": [stored]} == decode(encode({"deep": [value]}))


def test_numpy_values() -> None:
    """Scalars become their Python value, arrays nested lists, masked elements null; times their ISO text."""
    np = pytest.importorskip("numpy")

    assert [1.5, 3, True, "NaN", "s"] == decode(
        encode([np.float32(1.5), np.int64(3), np.bool_(True), np.float64("nan"), np.str_("s")])
    )
    assert [[0, 1], [2, 3]] == decode(encode(np.arange(4, dtype="u2").reshape(2, 2)))
    assert ["Infinity", 1.0] == decode(encode(np.array([np.inf, 1.0])))
    assert [1, None] == decode(encode(np.ma.array([1, 2], mask=[False, True])))
    assert ["2026-03-01T00:00:00", None, 1.5] == decode(
        encode([np.datetime64("2026-03-01", "ns"), np.datetime64("NaT"), np.timedelta64(1_500_000_000, "ns")])
    )
    with pytest.raises(InvalidParamsError, match="complex"):
        encode(np.complex64(1))


def test_quantities_are_refused() -> None:
    """A value with a unit would silently lose it."""
    units = pytest.importorskip("astropy.units")

    with pytest.raises(InvalidParamsError, match=r"params\.flux: .*unit"):
        encode({"flux": 3 * units.Jy})


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, object()]}, r"params\.a\[1\]: a builtins\.object"),
        ({"a": {(1, 2): 3}}, r"params\.a: a key is a tuple"),
        ({"a": "nul\0"}, r"params\.a: text with NUL"),
        ({"a": "\ud800"}, r"params\.a: text with NUL characters or lone surrogates"),
        ({"nul\0": 1}, r"a key of params: text with NUL"),
        ([10**5000], "thousands of digits"),
        (SimpleNamespace(), "SimpleNamespace has no form"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_place(value: Any, place: str) -> None:
    """The message leads to the value at fault."""
    with pytest.raises(InvalidParamsError, match=place):
        encode(value)


def test_values_within_themselves_are_refused() -> None:
    """A list that holds itself ends in an error, not in a crash."""
    loop: list[Any] = []
    loop.append(loop)

    with pytest.raises(InvalidParamsError, match="within itself"):
        encode(loop)


def test_results_lose_a_character_rather_than_the_work() -> None:
    """In results, what cannot be stored in a text is replaced; what has no form at all is a ResultError."""
    assert {"log\ufffd": "a\ufffdb\ufffd"} == decode(encode_result({"log\0": "a\0b\udfff"}))
    assert encode_result(None) is None
    with pytest.raises(ResultError, match=r"result: a builtins\.object"):
        encode_result(object())


def test_limit_counts_bytes() -> None:
    """One mebibyte of UTF-8 may be stored, and not a byte more."""
    fits = "ü" * ((LIMIT - 2) // 2)

    assert LIMIT == len(encode(fits).encode())
    for value in (fits + "x", "x" * (LIMIT - 1), ["xx"] * LIMIT):
        with pytest.raises(PayloadTooLargeError, match="pass the path"):
            encode(value)
    assert encode("x" * LIMIT, limit=None)


_leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes() | st.uuids()
)
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner), max_leaves=20
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200)
@given(value=_values)
def test_whatever_is_encoded_the_database_stores(connection: psycopg.Connection[tuple[str]], value: Any) -> None:
    """Every result that Python can make is JSON for PostgreSQL, which keeps it exactly."""
    text = encode(value, replace=True)

    (stored,) = connection.execute("select %s::jsonb::text", [text]).fetchall()[0]

    assert _exact(text) == _exact(stored)


def _exact(text: str) -> Any:
    """The value of a JSON text with its numbers as they are written."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


@given(value=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(min_codepoint=1, max_codepoint=999)), inner),
    max_leaves=20,
))  # fmt: skip
def test_json_comes_back_as_it_was(value: Any) -> None:
    """What JSON has is stored unchanged (B29)."""
    assert value == decode(encode(value))
