"""Every type and every edge value: kept exactly, or refused by name; nothing changed silently."""

from __future__ import annotations

import datetime as dt
import math
import re
import struct
from decimal import Decimal, getcontext
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from absurd.tasks.export import PGOID_TO_ARROW, ExportResult, UnfitValueError, arrow_type_for_oid, export_query
from absurd.tasks.export.arrow_types import INTERVAL_TYPE
from absurd.tasks.export.compiled import library

UTC = dt.UTC
DECODERS: tuple[Any, ...] = ("compiled", "numpy") if library() else ("numpy",)
WIDE = Decimal("1e-37")
getcontext().prec = 100

# Type of a column: its values in SQL, its Arrow type, and the values as Python reads them from the file.
KEPT: dict[str, tuple[str, Any, list[Any]]] = {
    "bool": ("values (true), (false), (null)", pa.bool_(), [True, False, None]),
    "int2": ("values (32767::int2), (-32768), (null)", pa.int16(), [32767, -32768, None]),
    "int4": ("values (2147483647), (-2147483648), (null)", pa.int32(), [2**31 - 1, -(2**31), None]),
    "int8": ("values (9223372036854775807), (-9223372036854775808), (null)", pa.int64(), [2**63 - 1, -(2**63), None]),
    "oid": ("values (4294967295::oid), (0)", pa.uint32(), [2**32 - 1, 0]),
    "float4": (
        "values (0.1), (-0), (1e-45), (null)",
        pa.float32(),
        [0.10000000149011612, 0.0, 1.401298464324817e-45, None],
    ),
    "float8": (
        "values (0.1::float8), (5e-324), (1.7976931348623157e308)",
        pa.float64(),
        [0.1, 5e-324, 1.7976931348623157e308],
    ),
    "numeric(38,10)": (
        "values (9999999999999999999999999999.9999999999::numeric(38,10)), (-0.0000000001), (null)",
        pa.decimal128(38, 10),
        [Decimal("9999999999999999999999999999.9999999999"), Decimal("-0.0000000001"), None],
    ),
    "numeric(60,20)": (
        "values (1234567890123456789012345678901234567890.12345678901234567890::numeric(60,20))",
        pa.decimal256(60, 20),
        [Decimal("1234567890123456789012345678901234567890.12345678901234567890")],
    ),
    "numeric(5,-2)": (
        "values ((-99900)::numeric(5,-2)), (1200)",
        pa.decimal128(7, 0),
        [Decimal(-99900), Decimal(1200)],
    ),
    "numeric(3,5)": ("values (0.00123::numeric(3,5))", pa.decimal128(5, 5), [Decimal("0.00123")]),
    "text": (
        "values (''), (null), ('NULL'), (E'a\\nb\\r\\n\"c\",\\\\N\\t'), ('ünïcødé 北京 🚀')",
        pa.string(),
        ["", None, "NULL", 'a\nb\r\n"c",\\N\t', "ünïcødé 北京 🚀"],
    ),
    "varchar(5)": ("values (' x '::varchar(5)), ('')", pa.string(), [" x ", ""]),
    "char(5)": ("values ('ab'::char(5)), (null)", pa.string(), ["ab   ", None]),
    "name": ("values ('a'::name)", pa.string(), ["a"]),
    "pg_temp.colour": ("values ('red'::pg_temp.colour), (null)", pa.string(), ["red", None]),
    "pg_temp.positive": ("values (7::pg_temp.positive)", pa.int32(), [7]),
    "bytea": ("values ('\\x0061ff5c22'::bytea), ('\\x'), (null)", pa.binary(), [b"\x00a\xff\\\x22", b"", None]),
    "uuid": (
        "values ('12345678-1234-5678-1234-56789ABCDEF0'::uuid), (null), ('ffffffff-ffff-ffff-ffff-ffffffffffff')",
        pa.string(),
        ["12345678-1234-5678-1234-56789abcdef0", None, "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    ),
    "json": ("values ('{\"a\" : 1,\"a\":2}'::json), ('null'), (null)", pa.string(), ['{"a" : 1,"a":2}', "null", None]),
    "jsonb": (
        "values ('[1, 2.50, 123456789012345678901]'::jsonb), (null)",
        pa.string(),
        ["[1, 2.50, 123456789012345678901]", None],
    ),
    "date": (
        "values ('0001-01-01'::date), ('9999-12-31'), ('1970-01-01'), (null)",
        pa.date32(),
        [dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(1970, 1, 1), None],
    ),
    "time": ("values ('00:00'::time), ('23:59:59.999999')", pa.time64("us"), [dt.time(0), dt.time(23, 59, 59, 999999)]),
    "timestamp": (
        "values ('0001-01-01'::timestamp), ('2000-02-29 23:59:59.999999'), ('9999-12-31 23:59:59.999999')",
        pa.timestamp("us"),
        [
            dt.datetime.fromisoformat("0001-01-01"),
            dt.datetime.fromisoformat("2000-02-29T23:59:59.999999"),
            dt.datetime.fromisoformat("9999-12-31T23:59:59.999999"),
        ],
    ),
    "timestamptz": (
        "values ('2020-02-29 23:59:59.999999+05:30'::timestamptz), (null)",
        pa.timestamp("us", tz="UTC"),
        [dt.datetime(2020, 2, 29, 18, 29, 59, 999999, tzinfo=UTC), None],
    ),
    "int4[]": (
        "values ('{1,null,-3}'::int[]), ('{}'), (null)",
        pa.list_(pa.field("element", pa.int32())),
        [[1, None, -3], [], None],
    ),
    "text[]": (
        "values ('{\"a,b\",\"\",NULL,\"NULL\"}'::text[]), ('{}'), ('{x}')",
        pa.list_(pa.field("element", pa.string())),
        [["a,b", "", None, "NULL"], [], ["x"]],
    ),
    "numeric(20,5)[]": (
        "values ('{1.5,null}'::numeric(20,5)[]), (null)",
        pa.list_(pa.field("element", pa.decimal128(20, 5))),
        [[Decimal("1.50000"), None], None],
    ),
    "bool[]": ("values ('{t,f,null}'::bool[])", pa.list_(pa.field("element", pa.bool_())), [[True, False, None]]),
    "uuid[]": (
        "values (array['12345678-1234-5678-1234-56789abcdef0'::uuid, null])",
        pa.list_(pa.field("element", pa.string())),
        [["12345678-1234-5678-1234-56789abcdef0", None]],
    ),
    "jsonb[]": (
        "values (array['{\"a\":1}'::jsonb, null])",
        pa.list_(pa.field("element", pa.string())),
        [['{"a": 1}', None]],
    ),
    "pg_temp.colour[]": (
        "values (array['red'::pg_temp.colour, null])",
        pa.list_(pa.field("element", pa.string())),
        [["red", None]],
    ),
    "interval": (
        "values ('1 year 2 mons -3 days 04:05:06.789'::interval), (null), ('-178000000 years'), ('0')",
        INTERVAL_TYPE,
        [
            {"months": 14, "days": -3, "microseconds": 14_706_789_000},
            None,
            {"months": -2_136_000_000, "days": 0, "microseconds": 0},
            {"months": 0, "days": 0, "microseconds": 0},
        ],
    ),
    "interval[]": (
        "values (array['1 mon'::interval, null, '2 days']), (null), ('{}')",
        pa.list_(pa.field("element", INTERVAL_TYPE)),
        [
            [
                {"months": 1, "days": 0, "microseconds": 0},
                None,
                {"months": 0, "days": 2, "microseconds": 0},
            ],
            None,
            [],
        ],
    ),
    "numeric(12,2)": (
        "values (-0.01::numeric(12,2)), (9999999999.99), (0), (null), (10000), (0.10), (100000000), (1.23)",
        pa.decimal128(12, 2),
        [Decimal(each) if each else None for each in ["-0.01", "9999999999.99", "0.00"]]
        + [None]
        + [Decimal(each) for each in ["10000.00", "0.10", "100000000.00", "1.23"]],
    ),
    "numeric(38,37)": (
        "values (9.9999999999999999999999999999999999999::numeric(38,37)), (-1e-37), (0.00001)",
        pa.decimal128(38, 37),
        [Decimal("9.9999999999999999999999999999999999999"), Decimal("-1e-37"), Decimal("0.00001").quantize(WIDE)],
    ),
    "numeric(76,0)": (
        f"values ({'9' * 76}::numeric(76,0)), (-{'9' * 76}), (1)",
        pa.decimal256(76, 0),
        [Decimal("9" * 76), Decimal("-" + "9" * 76), Decimal(1)],
    ),
    "pg_temp.positive[]": (
        "values ('{7,null}'::pg_temp.positive[])",
        pa.list_(pa.field("element", pa.int32())),
        [[7, None]],
    ),
    "pg_temp.price[]": (
        "values ('{7.1,null}'::pg_temp.price[])",
        pa.list_(pa.field("element", pa.decimal128(9, 3))),
        [[Decimal("7.100"), None]],
    ),
    "timestamptz[]": (
        "values ('{1969-12-31 23:59:59.999999+00,null}'::timestamptz[])",
        pa.list_(pa.field("element", pa.timestamp("us", tz="UTC"))),
        [[dt.datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), None]],
    ),
}

TEXT = {
    "numeric": (
        "'123456789012345678901234567890.0500'::numeric, 'NaN', 'Infinity', '1e-30'",
        ["123456789012345678901234567890.0500", "NaN", "Infinity", "0.000000000000000000000000000001"],
    ),
    "numeric(80,5)": ("1.5::numeric(80,5)", ["1.50000"]),
    "timetz": ("'12:34:56.789012+05:30'::timetz", ["12:34:56.789012+05:30"]),
    "inet": ("'10.0.0.1/8'::inet, '::1'", ["10.0.0.1/8", "::1"]),
    "int4range": ("'[1,5)'::int4range, 'empty'", ["[1,5)", "empty"]),
    "tstzrange": ("'[2020-01-01 00:00+05,)'::tstzrange", ['["2019-12-31 19:00:00+00",)']),
    "point": ("'(0.1,1e300)'::point", ["(0.1,1e+300)"]),
    "bit": ("B'10101'", ["10101"]),
    "money": ("'12.34'::money", ["$12.34"]),
    "tsvector": ("'a:1 b:2'::tsvector", ["'a':1 'b':2"]),
    '"char"': ("'x'::\"char\"", ["x"]),
    "composite": ("row(1, 'a,b')", ['(1,"a,b")']),
    "point[]": ("array['(1,2)'::point]", ['{"(1,2)"}']),
    "int2vector": ("'1 2'::int2vector", ["1 2"]),
}

REFUSED = {
    "'infinity'::date": "infinity",
    "'-infinity'::date": "-infinity",
    "'infinity'::timestamp": "infinity",
    "'-infinity'::timestamptz": "-infinity",
    "'294276-12-31 23:59:59'::timestamp": "a time past the year 294246",
    "'24:00'::time": "the time 24:00:00",
    "'NaN'::numeric(38,10)": "NaN",
    "'{1.5,NaN}'::numeric(20,5)[]": "NaN",
    "'{{1,2},{3,4}}'::int[]": "an array of several dimensions",
    "'[0:2]={1,2,3}'::int[]": "an array whose first index is not 1",
    "'{2020-01-01,infinity}'::date[]": "infinity",
}


def both(connection: psycopg.Connection[Any], query: str, path: Path, **options: Any) -> ExportResult:
    """Export with the compiled decoder and with numpy's, from one snapshot: the files are equal byte for byte."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        for decoder in DECODERS:
            result = export_query(connection, query, path.with_suffix(f".{decoder}"), decoder=decoder, **options)
    first, *others = [path.with_suffix(f".{decoder}").read_bytes() for decoder in DECODERS]
    assert all(other == first for other in others)
    path.write_bytes(first)
    return result


@pytest.fixture(scope="module")
def database_url(module_database_url: str) -> str:
    """One database for all: what they make in it is gone with their connections, or made anew."""
    return module_database_url


@pytest.fixture
def typed(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A connection with an enum and a domain of its own."""
    connection.execute("create type pg_temp.colour as enum ('red', 'green')")
    connection.execute("create domain pg_temp.positive as int check (value > 0)")
    connection.execute("create domain pg_temp.price as numeric(9,3)")
    connection.execute("set lc_monetary = 'C'")
    return connection


@pytest.mark.parametrize("name", KEPT)
def test_kept_exactly(typed: psycopg.Connection[Any], tmp_path: Path, name: str) -> None:
    """The column has the fitting Arrow type and the same values, NULL included."""
    values, arrow, expected = KEPT[name]
    typed.execute(f"create temp table t (k serial, v {name})")
    typed.execute(f"insert into t (v) {values}")

    result = both(typed, "select v from t order by k", tmp_path / "x.parquet")

    table = pq.read_table(tmp_path / "x.parquet")
    assert table.schema.field("v").type == arrow
    assert table["v"].to_pylist() == expected
    assert (result.rows, result.columns[0].kept_as_text) == (len(expected), False)


@pytest.mark.parametrize("name", TEXT)
def test_kept_as_text(typed: psycopg.Connection[Any], tmp_path: Path, name: str) -> None:
    """A type without an exact counterpart is the server's own text, and the field's metadata say so."""
    values, expected = TEXT[name]
    rows = ", ".join(f"({value})" for value in re.split(r", (?![^(]*\))", values))

    result = both(typed, f"select * from (values {rows}) as q (v)", tmp_path / "x.parquet")

    table = pq.read_table(tmp_path / "x.parquet")
    metadata = table.schema.field("v").metadata
    assert table["v"].to_pylist() == expected
    assert table.schema.field("v").type == pa.string()
    assert result.columns[0].kept_as_text
    assert metadata[b"absurd.kept_as"] == b"text"
    assert metadata[b"postgres.type"]


@pytest.mark.parametrize("value", REFUSED)
@pytest.mark.parametrize("decoder", DECODERS)
def test_refused_by_name(connection: psycopg.Connection[Any], tmp_path: Path, value: str, decoder: Any) -> None:
    """A value that does not fit is an error with column and row, no file, and the connection still works."""
    kind = value.rpartition("::")[2]
    case = f"(case when n = 70000 then {value} end)::{kind}"
    query = f'select {case} as "a b" from generate_series(1, 70001) as n order by n'
    with pytest.raises(UnfitValueError) as caught:
        export_query(connection, query, tmp_path / "x.parquet", decoder=decoder)

    assert str(caught.value).startswith(f"row 70000 of column 'a b' holds {REFUSED[value]}, which ")
    assert '"a b"::text' in str(caught.value)
    assert (caught.value.code, caught.value.details["row"]) == ("export_value_unfit", 70000)
    assert list(tmp_path.iterdir()) == []
    assert connection.execute("select 1").fetchone() == (1,)


def test_floats_that_are_no_numbers(connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    """NaN, both infinities and the negative zero stay what they are; NULL is none of them."""
    query = (
        "select v::real as f4, v as f8 from (values ('NaN'::float8), ('Infinity'), ('-Infinity'), ('-0'), (null)) q (v)"
    )
    export_query(connection, query, tmp_path / "x.parquet")

    for column in pq.read_table(tmp_path / "x.parquet").columns:
        nan, infinite, negative, zero, null = column.to_pylist()
        assert math.isnan(nan)
        assert (infinite, negative, null) == (math.inf, -math.inf, None)
        assert math.copysign(1, zero) == -1


def test_long_arrays_beside_short_ones(connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Arrays of very different lengths, with and without NULLs, of fixed and of variable width."""
    query = """
        select array(select nullif(i, 3) from generate_series(1, n) i) as numbers,
               array(select repeat('x', i % 7) from generate_series(1, n) i) as words
        from unnest(array[0, 1, 5000, 2, 0, 3] || array_fill(4, array[40])) with ordinality as q (n, k) order by k
    """
    both(connection, query, tmp_path / "x.parquet")

    table = pq.read_table(tmp_path / "x.parquet")
    counts = [0, 1, 5000, 2, 0, 3] + [4] * 40
    assert table["numbers"].to_pylist() == [[None if i == 3 else i for i in range(1, n + 1)] for n in counts]
    assert table["words"].to_pylist() == [["x" * (i % 7) for i in range(1, n + 1)] for n in counts]


row_values = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(),
    st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.none() | st.binary(max_size=20),
    st.none() | st.decimals(-(10**20), 10**20, places=6, allow_nan=False),
    st.none() | st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001
    st.none() | st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), max_size=5),
    st.none() | st.lists(st.none() | st.text(st.sampled_from('ab",\\{} N')), max_size=5),
)


@given(rows=st.lists(row_values, max_size=12))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_rows_come_back(connection: psycopg.Connection[Any], tmp_path: Path, rows: list[tuple[Any, ...]]) -> None:
    """Whatever is in a table of common types is in the file, in order."""
    connection.execute("drop table if exists t")
    connection.execute(
        "create table t (k serial, a bigint, b float8, c text, d bytea, e numeric(30,6), f timestamptz,"
        " g int[], h text[])"
    )
    with connection.cursor() as cursor:
        cursor.executemany("insert into t (a, b, c, d, e, f, g, h) values (%s, %s, %s, %s, %s, %s, %s, %s)", rows)

    both(connection, "select a, b, c, d, e, f, g, h from t order by k", tmp_path / "x.parquet")

    read = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert [_comparable(row.values()) for row in read] == [_comparable(row) for row in rows]


def test_a_type_of_ones_own(
    connection: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is put into PGOID_TO_ARROW holds: the text is cast to that type, and a text that does not fit refused."""
    monkeypatch.setitem(PGOID_TO_ARROW, 1700, pa.float64())  # numeric
    monkeypatch.setitem(PGOID_TO_ARROW, 869, pa.int32())  # inet
    export_query(connection, "select 1.5::numeric(9,3) as a, array[2.5, null] as b", tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [{"a": 1.5, "b": [2.5, None]}]

    query = "select * from (values (null), ('::1'::inet)) q (a)"
    with pytest.raises(UnfitValueError, match="row 2 of column 'a' holds ::1, which int32 cannot keep"):
        export_query(connection, query, tmp_path / "y.parquet")


def test_arrow_type_for_oid() -> None:
    """The seed's function: the type for an OID, string for those that are unknown; a modifier makes numeric exact."""
    assert arrow_type_for_oid(20) == pa.int64()
    assert arrow_type_for_oid(1184) == pa.timestamp("us", tz="UTC")
    assert arrow_type_for_oid(1700) == pa.string()
    assert arrow_type_for_oid(1700, (10 << 16 | 2) + 4) == pa.decimal128(10, 2)
    assert arrow_type_for_oid(999_999) == pa.string()


def _comparable(values: Any) -> list[Any]:
    """Floats by their bits, since NaN differs from itself and 0 does not from -0."""
    return [
        struct.pack("d", math.nan if value != value else value) if isinstance(value, float) else value
        for value in values
    ]
