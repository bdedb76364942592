"""Keys of cached values, and the values as bytes: nothing is taken for something else."""

from __future__ import annotations

import enum
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from absurd.tasks.cutout import CutoutRequest
from absurd.tasks.cutout.cache_key import CacheKey, encode
from absurd.tasks.cutout.cache_value import frozen, handed_out, pack, size_of, unpack

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
ARRAYS = st_numpy.arrays(
    dtype=st_numpy.boolean_dtypes()
    | st_numpy.integer_dtypes(endianness="?")
    | st_numpy.floating_dtypes(sizes=(16, 32, 64), endianness="?")
    | st_numpy.array_dtypes(st_numpy.integer_dtypes(), max_size=3),
    shape=st_numpy.array_shapes(min_dims=0, min_side=0, max_side=4),
)
VALUES = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Whether both are the same in type, structure and every bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    return repr(one) == repr(other)  # NaN is itself, and 0.0 is not -0.0


def decoded(content: bytes) -> Any:
    """Reads back what `encode` wrote: that this can be done at all proves that no two values share their bytes."""

    def count() -> int:
        return int.from_bytes(take(8), "big")

    def take(length: int) -> bytes:
        nonlocal content
        piece, content = content[:length], content[length:]
        return piece

    def one() -> Any:
        kind = take(1)
        if kind in b"NTF":
            return kind
        if kind == b"f":
            return kind, take(8)
        if kind == b"l":
            return kind, *[one() for _ in range(count())]
        if kind == b"m":
            return kind, *[(one(), one()) for _ in range(count())]
        if kind == b"a":
            return kind, take(count()), one(), take(count())
        if kind == b"d":
            return kind, take(count()), one()
        assert kind in b"isbp"
        return kind, take(count())

    read = one()
    assert content == b""
    return read


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_the_bytes_of_a_key_can_be_read_back(value: Any) -> None:
    """Each piece says its type and length, so all is read back piece by piece and nothing runs into its neighbour."""
    decoded(encode(value))


@settings(max_examples=50, deadline=None)
@given(VALUES, VALUES)
def test_different_parts_are_different_keys(one: Any, other: Any) -> None:
    """Two keys are equal only where the values are, type by type; lists and tuples are one."""
    if encode(one) == encode(other):
        assert encode([one]) == encode((other,))
        assert same(frozen(_as_tuples(one)), frozen(_as_tuples(other)))


def _as_tuples(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_as_tuples, value))
    if isinstance(value, dict):
        return {name: _as_tuples(value[name]) for name in sorted(value)}
    return value


def test_what_looks_alike_is_told_apart() -> None:
    """Long arrays that differ in the middle, types, and where one text ends and the next begins."""
    long = np.zeros(100_000)
    other = long.copy()
    other[50_000] = 1e-300
    parts: list[tuple[Any, ...]] = [
        (long,), (other,), (long.reshape(1000, 100),), (long.astype(">f8"),), (long.view("i8"),), (str(long),),
        (1,), (1.0,), (True,), ("1",), (b"1",), (Path("1"),), (None,), (), ((),), ((1,),), ({},), ({"a": 1},),
        ("ab", "c"), ("a", "bc"), ("abc",), (("ab", "c"),), ("a", ("b", "c")), (0.0,), (-0.0,),
        (CutoutRequest(10, 20),), (CutoutRequest(10, 20, size=63),),
    ]  # fmt: skip
    keys = [CacheKey.of("wcs", *each).digest for each in parts]

    assert len(set(keys)) == len(parts)
    assert CacheKey.of("wcs", 1) != CacheKey.of("psf", 1)
    assert CacheKey.of("wcs", "x") != CacheKey.of("wcsx")


def test_equal_parts_are_one_key() -> None:
    """Whatever the order of a mapping, the memory order of an array, or the files that a value depends on."""
    array = np.arange(12.0).reshape(3, 4)

    assert CacheKey.of("wcs", {"a": 1, "b": 2}) == CacheKey.of("wcs", {"b": 2, "a": 1})
    assert CacheKey.of("wcs", array) == CacheKey.of("wcs", np.asfortranarray(array))
    assert CacheKey.of("wcs", np.float64(0.5), np.int16(3)) == CacheKey.of("wcs", 0.5, 3)
    assert CacheKey.of("wcs", 1, files=["a.fits"], tags=["run"]) == CacheKey.of("wcs", 1)


@dataclass
class Holder:
    """Something with an attribute that no key can hold."""

    what: object


class Colour(enum.StrEnum):
    """A text that is more than a text."""

    RED = "red"


REFUSED = [
    object(), {1, 2}, 1j, np.longdouble(1), np.array([None]), np.ma.masked_array([1.0], [True]), [1.0] * u.m, Holder,
]  # fmt: skip


