"""Types that a caller wishes for: a value is that value in the other type, or it is refused.

All that changes is what the wish itself asks for, as the float next to a number.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from export_decoders import DECODERS, both

from absurd.tasks.export import (
    PGOID_TO_ARROW,
    ExportConfigError,
    UnfitValueError,
    export_batch,
    export_query,
    read_manifest,
    register_type,
)
from absurd.tasks.export.arrow_types import NAME_TO_ARROW

# Type and value in SQL, Arrow type wished for, and the value as Python reads it from the file.
KEPT: tuple[tuple[str, str, str, Any], ...] = (
    ("numeric", "1.1", "float64", 1.1),
    ("numeric", "'NaN'", "decimal(5,2)", None),
    ("numeric", "'Infinity'", "float64", float("inf")),
    ("numeric(38,10)", "1.5", "decimal(20,5)", Decimal("1.50000")),
    ("numeric(5,2)", "1.50", "string", "1.50"),
    ("numeric[]", "'{1.5,null}'", "float64", [1.5, None]),
    ("int8", "42", "int32", 42),
    ("int8[]", "'{42,null}'", "int32", [42, None]),
    ("float8", "3", "int32", 3),
    ("float8", "1e-07", "decimal(20,10)", Decimal("0.0000001000")),
    ("text", "'007'", "decimal(5,2)", Decimal("7.00")),
    ("text", "'abcd'", "binary(4)", b"abcd"),
    ("char(5)", "'ab'", "binary", b"ab   "),
    ("char(5)", "'ab'", "large_string", "ab   "),
    ("char(5)[]", "'{ab,NULL}'", "large_string", ["ab   ", None]),
    ("name", "'a b'", "binary", b"a b"),
    ("bool", "true", "string", "t"),
    ("inet", "'::1'", "large_string", "::1"),
    ("inet[]", "'{::1,10.0.0.1/8}'", "large_string", ["::1", "10.0.0.1/8"]),
    ("uuid", "'12345678-1234-5678-1234-56789ABCDEF0'", "binary(16)", bytes.fromhex("1234567812345678123456789abcdef0")),
    ("money", "'$92,233,720,368,547,758.07'", "string", "$92,233,720,368,547,758.07"),
    ("pg_temp.pair", "row(1, 'a')", "large_string", "(1,a)"),
    ("pg_temp.pair[]", "array[row(1, 'a')::pg_temp.pair]", "large_string", ["(1,a)"]),
    ("box[]", "'{(1,1),(0,0);(2,2),(1,1)}'", "large_string", "{(1,1),(0,0);(2,2),(1,1)}"),
    ("pg_temp.digits", "'12'", "int32", 12),
    ("pg_temp.digits[]", "'{12}'", "int32", [12]),
)  # fmt: skip

REFUSED: tuple[tuple[str, str, str], ...] = (
    ("text", f"'{'9' * 60}'", "decimal(38,0)"),
    ("text", f"'{'9' * 300}'", "decimal(76,0)"),
    ("text", "'249868051.03539'", "decimal(76,76)"),
    ("text", "'1.25'", "decimal(5,1)"),
    ("text", "'1000'", "decimal(5,2)"),
    ("text", "'1e99999999'", "decimal(5,2)"),
    ("text", "''", "decimal(5,2)"),
    ("text", "'NaN'", "decimal(5,2)"),
    ("text[]", f"'{{1,{'9' * 60}}}'", "decimal(38,0)"),
    ("text", "'1e400'", "float64"),
    ("text", "'-1e39'", "float32"),
    ("numeric", "'1e310'", "float64"),
    ("numeric(38,10)", "1.000001", "decimal(20,5)"),
    ("numeric(38,10)", "1e20", "decimal(20,5)"),
    ("float8", "1.5", "int32"),
    ("float8", "1e300", "int64"),
    ("int8", "2147483648", "int32"),
    ("int8", "-1", "uint32"),
    ("text", "'3 apples'", "int32"),
    ("text", "'abc'", "binary(4)"),
    ("timestamp", "'2020-01-01 00:00:00.5'", "timestamp[s]"),
    ("timestamp", "'2020-01-01 00:00:00.000001'", "timestamp[ms]"),
    ("timestamp", "'1600-01-01'", "timestamp[ns]"),
    ("timestamp", "'infinity'", "timestamp[ns]"),
    ("timestamp", "'0044-03-15 BC'", "timestamp[s]"),
    ("timestamp", "'2020-01-01'", "timestamp[us,tz=UTC]"),
    ("timestamp", "'2020-01-01 12:00'", "date32"),
    ("timestamptz", "'2020-01-01'", "timestamp[us]"),
    ("date", "'20200-01-01'", "timestamp[s]"),
)

NEVER = (
    ("interval", "duration[s]"),
    ("timetz", "time64[us]"),
    ("text", "null"),
    ("bytea[]", "time32[s]"),
    ("inet", "month_day_nano_interval"),
)


@pytest.fixture(scope="module")
def database_url(module_database_url: str) -> str:
    """One database for all: what they make in it is gone with their connections, or made anew."""
    return module_database_url


@pytest.fixture
def typed(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A connection with types that have casts to text which say something else than their values."""
    for statement in (
        "create type pg_temp.pair as (a int, b text)",
        "create type pg_temp.digits as enum ('12', '13')",
        "create function pg_temp.lie(pg_temp.pair) returns text language sql immutable as $$select 'lie'$$",
        "create function pg_temp.lie(pg_temp.digits) returns text language sql immutable as $$select '1'$$",
        "create cast (pg_temp.pair as text) with function pg_temp.lie(pg_temp.pair)",
        "create cast (pg_temp.digits as text) with function pg_temp.lie(pg_temp.digits)",
        "set lc_monetary = 'C'",
    ):
        connection.execute(statement)
    return connection


