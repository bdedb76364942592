"""The values of one column, or of the elements of its lists, from COPY BINARY to Arrow in numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from absurd.tasks.export import unfit
from absurd.tasks.export.arrow_types import Column, Form
from absurd.tasks.export.unfit import Unfit

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

PADDING = b"\0" * 32
"""Read, and not used, where the last value of a block is NULL."""

EPOCH_DAYS = 10_957
"""2000-01-01, from which PostgreSQL counts, in days after 1970-01-01, from which Arrow counts."""
EPOCH_MICROSECONDS = EPOCH_DAYS * 86_400_000_000
DAY_MICROSECONDS = 86_400_000_000

_DTYPES: dict[Form, str] = {
    "bool": "u1",
    "int16": ">i2",
    "int32": ">i4",
    "int64": ">i8",
    "uint32": ">u4",
    "float32": ">f4",
    "float64": ">f8",
    "date": ">i4",
    "time": ">i8",
    "timestamp": ">i8",
}
_HEXADECIMAL = np.frombuffer("".join(f"{value:02x}" for value in range(256)).encode(), dtype="S2")
_UUID_BYTES = 16
_POSITIVE, _NEGATIVE, _NAN, _INFINITE, _MINUS_INFINITE = 0, 0x4000, 0xC000, 0xD000, 0xF000


class DamagedError(Exception):
    """The bytes are not what they should be."""


class Bytes:
    """The bytes of a block of rows."""

    def __init__(self, joined: bytes) -> None:
        self.bytes = np.frombuffer(joined, dtype=np.uint8)
        self._joined = joined

    def gather(self, position: Integers, dtype: str) -> NDArray[Any]:
        """Numbers of that type at any offsets, in the byte order of this machine; shape that of `position`."""
        size = np.dtype(dtype).itemsize
        everywhere: NDArray[Any] = np.ndarray((len(self.bytes) - size + 1,), dtype, self.bytes, strides=(1,))
        # Indexing, not take(): that would first copy the overlapping view, which is size times the block.
        return everywhere[position].astype(np.dtype(dtype).newbyteorder("="), copy=False)

    def int32(self, position: int) -> int:
        """One number."""
        return int.from_bytes(self._joined[position : position + 4], "big", signed=True)


@dataclass(frozen=True, slots=True)
class Values:
    """Where the values of a column lie, or those of the elements of its lists; arrays of shape (n,)."""

    start: Integers
    """Offset of the first byte."""
    length: Integers
    """Bytes; 0 for NULL."""
    is_null: Flags
    row: Integers
    """Number of the row each belongs to, from 1 where the block begins."""

    def __len__(self) -> int:
        return len(self.start)


class Marks:
    """What does not fit in one column."""

    def __init__(self) -> None:
        self._count = 0
        self._first: tuple[int, int] | None = None
        self._what = ""

    def refuse(self, values: Values, marked: Flags, what: str) -> Values:
        """The values with NULL for those that are marked."""
        places = np.flatnonzero(marked & ~values.is_null)
        if not len(places):
            return values
        self._count += len(places)
        first = (int(values.row[places[0]]), int(places[0]))
        if self._first is None or first < self._first:
            self._first, self._what = first, what
        return Values(values.start, np.where(marked, 0, values.length), values.is_null | marked, values.row)

    def found(self) -> Unfit | None:
        """All of it; None if everything fits."""
        return None if self._first is None else Unfit(self._count, self._first[0], self._what)


def array(data: Bytes, column: Column, values: Values, marks: Marks) -> Any:
    """Scalars, of the column or of its lists' elements, as an Arrow array of length n."""
    arrow = column.received
    if column.form in _DTYPES:
        return _fixed(data, column.form, values, arrow, marks)
    if column.form == "uuid":
        return _raw_uuids(data, values, arrow)
    if column.form == "uuid_text":
        return _uuids(data, values)
    if column.form == "decimal":
        return _decimals(data, values, arrow, marks)
    if column.form == "interval":
        return _intervals(data, values, arrow, marks)
    if column.form == "jsonb":  # its text after a byte with the version of the form
        if ((values.length < 1) | (data.gather(values.start, "u1") != 1))[~values.is_null].any():
            raise DamagedError
        values = Values(values.start + ~values.is_null, values.length - ~values.is_null, values.is_null, values.row)
    return _strings(data, values, arrow)


def validity(is_null: Flags) -> Any:
    """Arrow's bitmap of what is not NULL; None if nothing is."""
    return pa.py_buffer(np.packbits(~is_null, bitorder="little")) if is_null.any() else None


