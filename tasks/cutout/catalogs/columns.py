"""Columns of Arrow as numpy and astropy have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from absurd.tasks.cutout.catalogs.rows import about
from absurd.tasks.cutout.errors import DataIdValidationError

_TIME = "%Y-%m-%dT%H:%M:%S"


def to_astropy(table: Any) -> Any:
    """A `pyarrow.Table` as `astropy.table.Table` with units and descriptions; NULL is masked."""
    from astropy.table import Column, MaskedColumn, Table

    columns = []
    for field in table.schema:
        values, mask = as_numpy(table[field.name].combine_chunks())
        told = {"name": field.name, **about(field)}
        columns.append(Column(values, **told) if mask is None else MaskedColumn(values, mask=mask, **told))
    return Table(columns)


def as_plain(table: Any, form: str, *, lists: bool = True) -> Any:
    """A table with columns of numbers, booleans, texts, and `lists` of numbers of one length; times become ISO 8601.

    Raises DataIdValidationError, which names the column and the form of the file, for any other.
    """
    columns = [_as_plain(table[field.name], field.name, form, lists=lists) for field in table.schema]
    fields = [field.with_type(column.type) for field, column in zip(table.schema, columns, strict=True)]
    return pa.table(columns, schema=pa.schema(fields))


def as_numpy(column: Any) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Values, and where they are NULL if any is; what stands in such a place is 0, False or an empty text."""
    mask = np.asarray(column.is_null()) if column.null_count else None
    kind = column.type
    if pa.types.is_fixed_size_list(kind) and not pa.types.is_nested(kind.value_type):
        flat = column.flatten() if mask is None else column.fill_null([0] * kind.list_size).flatten()
        values = flat.to_numpy(zero_copy_only=False).reshape(len(column), kind.list_size)
        return values, None if mask is None else np.broadcast_to(mask[:, None], values.shape)
    if mask is not None and (filler := _filler(kind)) is not None:
        column = column.fill_null(filler)
    values = column.to_numpy(zero_copy_only=False)
    return (values.astype(str) if _is_text(kind) else values), mask


def _as_plain(column: Any, name: str, form: str, *, lists: bool) -> Any:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _as_plain(column.cast(kind.value_type), name, form, lists=lists)
    if pa.types.is_timestamp(kind):
        return pc.strftime(column, format=_TIME)
    if pa.types.is_date(kind):
        return column.cast(pa.string())
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    listed = kind.value_type if lists and pa.types.is_fixed_size_list(kind) else kind
    numbers = pa.types.is_integer(listed) or pa.types.is_floating(listed)
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)
    if not (numbers or texts):
        raise DataIdValidationError(
            f"column {name!r} is of the type {kind}, which is not written as {form}",
            advice="leave it out, or write Parquet or Arrow",
        )
    return column


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _filler(kind: Any) -> Any:
    """What stands in a masked place, so that integers stay integers; None for columns of lists and structures."""
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return 0
    if pa.types.is_boolean(kind):
        return False
    return "" if _is_text(kind) else None
