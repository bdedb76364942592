"""COPY BINARY to Arrow, a batch of rows at a time, in numpy.

A row is an int16 with the number of fields, then for each field an int32 with its length in bytes (-1: NULL)
and its bytes; all big-endian.  Fields of one column lie at different places in each row, so the rows are walked
side by side: one pass over all rows per column, each pass telling where the next column begins.  All positions
are byte offsets into the batch, int64, one per row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from absurd.tasks.export.arrow_types import Column, Form
from absurd.tasks.export.errors import ExportFailedError, UnfitValueError

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

PADDING = b"\0" * 16
"""Read, and not used, where the last value of a batch is NULL."""

EPOCH_DAYS = 10_957
"""2000-01-01, from which PostgreSQL counts, in days after 1970-01-01, from which Arrow counts."""
EPOCH_MICROSECONDS = EPOCH_DAYS * 86_400_000_000
YEAR_ONE_DAYS = -719_162
"""0001-01-01 in days after 1970-01-01; what is before it most readers of Parquet cannot show."""
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


@dataclass(frozen=True, slots=True)
class Values:
    """Where the values of a column lie, or those of the elements of its lists; arrays of shape (n,)."""

    start: Integers
    """Offset of the first byte."""
    length: Integers
    """Bytes; 0 for NULL."""
    is_null: Flags
    row: Integers
    """Number of the row each belongs to, from 1 in the order of the result; for messages."""

    def __len__(self) -> int:
        return len(self.start)


class Batch:
    """Whole rows of one COPY BINARY stream, and the number of the first one."""

    def __init__(self, rows: Sequence[bytes | memoryview], first_row: int) -> None:
        self.data = np.frombuffer(b"".join([*rows, PADDING]), dtype=np.uint8)
        ends = np.cumsum(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)))
        self._ends: Integers = ends
        self._starts: Integers = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]])
        self._first_row = first_row

    def decode(self, columns: Sequence[Column]) -> Any:
        """The rows as a `pyarrow.RecordBatch` with those columns.

        Raises UnfitValueError, naming column and row, for a value that the column's type cannot keep;
        ExportFailedError if the bytes are not rows of that many columns.
        """
        count = len(self._starts)
        if (self.gather(self._starts, ">i2") != len(columns)).any():
            raise ExportFailedError("the stream from the database is damaged: a row has another number of columns")
        position = self._starts + 2
        rows = np.arange(self._first_row, self._first_row + count)
        arrays = []
        for column in columns:
            length = self.gather(position, ">i4").astype(np.int64)
            is_null = length < 0
            length[is_null] = 0
            start = position + 4
            position = start + length
            if (position > self._ends).any():
                break
            arrays.append(_column(self, column, Values(start, length, is_null, rows)))
        if (position != self._ends).any():
            raise ExportFailedError("the stream from the database is damaged: a row does not end where it should")
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([column.field for column in columns]))

    def gather(self, position: Integers, dtype: str) -> NDArray[Any]:
        """Numbers of that type at any offsets, in the byte order of this machine; shape that of `position`."""
        size = np.dtype(dtype).itemsize
        everywhere: NDArray[Any] = np.ndarray((len(self.data) - size + 1,), dtype, self.data, strides=(1,))
        # Indexing, not take(): that would first copy the overlapping view, which is size times the batch.
        return everywhere[position].astype(np.dtype(dtype).newbyteorder("="), copy=False)


def _column(batch: Batch, column: Column, values: Values) -> Any:
    if not column.is_list:
        return _array(batch, column, values)
    counts, elements = _elements(batch, column, values)
    offsets = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(counts, dtype=np.int32)])
    children = _array(batch, column, elements)
    buffers = [_validity(values.is_null), pa.py_buffer(offsets)]
    return pa.ListArray.from_buffers(column.arrow, len(values), buffers, children=[children])


def _array(batch: Batch, column: Column, values: Values) -> Any:
    """Scalars, of the column or of its lists' elements, as an Arrow array of length n."""
    arrow = column.arrow.value_type if column.is_list else column.arrow
    if column.parse:
        return _parsed(_strings(batch, values, pa.string()), arrow, column, values)
    if column.form in _DTYPES:
        return _fixed(batch, column, values, arrow)
    if column.form == "uuid":
        return _uuids(batch, values)
    if column.form == "jsonb":  # its text after a byte with the version of the form
        text = Values(values.start + ~values.is_null, values.length - ~values.is_null, values.is_null, values.row)
        return _strings(batch, text, arrow)
    return _strings(batch, values, arrow)