def _fixed(data: Bytes, form: Form, values: Values, arrow: Any, marks: Marks) -> Any:
    dtype = _DTYPES[form]
    _expect(values, np.dtype(dtype).itemsize)
    numbers = data.gather(values.start, dtype)
    if form in _CHECKS:
        values, numbers = _CHECKS[form](values, numbers, marks)
    bits = np.packbits(numbers != 0, bitorder="little") if form == "bool" else np.ascontiguousarray(numbers)
    return pa.Array.from_buffers(arrow, len(values), [validity(values.is_null), pa.py_buffer(bits)])


Checked = tuple[Values, NDArray[Any]]


def _dates(values: Values, days: NDArray[Any], marks: Marks) -> Checked:
    limits = np.iinfo(np.int32)
    values = marks.refuse(values, days == limits.max, unfit.INFINITE)
    values = marks.refuse(values, days == limits.min, unfit.MINUS_INFINITE)
    values = marks.refuse(values, days > limits.max - EPOCH_DAYS, unfit.TOO_LATE)
    return values, np.where(values.is_null, 0, days.astype(np.int64) + EPOCH_DAYS).astype(np.int32)


def _timestamps(values: Values, microseconds: NDArray[Any], marks: Marks) -> Checked:
    limits = np.iinfo(np.int64)
    values = marks.refuse(values, microseconds == limits.max, unfit.INFINITE)
    values = marks.refuse(values, microseconds == limits.min, unfit.MINUS_INFINITE)
    values = marks.refuse(values, microseconds > limits.max - EPOCH_MICROSECONDS, unfit.TOO_LATE)
    return values, np.where(values.is_null, 0, microseconds) + EPOCH_MICROSECONDS


def _times(values: Values, microseconds: NDArray[Any], marks: Marks) -> Checked:
    outside = (microseconds < 0) | (microseconds >= DAY_MICROSECONDS)
    values = marks.refuse(values, outside, unfit.MIDNIGHT)
    return values, np.where(values.is_null, 0, microseconds)


_CHECKS: dict[Form, Callable[[Values, NDArray[Any], Marks], Checked]] = {
    "date": _dates,
    "time": _times,
    "timestamp": _timestamps,
}


def _strings(data: Bytes, values: Values, arrow: Any) -> Any:
    """Bytes or text of any length.

    The block itself serves as the data of an array of 2n strings, in which each second one is what lies between
    two values; picking the others out copies each value once, in compiled code.
    """
    count = len(values)
    offsets = np.empty(2 * count + 1, dtype=np.int32)
    offsets[0:-1:2] = values.start
    offsets[1::2] = values.start + values.length
    offsets[-1] = offsets[-2] if count else 0
    both = pa.Array.from_buffers(arrow, 2 * count, [None, pa.py_buffer(offsets), pa.py_buffer(data.bytes)])
    picked = both.take(pa.array(np.arange(0, 2 * count, 2)))
    _, ends, text = picked.buffers()
    return pa.Array.from_buffers(arrow, count, [validity(values.is_null), ends, text])


def _raw_uuids(data: Bytes, values: Values, arrow: Any) -> Any:
    _expect(values, _UUID_BYTES)
    raw = np.zeros((len(values), _UUID_BYTES), dtype=np.uint8)
    valid = ~values.is_null
    raw[valid] = data.bytes[values.start[valid][:, None] + np.arange(_UUID_BYTES)]
    return pa.Array.from_buffers(arrow, len(values), [validity(values.is_null), pa.py_buffer(raw.ravel())])


def _uuids(data: Bytes, values: Values) -> Any:
    """Each 16 bytes as text, as ``12345678-1234-5678-1234-567812345678``."""
    _expect(values, _UUID_BYTES)
    valid = values.start[~values.is_null]
    digits = _HEXADECIMAL[data.bytes[valid[:, None] + np.arange(_UUID_BYTES)]].view(np.uint8)  # (n, 32)
    text = np.full((len(valid), 36), ord("-"), dtype=np.uint8)
    for source, target in ((0, 0), (8, 9), (12, 14), (16, 19), (20, 24)):
        width = 12 if source == 20 else 8 if source == 0 else 4
        text[:, target : target + width] = digits[:, source : source + width]
    lengths = np.where(values.is_null, 0, 36)
    offsets = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(lengths, dtype=np.int32)])
    buffers = [validity(values.is_null), pa.py_buffer(offsets), pa.py_buffer(text.ravel())]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def _intervals(data: Bytes, values: Values, arrow: Any, marks: Marks) -> Any:
    """Microseconds, days and months, in this order, as a struct of the three."""
    _expect(values, 16)
    parts = [data.gather(values.start + offset, kind) for offset, kind in ((12, ">i4"), (8, ">i4"), (0, ">i8"))]
    for limit, what in ((max, unfit.INFINITE), (min, unfit.MINUS_INFINITE)):
        ends = [limit(np.iinfo(part.dtype).min, np.iinfo(part.dtype).max) for part in parts]
        infinite = np.logical_and.reduce([part == end for part, end in zip(parts, ends, strict=True)])
        values = marks.refuse(values, infinite, what)
    children = [
        pa.Array.from_buffers(
            each.type, len(values), [None, pa.py_buffer(np.where(values.is_null, 0, part).astype(part.dtype))]
        )
        for each, part in zip(arrow, parts, strict=True)
    ]
    return pa.StructArray.from_buffers(arrow, len(values), [validity(values.is_null)], children=children)