@pytest.mark.parametrize("part", [*REFUSED, Holder(object())], ids=lambda part: type(part).__name__)
def test_parts_that_cannot_be_told_apart_are_refused(part: Any) -> None:
    """An object without a value of its own, a number with hidden digits, an array with a mask or a unit."""
    with pytest.raises(TypeError, match="key"):
        CacheKey.of("wcs", part)


@pytest.mark.parametrize("value", [*REFUSED, {1: 2}, Holder(1)], ids=lambda value: type(value).__name__)
def test_values_that_would_lose_something_are_refused(value: Any) -> None:
    """What plain data cannot hold is not cached, rather than given back as less."""
    with pytest.raises(TypeError, match="cached"):
        frozen(value)


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_values_survive_the_disk(value: Any) -> None:
    """From bytes comes what went into them: type, order, every bit, NaN and the sign of zero."""
    kept = frozen(value)

    back = unpack(pack(kept))

    assert same(back, kept)
    assert size_of(back) == size_of(kept)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, [("a", "<f4"), ("b", ">i2", (2, 3))]),
        np.zeros((2, 2), [("n", [("x", "u1"), ("y", "<M8[s]")])]),
        np.zeros(2, [(("a title", "name"), "<f4")]),
        np.zeros(2, {"names": ["late"], "formats": ["<f4"], "offsets": [4], "itemsize": 12}),
        np.array(["a", "béta"]),
        np.array([b"a", b""]),
        np.array(5),
        np.zeros((0, 3)),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
        np.arange(6).astype("M8[ms]"),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_every_kind_of_array_survives_the_disk(array: np.ndarray[Any, Any]) -> None:
    """Records with titles and gaps, texts, times, arrays without axes or elements; aligned, and in their order."""
    back = unpack(pack(frozen({"before": np.zeros(1, np.uint8), "it": array})))["it"]

    assert same(back, frozen(array))
    assert back.flags.aligned
    assert not back.flags.writeable
    assert back.flags.f_contiguous == frozen(array).flags.f_contiguous or not array.flags.forc


@pytest.mark.parametrize("inner", [False, True])
def test_what_lies_in_the_gaps_of_records_counts_for_nothing(inner: bool) -> None:
    """Equal records have one key and one value, whatever the memory between their fields held."""
    record = np.dtype({"names": ["late"], "formats": ["<f4"], "offsets": [4], "itemsize": 12})
    if inner:
        record = np.dtype({"names": ["record"], "formats": [record], "offsets": [3], "itemsize": 20})
    zeros = np.zeros(record.itemsize * 2, np.uint8)
    used = zeros.view(record)
    used[...] = np.frombuffer(b"\x41" * zeros.size, record)
    littered = np.where(zeros == 0x41, zeros, 0x7F).astype(np.uint8).view(record)

    assert littered.tobytes() != used.tobytes()
    assert CacheKey.of("test", littered) == CacheKey.of("test", used)
    assert pack(frozen(littered)) == pack(frozen(used))


def test_memory_and_disk_give_the_same_types() -> None:
    """Scalars of numpy and enumerations become plain ones before they are kept anywhere."""
    kept = frozen({"a": np.float32(0.5), "b": np.int64(3), "c": Colour.RED, "d": np.str_("x"), "e": np.bool_(True)})

    assert same(kept, {"a": 0.5, "b": 3, "c": "red", "d": "x", "e": True})


def test_nobody_can_change_what_is_kept() -> None:
    """Not through the array that was put in, not through one that came out, not through a dict."""
    array = np.zeros(3)
    kept = frozen({"pixels": array, "names": ["a"]})
    array[0] = 1

    out = handed_out(kept)
    out["names"].append("b")
    with pytest.raises(ValueError, match="read-only"):
        out["pixels"][0] = 1
    assert same(handed_out(kept), {"pixels": np.zeros(3), "names": ["a"]})


@given(st.binary(max_size=200))
def test_other_bytes_are_no_value(content: bytes) -> None:
    """Whatever the bytes are: a value, or ValueError."""
    try:
        unpack(content)
    except ValueError:
        return
    assert len(content) >= 8


class Armed:
    """Unpickled, it would raise."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('executed')",)


def test_a_pickle_is_not_executed() -> None:
    """Neither as a file nor inside an array: nothing that is read is run."""
    structure = b'["array","|O",[1],"C"]'

    with pytest.raises(ValueError, match="an array of Python objects"):
        unpack(len(structure).to_bytes(8, "big") + structure + bytes(8))
    with pytest.raises(ValueError, match="utf-8"):
        unpack(pickle.dumps(Armed()))