def _fixed(batch: Batch, column: Column, values: Values, arrow: Any) -> Any:
    dtype = _DTYPES[column.form]
    if (values.length[~values.is_null] != np.dtype(dtype).itemsize).any():
        raise ExportFailedError(f"the stream from the database is damaged: column {column.name!r} has another width")
    numbers = batch.gather(values.start, dtype)
    if column.form in _CHECKS:
        numbers[values.is_null] = 0
        numbers = _CHECKS[column.form](column, values, numbers)
    data = np.packbits(numbers != 0, bitorder="little") if column.form == "bool" else np.ascontiguousarray(numbers)
    return pa.Array.from_buffers(arrow, len(values), [_validity(values.is_null), pa.py_buffer(data)])


def _dates(column: Column, values: Values, days: NDArray[Any]) -> NDArray[Any]:
    limits = np.iinfo(np.int32)
    _refuse(column, values, days == limits.max, "infinity")
    _refuse(column, values, days == limits.min, "-infinity")
    since_1970 = days.astype(np.int64) + EPOCH_DAYS
    _refuse(column, values, since_1970 < YEAR_ONE_DAYS, "a date before the year 1 (BC)")
    return since_1970.astype(np.int32)


def _timestamps(column: Column, values: Values, microseconds: NDArray[Any]) -> NDArray[Any]:
    limits = np.iinfo(np.int64)
    _refuse(column, values, microseconds == limits.max, "infinity")
    _refuse(column, values, microseconds == limits.min, "-infinity")
    _refuse(column, values, microseconds > limits.max - EPOCH_MICROSECONDS, "a time past the year 294246")
    since_1970 = microseconds + EPOCH_MICROSECONDS
    _refuse(column, values, since_1970 < YEAR_ONE_DAYS * DAY_MICROSECONDS, "a time before the year 1 (BC)")
    return since_1970


def _times(column: Column, values: Values, microseconds: NDArray[Any]) -> NDArray[Any]:
    _refuse(column, values, microseconds >= DAY_MICROSECONDS, "the time 24:00:00")
    return microseconds


_CHECKS: dict[Form, Callable[[Column, Values, NDArray[Any]], NDArray[Any]]] = {
    "date": _dates,
    "time": _times,
    "timestamp": _timestamps,
}


def _strings(batch: Batch, values: Values, arrow: Any) -> Any:
    """Bytes or text of any length.

    The batch itself serves as the data of an array of 2n strings, in which each second one is what lies between
    two values; picking the others out copies each value once, in compiled code.
    """
    count = len(values)
    offsets = np.empty(2 * count + 1, dtype=np.int32)
    offsets[0:-1:2] = values.start
    offsets[1::2] = values.start + values.length
    offsets[-1] = offsets[-2] if count else 0
    both = pa.Array.from_buffers(arrow, 2 * count, [None, pa.py_buffer(offsets), pa.py_buffer(batch.data)])
    picked = both.take(pa.array(np.arange(0, 2 * count, 2)))
    _, ends, data = picked.buffers()
    return pa.Array.from_buffers(arrow, count, [_validity(values.is_null), ends, data])