def wish(kind: str, arrow: str) -> dict[str, Any]:
    """The wish for a type, or for the elements of an array."""
    return {"type_map": {kind.partition("(")[0].removesuffix("[]"): arrow}}


@pytest.mark.parametrize(("kind", "value", "arrow", "expected"), KEPT)
def test_the_same_value_in_another_type(
    typed: psycopg.Connection[Any], tmp_path: Path, kind: str, value: str, arrow: str, expected: Any
) -> None:
    """The value is in the file, from the text of its type and not from a cast; NaN, where it does not fit, is NULL."""
    typed.execute(f"create temp table t (v {kind})")
    typed.execute(f"insert into t values ({value}), (null)")

    both(typed, "select v from t", tmp_path / "x.parquet", on_unfit="null", **wish(kind, arrow))

    assert pq.read_table(tmp_path / "x.parquet")["v"].to_pylist() == [expected, None]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(("kind", "value", "arrow"), REFUSED)
def test_refused_and_not_changed(
    connection: psycopg.Connection[Any], tmp_path: Path, kind: str, value: str, arrow: str, decoder: Any
) -> None:
    """Digits that have no place, zones and fractions that would be lost: refused by name, NULL and counted, or text."""
    connection.execute(f"create temp table t (k serial, v {kind})")
    connection.execute(f"insert into t (v) values (null), ({value})")
    options = {**wish(kind, arrow), "decoder": decoder}
    query = "select v from t order by k"

    with pytest.raises(UnfitValueError, match="row 2 of column 'v' holds "):
        export_query(connection, query, tmp_path / "x.parquet", **options)
    (nulled,) = export_query(connection, query, tmp_path / "x.parquet", on_unfit="null", **options).columns
    assert nulled.nulled == 1
    export_query(connection, query, tmp_path / "x.parquet", on_unfit="text", **options)
    text = connection.execute("select format('%s', v) from t where k = 2").fetchone()
    assert pq.read_table(tmp_path / "x.parquet")["v"].to_pylist() == [None, *(text or ())]


@pytest.mark.parametrize(("kind", "arrow"), NEVER)
def test_a_type_that_no_text_becomes(
    connection: psycopg.Connection[Any], tmp_path: Path, kind: str, arrow: str
) -> None:
    """A wish that no value could fulfil is told before anything is read, with the column and both types."""
    with pytest.raises(ExportConfigError, match=rf"column 'v' of type .* cannot be kept as .*{arrow[:5]}"):
        export_query(connection, f"select null::{kind} as v", tmp_path / "x.parquet", **wish(kind, arrow))


