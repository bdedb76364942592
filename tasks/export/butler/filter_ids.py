"""Ids to pick rows by: strictly int64, and found without a detour through floats."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from absurd.tasks.export.butler.errors import FilterIdsError
from absurd.tasks.said import first_line

Ids = NDArray[np.int64]

_WHOLE = re.compile(r"-?[0-9]+")
_INT64 = np.iinfo(np.int64)


def read_filter_ids(path: str | os.PathLike[str], column: str | None = None) -> Ids:
    """The ids in a column (default: the first) of a Parquet file, sorted, each once.

    An id is a whole number of 64 bits: integers, decimals and digits in text are taken as they are, floats where they
    stand for one integer only (below 2^53, for real below 2^24).  Raises FilterIdsError, which names the first row
    with anything else, NULL included, or the file that cannot be read; OSError.
    """
    where = Path(path).name
    try:
        names = pq.read_schema(path).names
        if not names:
            raise FilterIdsError(f"{where} has no columns")
        column = names[0] if column is None else column
        if column not in names:
            raise FilterIdsError(f"{where} has no column {column!r}; it has {', '.join(names)}", column=column)
        values = pq.read_table(path, columns=[column])[column].combine_chunks()
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise FilterIdsError(
            f"{path} cannot be read: {os.strerror(error.errno) if error.errno else error}", path=os.fspath(path)
        ) from None
    except pa.ArrowInvalid as error:
        raise FilterIdsError(f"{where} is no Parquet file: {first_line(error)}") from None
    if isinstance(values, pa.ChunkedArray):  # as older versions of pyarrow combine no chunk at all
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    return np.unique(_whole_numbers(values, f"column {column!r} of {where}"))


def mark(values: Any, ids: Ids, where: str) -> NDArray[np.bool_]:
    """Which of `values` (a column of a table) are among `ids`, which are sorted; NULL never is.

    Raises FilterIdsError if the column holds no integers.
    """
    if not pa.types.is_integer(values.type):
        raise FilterIdsError(f"{where} is of type {values.type}; rows can be picked by a column of integers only")
    valid = np.asarray(pc.is_valid(values))
    numbers = np.asarray(pc.fill_null(values, 0))
    if pa.types.is_uint64(values.type):  # what does not fit an int64 is no id
        valid &= numbers <= np.uint64(_INT64.max)
    numbers = numbers.astype(np.int64)
    if not len(ids):
        return np.zeros(len(numbers), dtype=np.bool_)
    places = np.minimum(np.searchsorted(ids, numbers), len(ids) - 1)
    found: NDArray[np.bool_] = (ids[places] == numbers) & valid
    return found


def _whole_numbers(values: Any, where: str) -> Ids:
    kind = values.type
    if pa.types.is_dictionary(kind):
        values, kind = values.dictionary_decode(), kind.value_type
    if values.null_count:
        first = int(np.argmin(np.asarray(pc.is_valid(values))))
        _refuse(where, first, None, "is NULL, which is no id")
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind):
            _check(values, np.asarray(values) <= np.uint64(_INT64.max), where, "does not fit 64 bits with a sign")
        return np.asarray(values).astype(np.int64)
    if pa.types.is_floating(kind):
        numbers = np.asarray(values)
        exact = np.asarray(numbers, dtype=np.float64)
        limit = 2.0 ** {16: 11, 32: 24, 64: 53}[kind.bit_width]
        _check(values, np.isfinite(exact) & (np.trunc(exact) == exact), where, "is no whole number")
        _check(values, np.abs(exact) < limit, where, f"is a {kind}, which stands for several integers there")
        return exact.astype(np.int64)
    if pa.types.is_decimal(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.fromiter(
            (_parsed(value, row, where) for row, value in enumerate(values.to_pylist())), np.int64, len(values)
        )
    raise FilterIdsError(f"{where} is of type {kind}; ids are int64")


def _parsed(value: Any, row: int, where: str) -> int:
    if isinstance(value, str):
        number = int(value) if _WHOLE.fullmatch(value.strip()) else None
    else:
        number = int(value) if value == value.to_integral_value() else None
    if number is None:
        _refuse(where, row, value, "is no whole number")
    if not _INT64.min <= number <= _INT64.max:
        _refuse(where, row, value, "does not fit 64 bits with a sign")
    return number


def _check(values: Any, good: NDArray[np.bool_], where: str, what: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        _refuse(where, row, values[row].as_py(), what)


def _refuse(where: str, row: int, value: Any, what: str) -> NoReturn:
    told = "" if value is None else f"{value!r} "
    raise FilterIdsError(f"row {row + 1} of {where}: {told}{what}", row=row + 1)
