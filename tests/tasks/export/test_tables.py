"""Real tables, loaded into PostgreSQL and exported: equal value by value."""

from __future__ import annotations

import csv
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg import sql

from absurd.tasks.export import export_query

HIPPARCOS_FIELDS = 78


def read_exoplanets(folder: Path) -> tuple[list[tuple[str, str]], list[list[str | None]]]:
    """Numbers stay numbers of as many digits as they have; empty is NULL."""
    with (folder / "open_exoplanet_catalogue.txt").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    kinds = {"binaryflag": "smallint", "discoveryyear": "integer", "mass": "numeric(30,20)", "radius": "real"}
    words = {"name", "discoverymethod", "lastupdate", "system_rightascension", "system_declination", "list"}
    types = [(name, "text" if name in words else kinds.get(name, "double precision")) for name in header]
    return types, [[field or None for field in row] for row in rows]


def read_hipparcos(folder: Path) -> tuple[list[tuple[str, str]], list[list[str | None]]]:
    """78 fields between bars, with their blanks; the second is a number."""
    with gzip.open(folder / "hip_main.dat.gz", "rt", encoding="ascii") as file:
        rows: list[list[str | None]] = [list(line.rstrip("\n").split("|")) for line in file]
    return [(f"h{n}", "bigint" if n == 1 else "text") for n in range(HIPPARCOS_FIELDS)], rows


def read_deep_sky(folder: Path) -> tuple[list[tuple[str, str]], list[list[str | None]]]:
    """Semicolons; the empty string stays empty beside NULL."""
    with (folder / "OpenNGC_addendum.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter=";")
    types = [(name, "numeric(8,2)" if name in ("MajAx", "MinAx") else "varchar(500)") for name in header]
    return types, [
        [(field or None) if kind.startswith("numeric") else field for field, (_, kind) in zip(row, types, strict=True)]
        for row in rows
    ]


def read_orbits(folder: Path) -> tuple[list[tuple[str, str]], list[list[str | None]]]:
    """State vectors of 16 and 17 digits."""
    with (folder / "mba_sample_1000_orbit.csv").open(encoding="ascii", newline="") as file:
        header, *rows = csv.reader(file)
    return [(name, "char(9)" if name in ("ObjID", "FORMAT") else "float8") for name in header], list(map(list, rows))


@pytest.fixture
def folder(shared: Path) -> Path:
    """The real tables."""
    return shared / "data" / "tables"


@pytest.mark.parametrize("read", [read_exoplanets, read_hipparcos, read_deep_sky, read_orbits])
def test_equal_value_by_value(connection: psycopg.Connection[Any], folder: Path, tmp_path: Path, read: Any) -> None:
    """Every value of the table is in the file, of the same type, in the same row."""
    types, rows = read(folder)
    _load(connection, types, rows)

    result = export_query(connection, "select * from t order by k", tmp_path / "t.parquet", row_group_size=1000)

    table = pq.read_table(tmp_path / "t.parquet")
    with connection.cursor(binary=True) as cursor:
        stored = cursor.execute("select * from t order by k").fetchall()
    assert result.rows == table.num_rows == len(rows)
    assert table.column_names == ["k", *(name for name, _ in types)]
    assert list(zip(*(column.to_pylist() for column in table.columns), strict=True)) == stored
    for place, (name, kind) in enumerate(types):
        given = [None if row[place] is None else _value(kind, row[place]) for row in rows]
        read_back = table[name].to_pylist()
        assert [None if value is None else _bare(kind, value) for value in read_back] == given, name


def test_sums_are_those_of_the_published_files(
    connection: psycopg.Connection[Any], folder: Path, tmp_path: Path
) -> None:
    """Rows, sums and NULLs agree with what another program counted in the files."""
    expected = json.loads((folder / "expected_tables.json").read_text())["open_exoplanet_catalogue.txt"]
    types, rows = read_exoplanets(folder)
    _load(connection, types, rows)
    export_query(connection, "select name, period, radius from t", tmp_path / "t.parquet")

    table = pq.read_table(tmp_path / "t.parquet")
    assert table.num_rows == expected["rows"]
    assert sum(value or 0 for value in table["period"].to_pylist()) == pytest.approx(expected["period_sum"], rel=1e-9)
    assert table["radius"].null_count == expected["radius_nulls"]
    assert sum(not name.isascii() for name in table["name"].to_pylist()) == expected["non_ascii_rows"]


def _load(connection: psycopg.Connection[Any], types: list[tuple[str, str]], rows: list[list[str | None]]) -> None:
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in [("k", "bigint"), *types]
    )
    connection.execute(sql.SQL("create table t ({})").format(columns))
    with connection.cursor() as cursor, cursor.copy("copy t from stdin") as copy:
        for number, row in enumerate(rows):
            copy.write_row([number, *row])


def _value(kind: str, text: str | None) -> Any:
    """A field of the file as the type of its column has it."""
    assert text is not None
    if kind in ("real", "float8", "double precision"):
        return _bare(kind, float(text))
    if kind in ("smallint", "integer", "bigint"):
        return int(text)
    return Decimal(text) if kind.startswith("numeric") else text


def _bare(kind: str, value: Any) -> Any:
    """Single precision as its shortest text; text of fixed length without its blanks."""
    if kind == "real":
        return f"{value:.6g}"
    return value.rstrip(" ") if kind.startswith("char") else value
