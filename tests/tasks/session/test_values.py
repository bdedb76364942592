"""Values from outside: each has a form that is told of, or is refused at the call; and YAML reads them as they were."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from absurd.tasks.session import SessionValueError
from absurd.tasks.session.asdf_form import flow
from absurd.tasks.session.values import encode


class Colour(Enum):
    """A colour."""

    RED = "red"


@dataclass
class Point:
    """A point."""

    x: float
    where: Path


class Mute:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Path("/a/b"), "/a/b"),
        (np.float32(1.5), 1.5),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (np.datetime64("2025-12-14T22:00:00.123456789"), "2025-12-14T22:00:00.123456789"),
        (np.arange(3), [0, 1, 2]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.complex128(1 + 2j), "(1+2j)"),
        (datetime(2025, 12, 14, 22, tzinfo=timezone(timedelta(hours=1))), "2025-12-14T21:00:00.000000Z"),
        (datetime(2025, 12, 14, 22), "2025-12-14T22:00:00"),  # noqa: DTZ001
        (date(2025, 12, 14), "2025-12-14"),
        (timedelta(minutes=1), 60.0),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        (Colour.RED, "red"),
        (Point(1.0, Path("p")), {"x": 1.0, "where": "p"}),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\x00\xff", "00ff"),
        (ValueError("bad"), "ValueError: bad"),
        (2**70, str(2**70)),
        (2**63 - 1, 2**63 - 1),
        ("\ud800", "\\ud800"),
        ({1: "a", None: "b", Path("p"): "c"}, {"1": "a", "None": "b", "p": "c"}),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        (Mute(), "<Mute, whose repr raises RuntimeError>"),
    ],
)
def test_what_has_a_form(value: Any, kept: Any) -> None:
    """What JSON does not hold is kept in the form that the documentation tells."""
    assert json.loads(encode(value, "value")) == kept


def test_objects_are_shown_briefly() -> None:
    """An object of any other kind becomes its repr, cut off if it is long."""
    told = json.loads(encode({"o": object(), "long": type("T", (), {"__repr__": lambda _: "x" * 5000})()}, "value"))

    assert told["o"].startswith("<object object at")
    assert len(told["long"]) == 1000


def test_floats_that_are_no_numbers_stay() -> None:
    """NaN and infinities come back as such from JSON and from YAML."""
    told = json.loads(encode([math.nan, math.inf, -math.inf], "value"))

    for found in (told, yaml.safe_load(flow(told))):
        assert math.isnan(found[0])
        assert found[1:] == [math.inf, -math.inf]


def _endless() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.zeros((100, 100)), "add_frame"),
        ({"k" * 201: 1}, "201 characters"),
        (_endless(), "nested"),
        ("x" * (17 << 20), "bytes"),
    ],
)
def test_what_is_refused(value: Any, told: str) -> None:
    """What cannot be kept is refused at the call, with its place and what to do."""
    with pytest.raises(SessionValueError, match=told):
        encode({"context": value}, "log")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=100)
@given(PLAIN)
def test_yaml_reads_what_was_told(value: Any) -> None:
    """Whatever the text or number, YAML 1.1 reads what was told, in one line, by libyaml and without it."""
    kept = json.loads(encode(value, "value"))
    text = flow(kept)

    assert text.isprintable() or all(each.isprintable() or ord(each) >= 0xA0 for each in text)
    for loader in {yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)}:
        assert yaml.load(f"a:\n- {text}\n...\n", Loader=loader) == {"a": [kept]}  # noqa: S506
