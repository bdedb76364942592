"""Which columns of a Parquet file get a dictionary, and which floats are split by byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from absurd.tasks.export.arrow_types import Column

SAMPLE = 8_192
"""Rows of the first row group that are looked at, evenly spread."""
DISTINCT_AT_MOST = 0.5
"""Share of different values in the sample up to which a dictionary pays.

Of a million rows in zstd, with a dictionary and without: 1,000 different strings 62 ms and 1.3 MB against 131 ms and
2.1 MB; 1,000 different bigints 37 ms and 1.3 MB against 77 ms and 2.2 MB; 5,000 dates 77 ms and 1.6 MB against
91 ms and 2.1 MB.  Where nearly all differ it costs: 50,000 strings 269 ms against 109 ms, random text 1.2 s against
0.9 s and doubles 123 ms against 54 ms for files that are no smaller.
"""


HUGE_BYTES = 64 << 10
"""Bytes of a value, on the average of a column, from which on it is copied as little as can be.

Its values are not sampled, which would hold them twice, have no dictionary, which would not pay, and no statistics: for
these the writer keeps four copies of a value at least, and leaves them out of the file where they are long.
"""


@dataclass(frozen=True, slots=True)
class Encodings:
    """How the columns of a file are written, by Parquet's names of them."""

    dictionaries: list[str]
    """Those with a dictionary."""
    splits: list[str]
    """Those that are split by byte."""
    statistics: list[str] | bool
    """Those with statistics; true: all."""


def encodings_for(columns: Sequence[Column], batches: Sequence[Any]) -> Encodings:
    """How to write the columns, from the first rows.

    The choice depends on the rows alone, not on how they are cut into batches.
    """
    dictionaries: list[str] = []
    splits: list[str] = []
    statistics: list[str] = []
    any_huge = False
    for place, column in enumerate(columns):
        name = f"{column.name}.list.element" if column.is_list else column.name
        values = [batch.column(place) for batch in batches]
        if _is_huge(values):
            any_huge = True
            continue
        is_struct = pa.types.is_struct(column.element)
        statistics += [f"{name}.{part.name}" for part in column.element] if is_struct else [name]
        if is_struct or pa.types.is_boolean(column.element):
            continue
        if batches and _repeats(_sampled(values), is_list=column.is_list):
            dictionaries.append(name)
        elif pa.types.is_floating(column.element):
            splits.append(name)
    return Encodings(dictionaries, splits, statistics if any_huge else True)


def _is_huge(arrays: Sequence[Any]) -> bool:
    """Whether the values take `HUGE_BYTES` each, or the lists of them."""
    most = HUGE_BYTES * sum(map(len, arrays))
    if sum(each.nbytes for each in arrays) <= most:  # which counts more than the values, by block
        return False
    import pyarrow.compute as pc  # a tenth of the program's start, and hardly any export needs it

    flat = [each.flatten() if pa.types.is_list(each.type) else each for each in arrays]
    if not pa.types.is_binary(flat[0].type) and not pa.types.is_string(flat[0].type):
        return False
    return sum(pc.sum(pc.binary_length(each)).as_py() or 0 for each in flat) > most


def _sampled(arrays: Sequence[Any]) -> Any:
    """About `SAMPLE` of the values, evenly spread."""
    step = max(1, sum(map(len, arrays)) // SAMPLE)
    begin, pieces = 0, []
    for each in arrays:
        pieces.append(each.take(pa.array(range(-begin % step, len(each), step), pa.int64())))
        begin += len(each)
    return pa.chunked_array(pieces)


def _repeats(sample: Any, *, is_list: bool) -> bool:
    values = pa.chunked_array([each.flatten() for each in sample.chunks]) if is_list else sample
    values = values.drop_null()
    return len(values.unique()) <= DISTINCT_AT_MOST * len(values)