@pytest.mark.parametrize("value", ["1.005", "1000", "NaN", "Infinity", "1e-30"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_decimal_of_ones_own(connection: psycopg.Connection[Any], tmp_path: Path, value: str, decoder: Any) -> None:
    """--decimal 5,2: what has other digits is refused, NULL, or makes the column text."""
    query = f"values (1.5::numeric), ('{value}')"
    options: dict[str, Any] = {"decimal": (5, 2), "decoder": decoder}

    with pytest.raises(UnfitValueError, match="row 2 of column 'column1' holds "):
        export_query(connection, query, tmp_path / "x.parquet", **options)
    export_query(connection, query, tmp_path / "x.parquet", on_unfit="null", **options)
    assert pq.read_table(tmp_path / "x.parquet")["column1"].to_pylist() == [Decimal("1.50"), None]
    export_query(connection, query, tmp_path / "x.parquet", on_unfit="text", **options)
    (text,) = connection.execute(f"select format('%s', '{value}'::numeric)").fetchone() or ("",)
    assert pq.read_table(tmp_path / "x.parquet")["column1"].to_pylist() == ["1.5", text]


@pytest.mark.parametrize(
    ("wished", "told"),
    [
        ("timestamptz=timestamp[us,tz=Nowhere/City]", "'Nowhere/City', which is none"),
        ("timestamptz=timestamp[us,tz=../../etc/passwd]", "which is none"),
        ("timestamptz=timestamp[us,tz=+25:00]", "which is none"),
        ("timestamptz=timestamp[us,tz=]", "is no Arrow type"),
        ("timestamptz=timestamp[us,UTC]", "is no Arrow type"),
        ("99999999999=float64", "the OID 99999999999: OIDs are from 1 to 4294967295"),
        ("0=float64", "the OID 0"),
        ("int4=binary(-5)", "'binary(-5)' is no Arrow type"),
        ("int4=binary(-1)", "is no Arrow type"),
        ("int4=binary(0)", "is no Arrow type"),
        ("int4=binary(99999999999)", "is no Arrow type"),
        ("int4=float65", "is no Arrow type"),
        ("int4=decimal(99,2)", "digits in all"),
    ],
)
def test_a_wish_that_is_none(tmp_path: Path, wished: str, told: str) -> None:
    """A zone, an OID or a width that there is not is told as the option it stands in, before any connection is made."""
    kind, arrow = wished.split("=", 1)
    with pytest.raises(ExportConfigError) as caught:
        export_query("host=nowhere.invalid", "select 1 as a", tmp_path / "x.parquet", type_map={kind: arrow})
    assert told in str(caught.value)

    listed = tmp_path / "x.json"
    listed.write_text(json.dumps([{"sql": "select 1 as a", "out": "x.parquet", "type_map": {kind: arrow}}]))
    for words in (
        ["--sql", "select 1 as a", "--out", "x.parquet", "--type-map", wished],
        ["--config", "x.json"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "absurd", "export", "--direct", "--dsn", "host=nowhere.invalid", *words],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, list(tmp_path.iterdir())) == (2, [listed]), done.stderr
        assert told in done.stderr


def test_one_type_named_twice(connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    """By OID and by name, or by two names, a type is kept as one thing: where two are wished for, neither is taken."""
    query, out = "select 1.5::numeric as v, 7 as w", tmp_path / "x.parquet"
    refused: dict[str, dict[int | str, str]] = {
        "1700 as double and numeric as string": {1700: "float64", "numeric": "string"},
        "int4 as int64 and integer as double": {"int4": "int64", "integer": "float64"},
    }
    for told, wished in refused.items():
        with pytest.raises(ExportConfigError, match=f"type_map names one type twice, {told}: keep one"):
            export_query(connection, query, out, type_map=wished)
    assert not any(tmp_path.iterdir())

    export_query(connection, query, out, type_map={1700: "float64", "numeric": "double"})
    assert pq.read_table(out).to_pylist() == [{"v": 1.5, "w": 7}]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+02:00", "-11:30"])
def test_zones_that_there_are(connection: psycopg.Connection[Any], tmp_path: Path, zone: str) -> None:
    """A moment stays the moment it is in any zone."""
    query = "select '2020-06-01 12:00+00'::timestamptz as v"
    both(connection, query, tmp_path / "x.parquet", type_map={"timestamptz": f"timestamp[us,tz={zone}]"})

    (moment,) = pq.read_table(tmp_path / "x.parquet")["v"].to_pylist()
    assert moment == datetime(2020, 6, 1, 12, tzinfo=UTC)


# The registry ------------------------------------------------------------------------------------


@pytest.fixture
def registry() -> Iterator[None]:
    """Forgets what a test registers."""
    shipped = dict(PGOID_TO_ARROW)
    yield
    NAME_TO_ARROW.clear()
    PGOID_TO_ARROW.clear()
    PGOID_TO_ARROW.update(shipped)


@pytest.mark.usefixtures("registry")
def test_a_type_that_is_registered(typed: psycopg.Connection[Any], tmp_path: Path) -> None:
    """`register_type` tells by name how a type is kept, in arrays too; a wish of an export goes before it.

    A name that the database does not have does no harm, and the manifest tells what was registered.
    """
    query = "select '12'::pg_temp.digits as v, '{13,NULL}'::pg_temp.digits[] as w"
    register_type("pg_temp.digits", "int32")
    register_type("public.nowhere", pa.float64())

    both(typed, query, tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [{"v": 12, "w": [13, None]}]
    assert pq.read_schema(tmp_path / "x.parquet").field("v").type == pa.int32()
    options = read_manifest(tmp_path / "x.parquet").options or {}
    assert options["type_map"] == {"pg_temp.digits": "int32", "public.nowhere": "double"}

    both(typed, query, tmp_path / "y.parquet", type_map={"pg_temp.digits": "int64"})
    assert pq.read_schema(tmp_path / "y.parquet").field("v").type == pa.int64()


@pytest.mark.usefixtures("registry")
def test_one_type_registered_twice(connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    """A type that is registered by OID and by name as two things is refused, as by two names; a wish does not help."""
    query = "select 1.5::numeric as v"
    PGOID_TO_ARROW[1700] = pa.float64()
    register_type("numeric", "decimal(20,5)")
    with pytest.raises(ExportConfigError, match="what is registered names one type twice, 1700 as double and numeric"):
        export_query(connection, query, tmp_path / "x.parquet", type_map={"numeric": "string"})

    register_type("numeric", "float64")
    export_query(connection, query, tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [{"v": 1.5}]


@pytest.mark.usefixtures("registry")
def test_a_registered_type_that_does_not_fit(typed: psycopg.Connection[Any], tmp_path: Path) -> None:
    """A value that the registered type cannot hold is refused with its row, and what is no Arrow type at once."""
    register_type("pg_temp.digits", "binary(1)")
    with pytest.raises(UnfitValueError, match="row 1 of column 'v' holds 12, which"):
        export_query(typed, "select '12'::pg_temp.digits as v", tmp_path / "x.parquet")

    with pytest.raises(ExportConfigError, match="'float65' is no Arrow type"):
        register_type("pg_temp.digits", "float65")
    assert NAME_TO_ARROW == {"pg_temp.digits": pa.binary(1)}


@pytest.mark.usefixtures("registry")
def test_files_of_another_registry_are_not_kept(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that goes on keeps no file that what is registered now, by name or OID, would not give."""
    listed = [{"sql": "select 12::numeric as v", "out": str(tmp_path / "x.parquet")}]
    made = []

    def resume() -> None:
        (item,) = export_batch(database_url, listed, resume=True).items
        made.append((item.state, str(pq.read_schema(tmp_path / "x.parquet").field("v").type)))

    resume()
    register_type("numeric", "int16")
    resume()
    resume()
    NAME_TO_ARROW.clear()
    with monkeypatch.context() as registered:
        registered.setitem(PGOID_TO_ARROW, 1700, pa.float64())
        resume()
        resume()
        registered.delitem(PGOID_TO_ARROW, 1700)  # which numeric has as text as well
        resume()
    resume()

    assert made == [
        ("exported", "string"),
        ("exported", "int16"), ("kept", "int16"),
        ("exported", "double"), ("kept", "double"),
        ("exported", "string"), ("kept", "string"),
    ]  # fmt: skip
