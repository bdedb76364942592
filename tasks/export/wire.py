"""COPY BINARY to Arrow, a block of rows at a time, in numpy: what serves where decoder.c could not be compiled.

A row is an int16 with the number of fields, then for each field an int32 with its length in bytes (-1: NULL)
and its bytes; all big-endian.  Fields of one column lie at different places in each row, so the rows are walked
side by side: one pass over all rows per column, each pass telling where the next column begins.  All positions
are byte offsets into the block, int64, one per row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from absurd.tasks.export import block as blocks
from absurd.tasks.export import wire_values
from absurd.tasks.export.arrow_types import Column
from absurd.tasks.export.block import Block
from absurd.tasks.export.copy_stream import CopyStream
from absurd.tasks.export.errors import ExportFailedError
from absurd.tasks.export.meter import Meter
from absurd.tasks.export.unfit import DIMENSIONS, LOWER_BOUND, Unfit, UnfitAtError
from absurd.tasks.export.wire_values import Bytes, DamagedError, Integers, Marks, Values

MOST_DIMENSIONS = 6
_FEW = 16


class NumpyDecoder:
    """Decodes the streams of one connection, one after the other."""

    def __init__(self, columns: Sequence[Column], *, refuse: bool, check_text: bool, block_bytes: int) -> None:
        self._columns = columns
        self._schema = blocks.schema_of(columns)
        self._refuse = refuse
        self._check_text = check_text
        self._most_bytes = block_bytes
        self._most_rows = blocks.rows_at_most(columns, block_bytes)

    def read(self, stream: CopyStream, meter: Meter) -> Iterator[Block]:
        """The rows of a running stream.

        Raises UnfitAtError, ExportFailedError for a damaged stream, StoppedError, and `psycopg.Error`.
        """
        rows: list[bytes | memoryview] = []
        first_row, held, counted, told = 1, 0, 0, 0
        most_rows, most_bytes, piece = self._most_rows, self._most_bytes, meter.piece
        for row in stream.rows():
            rows.append(row)
            held += len(row)
            is_full = len(rows) >= most_rows or held >= most_bytes
            if is_full or held - told >= piece:
                meter.spend(held - told, len(rows) - counted)
                counted, told = len(rows), held
            if is_full:
                yield self._block(rows, first_row, held)
                first_row += len(rows)
                rows, held, counted, told = [], 0, 0, 0
        if rows:
            meter.spend(held - told, len(rows) - counted)
            yield self._block(rows, first_row, held)

    def _block(self, rows: Sequence[bytes | memoryview], first_row: int, wire: int) -> Block:
        batch = Batch(rows)
        try:
            arrays, unfit = batch.decode(self._columns)
        except (DamagedError, IndexError) as error:
            raise ExportFailedError(
                f"the stream from the database is damaged after row {first_row - 1}: {error}"
            ) from None
        if unfit and self._refuse:
            row, place = min((each.row, place) for place, each in unfit.items())
            raise UnfitAtError(self._columns[place], first_row - 1 + row, unfit[place].what)
        try:
            whole, more = blocks.finish(
                self._columns, self._schema, arrays, refuse=self._refuse, check_text=self._check_text
            )
        except UnfitAtError as error:
            raise UnfitAtError(error.column, first_row - 1 + error.row, error.what) from None
        unfit = {
            place: Unfit(each.count, first_row - 1 + each.row, each.what) for place, each in (more | unfit).items()
        }
        return Block(whole, wire, len(batch.data.bytes) + whole.nbytes, lambda: None, unfit)


@dataclass(slots=True)
class Batch:
    """Whole rows of one COPY BINARY stream."""

    rows: Sequence[bytes | memoryview]
    data: Bytes

    def __init__(self, rows: Sequence[bytes | memoryview]) -> None:
        self.rows = rows
        self.data = Bytes(b"".join([*rows, wire_values.PADDING]))

    def decode(self, columns: Sequence[Column]) -> tuple[list[Any], dict[int, Unfit]]:
        """The columns in Arrow, and what in each one did not fit and is NULL now.

        Raises DamagedError or IndexError if the bytes are not rows of those columns.
        """
        count = len(self.rows)
        ends: Integers = np.cumsum(np.fromiter(map(len, self.rows), dtype=np.int64, count=count))
        starts: Integers = np.concatenate([np.zeros(1, dtype=np.int64), ends[:-1]])
        if (self.data.gather(starts, ">i2") != len(columns)).any():
            raise DamagedError("a row has another number of columns")
        position = starts + 2
        numbers = np.arange(1, count + 1)
        arrays: list[Any] = []
        unfit: dict[int, Unfit] = {}
        for place, column in enumerate(columns):
            length = self.data.gather(position, ">i4").astype(np.int64)
            if (length < -1).any():
                raise DamagedError(f"column {column.name!r}")
            is_null = length < 0
            length[is_null] = 0
            start = position + 4
            position = start + length
            if (position > ends).any():
                raise DamagedError(f"column {column.name!r}")
            marks = Marks()
            try:
                arrays.append(_column(self.data, column, Values(start, length, is_null, numbers), marks))
            except DamagedError:
                raise DamagedError(f"column {column.name!r}") from None
            if found := marks.found():
                unfit[place] = found
        if (position != ends).any():
            raise DamagedError("a row does not end where it should")
        return arrays, unfit


def _column(data: Bytes, column: Column, values: Values, marks: Marks) -> Any:
    if not column.is_list:
        return wire_values.array(data, column, values, marks)
    values, counts, elements = _elements(data, values, marks)
    offsets = np.concatenate([np.zeros(1, dtype=np.int32), np.cumsum(counts, dtype=np.int32)])
    children = wire_values.array(data, column, elements, marks)
    buffers = [wire_values.validity(values.is_null), pa.py_buffer(offsets)]
    arrow = pa.list_(pa.field("element", column.received))
    return pa.ListArray.from_buffers(arrow, len(values), buffers, children=[children])


def _elements(data: Bytes, values: Values, marks: Marks) -> tuple[Values, Integers, Values]:
    """The arrays without those that do not fit, how many elements each one has, and where they lie.

    An array is three int32 (dimensions, whether there are NULLs, OID of the elements), for each dimension its length
    and lower bound, then the elements like fields.  An empty one has no dimension.
    """
    if (values.length[~values.is_null] < 12).any():
        raise DamagedError
    dimensions = np.where(values.is_null, 0, data.gather(values.start, ">i4"))
    if (
        (dimensions < 0)
        | (dimensions > MOST_DIMENSIONS)
        | (12 + 8 * dimensions > np.where(values.is_null, 12, values.length))
    ).any():
        raise DamagedError
    values = marks.refuse(values, dimensions > 1, DIMENSIONS)
    inside = np.where(dimensions == 1, values.start, 0)
    lower = np.where(dimensions == 1, data.gather(inside + 16, ">i4"), 1)
    values = marks.refuse(values, lower != 1, LOWER_BOUND)
    flat = (dimensions == 1) & ~values.is_null
    counts = np.where(flat, data.gather(np.where(flat, values.start, 0) + 12, ">i4"), 0).astype(np.int64)
    if ((counts < 0) | (4 * counts > values.length)).any():
        raise DamagedError
    total = int(counts.sum())
    starts: NDArray[np.int64] = np.empty(total, dtype=np.int64)
    lengths: NDArray[np.int64] = np.empty(total, dtype=np.int64)
    first = np.cumsum(counts) - counts  # place of each array's first element among all elements
    position, place = values.start + np.where(flat, 20, 12), first.copy()
    active = np.flatnonzero(counts)
    step = 0
    while len(active) > _FEW:  # all arrays side by side, one element each at a time
        starts[place[active]] = position[active] + 4
        length = data.gather(position[active], ">i4").astype(np.int64)
        lengths[place[active]] = length
        position[active] += 4 + np.maximum(length, 0)
        place[active] += 1
        step += 1
        active = active[counts[active] > step]
    for index in active.tolist():  # the longest few, one after the other
        offset = int(position[index])
        for target in range(int(place[index]), int(first[index] + counts[index])):
            size = data.int32(offset)
            starts[target], lengths[target] = offset + 4, size
            offset += 4 + max(size, 0)
        position[index] = offset
    if (lengths < -1).any() or (position != values.start + values.length)[~values.is_null].any():
        raise DamagedError
    is_null = lengths < 0
    return values, counts, Values(starts, np.maximum(lengths, 0), is_null, np.repeat(values.row, counts))