def _decimals(data: Bytes, values: Values, arrow: Any, marks: Marks) -> Any:
    """Digits to the base of 10,000, the first of them times 10,000 to the weight.

    They are summed up for all values side by side, in limbs of 32 bits, the lowest first; one limb more than the type
    has, so that nothing overflows before it is held against the limit.
    """
    if (values.length[~values.is_null] < 8).any():
        raise DamagedError
    many = np.where(values.is_null, 0, data.gather(values.start, ">u2")).astype(np.int64)
    if (8 + 2 * many != values.length)[~values.is_null].any():
        raise DamagedError
    weight = data.gather(values.start + 2, ">i2").astype(np.int64)
    sign = data.gather(values.start + 4, ">u2")
    for code, what in (
        (_NAN, unfit.NOT_A_NUMBER),
        (_INFINITE, unfit.INFINITE),
        (_MINUS_INFINITE, unfit.MINUS_INFINITE),
    ):
        values = marks.refuse(values, sign == code, what)
    if ((sign != _POSITIVE) & (sign != _NEGATIVE) & ~values.is_null).any():
        raise DamagedError
    groups, rest = divmod(arrow.scale, 4)
    limbs = np.zeros((arrow.byte_width // 4 + 1, len(values)), dtype=np.uint64)
    highest = (arrow.precision - arrow.scale) // 4
    unfitting = (many > 0) & (weight > highest)
    unfitting |= (many > 0) & (many - 1 > weight + groups + (rest > 0))
    safe = np.where(unfitting | values.is_null, 0, many)
    for exponent in range(highest, -groups - 1, -1):
        _multiply(limbs, 10_000, _digit(data, values, safe, weight - exponent))
    if rest:
        group = _digit(data, values, safe, weight + groups + 1)
        whole, more = np.divmod(group, np.uint64(10 ** (4 - rest)))
        unfitting |= more > 0
        _multiply(limbs, 10**rest, whole)
    unfitting |= ~_is_below(limbs, 10**arrow.precision)
    values = marks.refuse(values, unfitting, unfit.DIGITS)
    limbs[:, values.is_null] = 0
    _negate(limbs, sign == _NEGATIVE)
    low = np.ascontiguousarray(limbs[:-1].T.astype(np.uint32))
    return pa.Array.from_buffers(arrow, len(values), [validity(values.is_null), pa.py_buffer(low.ravel())])


def _digit(data: Bytes, values: Values, many: Integers, place: Integers) -> NDArray[np.uint64]:
    """The digit at a place of each number; 0 where it has none there."""
    there = (place >= 0) & (place < many)
    digit = np.where(there, data.gather(np.where(there, values.start + 8 + 2 * place, 0), ">u2"), 0)
    if (digit > 9999).any():
        raise DamagedError
    return digit.astype(np.uint64)


def _multiply(limbs: NDArray[np.uint64], factor: int, more: NDArray[np.uint64]) -> None:
    carry = more
    for limb in limbs:
        carry = carry + limb * np.uint64(factor)
        limb[:] = carry & np.uint64(0xFFFFFFFF)
        carry = carry >> np.uint64(32)


def _is_below(limbs: NDArray[np.uint64], limit: int) -> Flags:
    below = np.zeros(limbs.shape[1], dtype=bool)
    for place, limb in enumerate(limbs):  # the highest decides, so it comes last
        against = np.uint64(limit >> 32 * place & 0xFFFFFFFF)
        below = np.where(limb == against, below, limb < against)
    return below


def _negate(limbs: NDArray[np.uint64], which: Flags) -> None:
    carry = which.astype(np.uint64)
    for limb in limbs:
        carry = carry + np.where(which, limb ^ np.uint64(0xFFFFFFFF), limb)
        limb[:] = carry & np.uint64(0xFFFFFFFF)
        carry = carry >> np.uint64(32)


def _expect(values: Values, width: int) -> None:
    if (values.length[~values.is_null] != width).any():
        raise DamagedError
