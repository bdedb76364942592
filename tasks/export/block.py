"""What a decoder gives: some rows, and how much memory they keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from absurd.tasks.export import text_cast
from absurd.tasks.export.arrow_types import Column
from absurd.tasks.export.unfit import Unfit, UnfitAtError

BLOCK_BYTES = 8 << 20
"""Bytes of the stream in one block, unless one row alone is longer; also bytes of its columns of fixed width."""
BLOCK_ROWS = 65_536


@dataclass(slots=True)
class Block:
    """Rows that were decoded together; none is empty."""

    batch: Any
    """A `pyarrow.RecordBatch`; not to be used any more after `recycle`."""
    wire: int
    """Bytes of the stream that the rows came in."""
    held: int
    """Bytes of memory."""
    recycle: Callable[[], None]
    """Give the memory back to the decoder."""
    unfit: Mapping[int, Unfit] = field(default_factory=dict)
    """Place of a column: its values that did not fit and are NULL now."""


def bytes_at_most(block_size: int) -> int:
    """How many bytes of the stream make a block at most, for buffers of `block_size` bytes in all."""
    return max(1, min(BLOCK_BYTES, block_size // 8))


def rows_at_most(columns: Sequence[Column], block_bytes: int) -> int:
    """How many rows make a block at most.

    NULL takes less in the stream than in memory, so what is held is bounded by the columns' widths too.
    """
    width = sum(_width(column.element) for column in columns if not column.is_list)
    return max(1, min(BLOCK_ROWS, block_bytes // max(width, 1)))


def schema_of(columns: Sequence[Column]) -> Any:
    """The Arrow schema of the columns."""
    return pa.schema([column.field for column in columns])


def finish(
    columns: Sequence[Column], schema: Any, arrays: list[Any], *, refuse: bool, check_text: bool
) -> tuple[Any, dict[int, Unfit]]:
    """The batch of decoded columns, and what in it did not fit, by what is left to do in Arrow.

    `schema` is that of the columns, which many batches share.

    Texts are cast to the types that were asked for.  With `check_text`, for servers that do not know how their text
    is encoded, they must be UTF-8.
    """
    unfit: dict[int, Unfit] = {}
    for place, column in enumerate(columns):
        if check_text and column.received == pa.string():
            arrays[place] = _mended(column, arrays[place], _is_utf8, unfit, place, refuse=refuse)
        if column.parse:
            arrays[place] = _parsed(column, arrays[place], unfit, place, refuse=refuse)
    return pa.RecordBatch.from_arrays(arrays, schema=schema), unfit


def _parsed(column: Column, texts: Any, unfit: dict[int, Unfit], place: int, *, refuse: bool) -> Any:
    values = text_cast.cast(_values_of(column, texts), column.element)
    if values is None:

        def fits(some: Any) -> bool:
            return text_cast.cast(some, column.element) is not None

        texts = _mended(column, texts, fits, unfit, place, refuse=refuse)
        values = text_cast.cast(_values_of(column, texts), column.element)
    if not column.is_list:
        return values
    return pa.ListArray.from_buffers(column.arrow, len(texts), texts.buffers()[:2], children=[values])


def _mended(
    column: Column, texts: Any, fits: Callable[[Any], bool], unfit: dict[int, Unfit], place: int, *, refuse: bool
) -> Any:
    """The texts, or lists of texts, with NULL for each that does not fit."""
    import pyarrow.compute as pc  # a tenth of the program's start, and hardly any export needs it

    values = _values_of(column, texts)
    if fits(values):
        return texts
    rows = _rows_of(texts) if column.is_list else range(1, len(texts) + 1)
    bad = [index for index in range(len(values)) if not fits(values.slice(index, 1))]
    first = values.slice(bad[0], 1)
    found = Unfit(len(bad), rows[bad[0]], str(first[0]) if _is_utf8(first) else "a text that is not UTF-8")
    if refuse:
        raise UnfitAtError(column, found.row, found.what)
    unfit[place] = found
    keep = [True] * len(values)
    for index in bad:
        keep[index] = False
    mended = pc.if_else(pa.array(keep), values, pa.scalar(None, pa.string()))
    if not column.is_list:
        return mended
    return pa.ListArray.from_buffers(texts.type, len(texts), texts.buffers()[:2], children=[mended])


def _values_of(column: Column, texts: Any) -> Any:
    return texts.values if column.is_list else texts


def _rows_of(lists: Any) -> list[int]:
    """For each element, which list it is in, from 1."""
    return [row for row, size in enumerate(lists.value_lengths().to_pylist(), 1) for _ in range(size or 0)]


def _is_utf8(texts: Any) -> bool:
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _width(arrow: Any) -> int:
    if pa.types.is_struct(arrow):
        return sum(_width(each.type) for each in arrow)
    try:
        return int(arrow.bit_width) // 8
    except ValueError:  # its values differ in length
        return 4