def _uuids(batch: Batch, values: Values) -> Any:
    """Each 16 bytes as text, as ``12345678-1234-5678-1234-567812345678``."""
    valid = values.start[~values.is_null]
    digits = _HEXADECIMAL[batch.data[valid[:, None] + np.arange(_UUID_BYTES)]].view(np.uint8)  # (n, 32)
    text = np.full((len(valid), 36), ord("-"), dtype=np.uint8)
    for source, target in ((0, 0), (8, 9), (12, 14), (16, 19), (20, 24)):
        width = 12 if source == 20 else 8 if source == 0 else 4
        text[:, target : target + width] = digits[:, source : source + width]
    lengths = np.where(values.is_null, 0, 36)
    offsets = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(lengths, dtype=np.int32)])
    buffers = [_validity(values.is_null), pa.py_buffer(offsets), pa.py_buffer(text.ravel())]
    return pa.Array.from_buffers(pa.string(), len(values), buffers)


def _parsed(texts: Any, arrow: Any, column: Column, values: Values) -> Any:
    """The server's text as another type, by Arrow's own cast; the first text that does not fit is named."""
    try:
        return texts.cast(arrow)
    except pa.ArrowInvalid:
        for text, row in zip(texts.to_pylist(), values.row.tolist(), strict=True):
            try:
                pa.array([text], pa.string()).cast(arrow)
            except pa.ArrowInvalid:
                _unfit(column, row, text)
        raise


def _elements(batch: Batch, column: Column, values: Values) -> tuple[Integers, Values]:
    """How many elements each array has, and where they lie.

    An array is five int32 (dimensions, whether there are NULLs, OID of the elements; then for one dimension its
    length and lower bound), then the elements like fields.  An empty one has no dimension.
    """
    dimensions = np.where(values.is_null, 0, batch.gather(values.start, ">i4"))
    _refuse(column, values, dimensions > 1, "an array of several dimensions")
    inside = np.where(dimensions == 1, values.start, 0)
    counts = np.where(dimensions == 1, batch.gather(inside + 12, ">i4"), 0).astype(np.int64)
    lower = np.where(dimensions == 1, batch.gather(inside + 16, ">i4"), 1)
    _refuse(column, values, lower != 1, "an array whose first index is not 1")
    total = int(counts.sum())
    starts = np.empty(total, dtype=np.int64)
    lengths = np.empty(total, dtype=np.int64)
    first = np.cumsum(counts) - counts  # place of each array's first element among all elements
    position, place = values.start + 20, first.copy()
    active = np.flatnonzero(counts)
    step = 0
    while len(active) > _FEW:  # all arrays side by side, one element each at a time
        starts[place[active]] = position[active] + 4
        length = batch.gather(position[active], ">i4").astype(np.int64)
        lengths[place[active]] = length
        position[active] += 4 + np.maximum(length, 0)
        place[active] += 1
        step += 1
        active = active[counts[active] > step]
    view = batch.data.data
    for index in active.tolist():  # the longest few, one after the other
        offset = int(position[index])
        for target in range(int(place[index]), int(first[index] + counts[index])):
            size = int.from_bytes(view[offset : offset + 4], "big", signed=True)
            starts[target], lengths[target] = offset + 4, size
            offset += 4 + max(size, 0)
    is_null = lengths < 0
    return counts, Values(starts, np.maximum(lengths, 0), is_null, np.repeat(values.row, counts))


_FEW = 16


def _validity(is_null: Flags) -> Any:
    """Arrow's bitmap of what is not NULL; None if nothing is."""
    return pa.py_buffer(np.packbits(~is_null, bitorder="little")) if is_null.any() else None


def _refuse(column: Column, values: Values, unfit: Flags, what: str) -> None:
    """Raise UnfitValueError for the first value that is marked in `unfit` and is not NULL."""
    marked = np.flatnonzero(unfit & ~values.is_null)
    if len(marked):
        _unfit(column, int(values.row[marked[0]]), what)


def _unfit(column: Column, row: int, what: str) -> NoReturn:
    raise UnfitValueError(
        f"row {row} of column {column.name!r} holds {what}, which {column.arrow} cannot keep: "
        f'cast it in the query, as "{column.name}"::text, or leave such rows out',
        column=column.name,
        row=row,
        value=what,
    )
