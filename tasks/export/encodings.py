"""How columns are encoded: with a dictionary, split by byte, as steps from value to value, or lengths before texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from absurd.tasks.export.arrow_types import Column

Numbers = np.ndarray[Any, np.dtype[np.int64]]
QUICK_LEVEL = -1
"""Of zstd: the first without its entropy coder for what repeats nowhere."""

SAMPLE = 8_192
"""Rows of the first row group that are looked at."""
ONCE_AT_MOST = 0.2
"""Share of values that stand only once in the evenly spread sample, up to which a dictionary pays.

Of a million rows in zstd, with a dictionary and without: 1,000 different strings 62 ms and 1.3 MB against 131 ms and
2.1 MB; 1,000 different bigints 37 ms and 1.3 MB against 77 ms and 2.2 MB; 5,000 dates 77 ms and 1.6 MB against
91 ms and 2.1 MB.  Where many are alone it costs, be there others that repeat: 50,000 strings 269 ms against 109 ms,
random text 1.2 s against 0.9 s, and doubles of which two thirds are NaN or infinite 115 ms against 66 ms; for files
that are no smaller.
"""
STEP_BITS = 32
"""Bits that the steps from one 64-bit number to the next differ in, half of them at most, where only steps are kept.

Of 1.5 million serial numbers and of as many times 15 ms each and next to nothing, as numbers 40 and 46 ms and 7.6 and
3.2 MB; where the steps are random they take as much space as the numbers, and more time.
"""
UNLIKE_FROM = 0.85
"""Share of its size that a sample of texts keeps at least, by zstd without its entropy coder, if they are unlike.

Then there is nothing to be found in them again but the lengths that stand between them, which keeps zstd looking.  Put
before all texts, that takes UUIDs, hashes and random bytes six tenths of the time, and digits of random numbers two
thirds, for files that are 6 to 13 % smaller.  Texts that are alike, as serial numbers, would take up to half more.
"""
_MOST_TEXT = 1 << 20
"""Bytes of a sample of texts that are looked at."""
_LIKE_A_PAGE = 256 << 10
"""Noughts behind a sample, which take next to nothing: what is smaller than pages are, zstd compresses otherwise."""
LOSS_AT_MOST = 1.025
"""How much larger a sample of floats, split by byte, may become where zstd does without its entropy coder.

That coder takes half of the time which zstd takes, and finds next to nothing in digits that are noise: of 120 million
doubles a fifth of the time to write them for a file one in a hundred larger.  Rounded numbers need it.  Whole pages,
which are longer than the sample, may become up to a twentieth larger.
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
    noisy: list[str]
    """Those of them that zstd need not look at long."""
    steps: list[str]
    """Those of which the steps from value to value are kept."""
    apart: list[str]
    """Texts and bytes whose lengths stand before all of them."""
    statistics: list[str] | bool
    """Those with statistics; true: all."""

    @property
    def named(self) -> dict[str, str]:
        """Those of which Parquet's name of the encoding is given."""
        steps = dict.fromkeys(self.steps, "DELTA_BINARY_PACKED")
        return steps | dict.fromkeys(self.apart, "DELTA_LENGTH_BYTE_ARRAY")


def encodings_for(columns: Sequence[Column], batches: Sequence[Any]) -> Encodings:
    """How to write the columns, from the first rows.

    The choice depends on the rows alone, not on how they are cut into batches.
    """
    dictionaries: list[str] = []
    splits: list[str] = []
    noisy: list[str] = []
    steps: list[str] = []
    apart: list[str] = []
    statistics: list[str] = []
    any_huge = False
    named = Counter(path for column in columns for path in _paths(column))
    for place, column in enumerate(columns):
        paths = _paths(column)
        values = [batch.column(place) for batch in batches]
        if _is_huge(values):
            any_huge = True
            continue
        statistics += paths
        if pa.types.is_struct(column.element) or pa.types.is_boolean(column.element):
            continue
        name = paths[0]
        if named[name] > 1:  # a column `a.list.element` beside the array `a`: what is for one would be for both
            continue
        if not batches:  # no rows, no pages
            continue
        sample = _sampled(values, is_list=column.is_list)
        if _repeats(sample):
            dictionaries.append(name)
        elif pa.types.is_floating(column.element):
            splits.append(name)
            if _is_noise(sample):
                noisy.append(name)
        elif not column.is_list and _is_long(column.element) and _are_alike(_steps(values)):
            steps.append(name)
        elif _is_text(column.element) and _are_unlike(sample):
            apart.append(name)
    return Encodings(dictionaries, splits, noisy, steps, apart, statistics if any_huge else True)


