"""What the server itself says of a column's values, and whether a file says the same.

Values are compared with the server's own text, or with what it counts, by queries over the text protocol; nothing of
the export takes part in it.
"""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa

from absurd.tasks.export.arrow_types import INTERVAL_TYPE
from absurd.tasks.export.reader import SESSION

_MOST = 2**63 - 1
_EPOCH = 946_684_800_000_000
"""2000-01-01, from which the server counts, in microseconds after 1970-01-01."""


def texts(connection: psycopg.Connection[Any], query: str) -> list[list[str | None]]:
    """The result's columns as the server writes them: what COPY gives in its text form."""
    with connection.transaction():
        connection.execute(SESSION)
        result = connection.pgconn.exec_(query.encode())
    assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, result.error_message
    columns = []
    for place in range(result.nfields):
        values = [result.get_value(row, place) for row in range(result.ntuples)]
        columns.append([None if value is None else value.decode() for value in values])
    return columns


def said(connection: psycopg.Connection[Any], table: str, column: str, arrow: Any) -> list[Any]:
    """The values as `shown` would show them if they were kept in that Arrow type; in the order of k.

    Of an array, the elements one by one; beside them, as a tuple, its dimensions if it is no plain list.
    """
    if not pa.types.is_list(arrow):
        (values,) = texts(
            connection, f"select {_witness('v', arrow)} from (select k, {column} as v from {table}) q order by k"
        )
        return list(values)
    elements = f"array(select {_witness('e', arrow.value_type)} from unnest(v) with ordinality as u (e, o) order by o)"
    plain = "coalesce(array_ndims(v), 1) = 1 and coalesce(array_lower(v, 1), 1) = 1"
    with connection.transaction():
        connection.execute(SESSION)
        found = connection.execute(
            f"select case when v is not null then {elements}::text[] end, {plain}, array_dims(v)"
            f" from (select k, {column} as v from {table}) q order by k"
        ).fetchall()
    return [values if is_plain or values is None else (dims, *values) for values, is_plain, dims in found]


def _witness(value: str, arrow: Any) -> str:
    """SQL for the text that `shown` gives for the same value."""
    if pa.types.is_date32(arrow):
        return f"case when isfinite({value}) then ({value} - date '1970-01-01')::text else {value}::text end"
    if pa.types.is_time64(arrow):
        return f"trim_scale(extract(epoch from {value}) * 1000000)::text"
    if pa.types.is_timestamp(arrow):  # not its epoch: that is rounded where it is far away
        return f"encode({'timestamptz' if arrow.tz else 'timestamp'}_send({value}), 'hex')"
    if arrow == INTERVAL_TYPE:
        return f"encode(interval_send({value}), 'hex')"
    if pa.types.is_floating(arrow):
        return f"encode(float{arrow.bit_width // 8}send({value}), 'hex')"
    return f"case num_nulls({value}) when 0 then format('%s', {value}) end"


def fits(value: Any, arrow: Any) -> bool:
    """Whether that Arrow type has a place for what the server says of a value."""
    if value is None:
        return True
    if pa.types.is_list(arrow):
        return not isinstance(value, tuple) and all(fits(each, arrow.value_type) for each in value)
    if pa.types.is_date32(arrow):
        return bool(value.lstrip("-").isdecimal())
    if pa.types.is_time64(arrow):
        return bool(value != "86400000000")
    if pa.types.is_timestamp(arrow):
        return value not in ("7fffffffffffffff", "8000000000000000") and not _MOST - _EPOCH < int(value, 16) <= _MOST
    if arrow == INTERVAL_TYPE:
        return value not in ("7fffffffffffffff7fffffff7fffffff", "80000000000000008000000080000000")
    if pa.types.is_decimal(arrow):
        return value not in ("NaN", "Infinity", "-Infinity") and _digits_fit(value, arrow)
    return True


def _digits_fit(text: str, arrow: Any) -> bool:
    before, _, after = text.lstrip("-").lstrip("0").partition(".")
    return bool(len(before) <= arrow.precision - arrow.scale and len(after.rstrip("0")) <= arrow.scale)


def shown(value: Any, arrow: Any) -> Any:
    """A value of the file as the server would say it; `value` as `numbers` gives it."""
    if value is None:
        return None
    if pa.types.is_list(arrow):
        return [shown(each, arrow.value_type) for each in value]
    if pa.types.is_boolean(arrow):
        return "t" if value else "f"
    if pa.types.is_binary(arrow):
        return "\\x" + value.hex()
    if pa.types.is_float32(arrow):
        return _canonical(struct.pack(">f", value), np.isnan(value), "7fc00000")
    if pa.types.is_float64(arrow):
        return _canonical(struct.pack(">d", value), np.isnan(value), "7ff8000000000000")
    if pa.types.is_decimal(arrow):
        return f"{value:f}"
    if pa.types.is_timestamp(arrow):
        return struct.pack(">q", value - _EPOCH).hex()
    if arrow == INTERVAL_TYPE:
        return struct.pack(">qii", value["microseconds"], value["days"], value["months"]).hex()
    return str(value)


def _canonical(raw: bytes, is_nan: bool, nan: str) -> str:
    return nan if is_nan else raw.hex()


def numbers(column: Any) -> list[Any]:
    """The values of a column in Python, times and dates as the numbers that Arrow has: Python has no year 20000."""
    arrow = column.type
    if pa.types.is_list(arrow):
        if _counted(arrow.value_type) is not None:
            column = column.cast(pa.list_(pa.field("element", _counted(arrow.value_type))))
    elif _counted(arrow) is not None:
        column = column.cast(_counted(arrow))
    return list(column.to_pylist())


def _counted(arrow: Any) -> Any:
    if pa.types.is_date32(arrow):
        return pa.int32()
    return pa.int64() if pa.types.is_time64(arrow) or pa.types.is_timestamp(arrow) else None


def same(expected: Any, found: Any, arrow: Any) -> bool:
    """Whether both are one value; decimals by their digits, whose noughts at the end are the type's."""
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(
            same(one, other, arrow.value_type) for one, other in zip(expected, found, strict=True)
        )
    if pa.types.is_decimal(arrow) and expected is not None and found is not None:
        return Decimal(expected) == Decimal(found)
    return bool(expected == found)


def compare(
    connection: psycopg.Connection[Any], table: str, name: str, column: Any
) -> tuple[int, list[tuple[Any, ...]]]:
    """How many values, or elements, are NULL since they did not fit; and the values that are not what they were."""
    arrow = column.type
    expected_values = said(connection, table, name, arrow)
    found = [shown(value, arrow) for value in numbers(column)]
    nulled, different = 0, []
    assert len(expected_values) == len(found)
    for row, (one, other) in enumerate(zip(expected_values, found, strict=True)):
        expected = one
        if not fits(one, arrow):
            expected = None
            if isinstance(one, list):
                expected = [each if fits(each, arrow.value_type) else None for each in one]
            nulled += expected.count(None) - one.count(None) if expected is not None else 1
        if not same(expected, other, arrow):
            different.append((str(arrow), row, str(one)[:80], str(other)[:80]))
    return nulled, different
