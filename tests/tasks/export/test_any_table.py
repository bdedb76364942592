"""Tables that nobody thought of: whatever their types and values are, the file says what the server says."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import export_witness as witness
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from export_decoders import both
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proof import amount

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
NUMBERS = st.just("NaN") | (
    st.decimals(allow_nan=False).filter(lambda number: number.is_infinite() or abs(number.adjusted()) < 1000).map(str)
)
DATES = st.dates().map(str) | st.sampled_from(["infinity", "-infinity", "0044-03-15 BC", "5874897-12-31"])
TIMES = st.times().map(str) | st.just("24:00:00")
MOMENTS = st.datetimes().map(str) | st.sampled_from(["infinity", "-infinity", "294276-12-31 23:59:59.999999"])


def whole(bits: int) -> st.SearchStrategy[str]:
    """Integers of that many bits."""
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).map(str)


def decimals(precision: int, scale: int) -> st.SearchStrategy[str]:
    """Texts of numbers that numeric(precision, scale) takes."""
    digits = st.integers(-(10**precision) + 1, 10**precision - 1)
    return digits.map(lambda value: f"{value}e{-scale}") | st.just("NaN")


KINDS: dict[str, st.SearchStrategy[str]] = {
    "bool": st.sampled_from(["t", "f"]),
    "int2": whole(16),
    "int4": whole(32),
    "int8": whole(64),
    "oid": st.integers(0, 2**32 - 1).map(str),
    "float4": st.floats(width=32).map(str),
    "float8": st.floats().map(str),
    "text": TEXT,
    "varchar": TEXT,
    "char(40)": TEXT,
    "bytea": st.binary(max_size=30).map(lambda value: f"\\x{value.hex()}"),
    "uuid": st.uuids().map(str),
    "date": DATES,
    "time": TIMES,
    "timestamp": MOMENTS,
    "timestamptz": MOMENTS,
    "timetz": st.times().map(lambda value: f"{value}+05:30"),
    "interval": st.timedeltas(dt.timedelta(-(10**6)), dt.timedelta(10**6)).map(
        lambda value: f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    ),
    "numeric": NUMBERS,
    "inet": st.ip_addresses().map(str),
    "int8range": st.tuples(whole(62), whole(62)).map(lambda ends: f"[{','.join(sorted(ends, key=int))}]"),
    "point": st.tuples(st.floats(), st.floats()).map(str),
    "json": TEXT.map(lambda text: '"' + "".join(f"\\u{ord(each):04x}" for each in text if each < "\ud800") + '"'),
    "xid8": st.integers(0, 2**64 - 1).map(str),
}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A table: the types of its columns, and its rows as texts for their input functions."""

    kinds: list[str]
    rows: list[list[str | None]]


@st.composite
def tables(draw: st.DrawFn) -> Drawn:
    """One to six columns, arrays among them, and up to thirty rows; each column with many NULLs, few or none."""
    kinds, columns = [], []
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            precision = draw(st.integers(1, 80))
            scale = draw(st.integers(-5, 85))
            kind, values = f"numeric({precision},{scale})", decimals(precision, scale)
        else:
            kind = draw(st.sampled_from(sorted(KINDS)))
            values = KINDS[kind]
        if draw(st.integers(0, 3)) == 0:
            kind, values = f"{kind}[]", st.lists(st.none() | values, max_size=4).map(_array)
        kinds.append(kind)
        columns.append(draw(st.sampled_from([values, st.none() | values, st.none() | st.none() | st.none() | values])))
    return Drawn(kinds, draw(st.lists(st.tuples(*columns).map(list), max_size=30)))


def _array(values: list[str | None]) -> str:
    escaped = [
        "NULL" if each is None else '"' + each.replace("\\", "\\\\").replace('"', '\\"') + '"' for each in values
    ]
    return f"{{{','.join(escaped)}}}"


@given(drawn=tables(), block_size=st.sampled_from([8, 500, 5_000, 1 << 26]), group=st.sampled_from([1, 2, 7, 1000]))
@settings(
    max_examples=amount(30, 5_000), deadline=None, print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
def test_any_table_comes_back(
    connection: psycopg.Connection[Any], tmp_path: Path, drawn: Drawn, block_size: int, group: int
) -> None:
    """Every value is the server's or, where its type has no place for it, NULL and counted; both decoders alike.

    So it is however small the blocks and row groups are; with on_unfit "text" no value is lost at all.
    """
    names = [f"c{place}" for place in range(len(drawn.kinds))]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, drawn.kinds, strict=True))
    connection.execute("drop table if exists t")
    connection.execute(f"create table t (k int, {columns})")
    with connection.cursor() as cursor, cursor.copy("copy t from stdin") as copy:
        for number, row in enumerate(drawn.rows):
            copy.write_row([number, *row])
    query = f"select {', '.join(names)} from t order by k"
    ways: tuple[dict[str, Any], ...] = ({}, {"block_size": block_size})

    result = both(connection, query, tmp_path / "x.parquet", ways=ways, on_unfit="null", row_group_size=group)
    read = pq.read_table(tmp_path / "x.parquet")
    for told, name in zip(result.columns, names, strict=True):
        nulled, different = witness.compare(connection, "t", name, read[name])
        assert not different
        assert told.nulled == nulled

    both(connection, query, tmp_path / "x.parquet", ways=ways, on_unfit="text", row_group_size=group)
    read = pq.read_table(tmp_path / "x.parquet")
    for name, expected in zip(names, witness.texts(connection, query), strict=True):
        if read[name].type == pa.string():
            assert read[name].to_pylist() == expected
        else:
            assert witness.compare(connection, "t", name, read[name]) == (0, [])


@given(
    numbers=st.lists(
        st.none()
        | NUMBERS
        | st.integers(-(10**90), 10**90).map(str)
        | st.tuples(st.integers(-(10**80), 10**80), st.integers(0, 90)).map(lambda each: _point(*each)),
        min_size=1,
        max_size=20,
    ),
    precision=st.integers(1, 76),
    data=st.data(),
)
@settings(
    max_examples=amount(30, 5_000), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_decimals_that_are_wished_for(
    connection: psycopg.Connection[Any], tmp_path: Path, numbers: list[str | None], precision: int, data: Any
) -> None:
    """--decimal P,S, and text as a decimal by type_map: a number is that number, or NULL and counted."""
    scale = data.draw(st.integers(0, precision))
    connection.execute("drop table if exists t")
    connection.execute("create table t (k int, n numeric, s text)")
    with connection.cursor() as cursor, cursor.copy("copy t from stdin") as copy:
        for place, number in enumerate(numbers):
            copy.write_row([place, number, number])
    arrow = f"decimal({precision},{scale})"

    result = both(
        connection, "select n, s from t order by k", tmp_path / "x.parquet", decimal=(precision, scale),
        type_map={"text": arrow}, on_unfit="null",
    )  # fmt: skip

    read = pq.read_table(tmp_path / "x.parquet")
    nulled, different = witness.compare(connection, "t", "n", read["n"])
    assert not different
    assert result.columns[0].nulled == nulled
    assert read["n"].to_pylist() == read["s"].to_pylist()


def _point(digits: int, scale: int) -> str:
    """The digits with a point before the last so many."""
    sign, text = ("-" if digits < 0 else ""), str(abs(digits)).rjust(scale + 1, "0")
    return f"{sign}{text[: len(text) - scale]}.{text[len(text) - scale :]}" if scale else f"{sign}{text}"