def _paths(column: Column) -> list[str]:
    """The names by which Parquet knows what a column is made of."""
    name = f"{column.name}.list.element" if column.is_list else column.name
    return [f"{name}.{part.name}" for part in column.element] if pa.types.is_struct(column.element) else [name]


def _is_huge(arrays: Sequence[Any]) -> bool:
    """Whether the values take `HUGE_BYTES` each, or the lists of them."""
    most = HUGE_BYTES * sum(map(len, arrays))
    if sum(each.nbytes for each in arrays) <= most:  # which counts more than the values, by block
        return False
    import pyarrow.compute as pc  # a tenth of the program's start, and hardly any export needs it

    flat = [each.flatten() if pa.types.is_list(each.type) else each for each in arrays]
    if not _is_text(flat[0].type):
        return False
    return sum(pc.sum(pc.binary_length(each)).as_py() or 0 for each in flat) > most


def _sampled(arrays: Sequence[Any], *, is_list: bool) -> Any:
    """About `SAMPLE` of the values, evenly spread, or what is in as many lists; without NULLs."""
    step = max(1, sum(map(len, arrays)) // SAMPLE)
    begin, pieces = 0, []
    for each in arrays:
        taken = each.take(_in_arrow(np.arange(-begin % step, len(each), step)))
        pieces.append((taken.flatten() if is_list else taken).drop_null())
        begin += len(each)
    return pa.chunked_array(pieces)


def _repeats(sample: Any) -> bool:
    if not len(sample):
        return True
    counts = _in_numpy(sample.value_counts().field("counts"))
    return bool(np.count_nonzero(counts == 1) <= ONCE_AT_MOST * len(sample))


def _is_noise(sample: Any) -> bool:
    """Whether floats, split by byte, become hardly smaller by an entropy coder than without."""
    split = np.concatenate([_in_numpy(each) for each in sample.chunks])[: SAMPLE // 2]
    data = split.view(np.uint8).reshape(len(split), -1).T.tobytes() + bytes(_LIKE_A_PAGE)
    coded, quick = (pa.Codec("zstd", level).compress(data, asbytes=True) for level in (1, QUICK_LEVEL))
    return len(quick) <= LOSS_AT_MOST * len(coded)


def _is_long(arrow: Any) -> bool:
    return bool(pa.types.is_int64(arrow) or pa.types.is_timestamp(arrow) or pa.types.is_time64(arrow))


def _is_text(arrow: Any) -> bool:
    return bool(pa.types.is_string(arrow) or pa.types.is_binary(arrow))


def _are_unlike(sample: Any) -> bool:
    """Whether hardly a text has anything in common with another."""
    pieces, room = [], _MOST_TEXT
    for each in sample.chunks:
        if len(each) and each.buffers()[2] is not None:
            ends = np.frombuffer(each.buffers()[1], np.int32, len(each) + 1, 4 * each.offset)
            pieces.append(memoryview(each.buffers()[2])[ends[0] : ends[-1]][:room])
            room -= len(pieces[-1])
    data = b"".join(pieces)
    return len(pa.Codec("zstd", QUICK_LEVEL).compress(data, asbytes=True)) >= UNLIKE_FROM * max(len(data), 1)


def _steps(arrays: Sequence[Any]) -> Numbers:
    """From each of the first `SAMPLE` values to the next, without NULLs."""
    found, room = [np.zeros(0, np.int64)], SAMPLE
    for each in arrays:
        if room:
            found.append(_in_numpy(each.slice(0, room).drop_null()).view(np.int64))
            room -= min(room, len(each))
    values = np.concatenate(found)
    return values[1:] - values[:-1]  # which wraps around, as the encoding does


def _are_alike(steps: Numbers) -> bool:
    if not len(steps):
        return False
    usual = np.partition(steps, len(steps) // 2)[len(steps) // 2]
    far = np.abs(steps - usual).view(np.uint64) >= 1 << (STEP_BITS - 1)
    return bool(np.count_nonzero(far) <= len(steps) // 32)  # a step that is not makes 32 of them long


def _in_arrow(numbers: Numbers) -> Any:
    """The same in Arrow, whose own ways there load pandas where it is installed: half a second."""
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])


def _in_numpy(values: Any) -> np.ndarray[Any, Any]:
    """The same in numpy; of a type with a width, without NULLs."""
    width = f"f{values.type.bit_width // 8}" if pa.types.is_floating(values.type) else "i8"
    return np.frombuffer(values.buffers()[1], width, len(values), values.offset * values.type.bit_width // 8)
