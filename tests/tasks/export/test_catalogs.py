"""Real catalogues, loaded into PostgreSQL and exported: equal value by value, lists and light curves too."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from psycopg import sql

from absurd.tasks.export import export_query

CATALOGUES = (
    "vsx-x-ztfdr22_lc-m31.parquet",
    "skycatalogs/galaxy_9556.parquet",
    "skycatalogs/pointsource_9556.parquet",
    "lsdb/small_sky_source.csv",
)


def read(path: Path) -> pa.Table:
    """A catalogue with the parts of nested columns as columns of their own: PostgreSQL has arrays, and no struct."""
    table = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    while any(pa.types.is_struct(kind) for kind in table.schema.types):
        table = table.flatten()
    parts: dict[str, Any] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        lists = column.chunk(0) if column.num_chunks == 1 else column
        if pa.types.is_list(lists.type) and pa.types.is_list(lists.type.value_type):
            # Several light curves, each of its own length: one behind the other.
            lists = pa.ListArray.from_arrays(lists.values.offsets.take(lists.offsets), lists.values.values)
        if pa.types.is_list(lists.type) and pa.types.is_struct(lists.type.value_type):
            for each in lists.type.value_type:
                values = lists.values.field(each.name)
                parts[f"{name}.{each.name}"] = pa.ListArray.from_arrays(lists.offsets, values)
        else:
            parts[name] = lists
    return pa.table(parts)


def postgres_type(kind: Any) -> str:
    """The type that holds the values of an Arrow type."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{postgres_type(kind.value_type)}[]"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return {pa.int8(): "smallint", pa.int16(): "smallint", pa.int32(): "integer", pa.int64(): "bigint",
            pa.float32(): "real", pa.float64(): "double precision", pa.bool_(): "boolean"}[kind]  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, NaN as itself."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("name", CATALOGUES)
def test_a_catalogue_comes_back(connection: psycopg.Connection[Any], shared: Path, tmp_path: Path, name: str) -> None:
    """Every value of each column, in the same row: what was NULL, NaN, empty or a list is that again."""
    catalogue = read(shared / "data" / "catalogs" / name)
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(postgres_type(field.type)))
        for field in catalogue.schema
    ]
    connection.execute(sql.SQL("create table c (k serial, {})").format(sql.SQL(", ").join(columns)))
    names = sql.SQL(", ").join(map(sql.Identifier, catalogue.column_names))
    with connection.cursor() as cursor, cursor.copy(sql.SQL("copy c ({}) from stdin").format(names)) as copy:
        for row in zip(*(column.to_pylist() for column in catalogue.columns), strict=True):
            copy.write_row(row)

    result = export_query(connection, "select * from c order by k", tmp_path / "c.parquet", row_group_size=200)

    back = pq.read_table(tmp_path / "c.parquet")
    assert result.rows == catalogue.num_rows == back.num_rows
    assert back.column_names == ["k", *catalogue.column_names]
    different = [
        field.name
        for field in catalogue.schema
        if not same(catalogue[field.name].to_pylist(), back[field.name].to_pylist())
    ]
    assert different == []
