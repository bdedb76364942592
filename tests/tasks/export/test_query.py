"""Exports of queries: the file, its metadata, its snapshot, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from absurd.errors import DatabaseUnavailableError
from absurd.tasks.export import (
    ExportConfigError,
    ExportFailedError,
    ExportQueryError,
    UnfitValueError,
    export_query,
    export_query_to_parquet,
    row_group,
)


def test_an_empty_result_is_a_file_with_columns(database_url: str, tmp_path: Path) -> None:
    """No rows still give the schema, so that whoever reads the file needs no exception."""
    result = export_query(database_url, "select 1 as a, 'x' as b, array[1] as c where false", tmp_path / "x.parquet")

    table = pq.read_table(tmp_path / "x.parquet")
    assert (result.rows, result.row_groups, table.num_rows) == (0, 0, 0)
    assert [str(field.type) for field in table.schema] == ["int32", "string", "list<element: int32>"]


def test_one_column_of_nulls_loses_no_row(database_url: str, tmp_path: Path) -> None:
    """A row that is nothing but NULL is a row."""
    export_query(database_url, "values ('a'), (null), ('')", tmp_path / "x.parquet")

    assert pq.read_table(tmp_path / "x.parquet")["column1"].to_pylist() == ["a", None, ""]


@pytest.mark.parametrize(
    "query",
    [
        "select 1 as a;",
        "select 1 as a ;; \n",
        "\n select 1 as a -- why\n",
        "select 1 as a -- why",
        "select 1 as a;; -- why; 'not\n /* ; */ ;",
        "select 1 as a, ';--' as b, e'\\';' as c, $x$;'$x$ as d; --",
        "values (1)",
        "table one",
    ],
)
def test_ways_to_write_a_query(connection: psycopg.Connection[Any], tmp_path: Path, query: str) -> None:
    """Semicolons and comments at the end do no harm; VALUES and TABLE are queries too."""
    connection.execute("create table one as select 1 as a")

    assert export_query(connection, query, tmp_path / "x.parquet").rows == 1


def test_row_groups_are_full(database_url: str, tmp_path: Path) -> None:
    """Each row group has exactly the rows asked for, the last one the rest, in the order of the query."""
    query = "select n, repeat('x', 100) as t from generate_series(1, 250000) n order by n"

    result = export_query(database_url, query, tmp_path / "x.parquet", row_group_size=100_000)

    file = pq.ParquetFile(tmp_path / "x.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    assert sizes == [100_000, 100_000, 50_000]
    assert (result.rows, result.row_groups) == (250_000, 3)
    assert result.bytes == (tmp_path / "x.parquet").stat().st_size
    assert file.read()["n"].to_pylist() == list(range(1, 250_001))


def test_row_groups_are_bounded_in_bytes(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide rows make a row group earlier, so that memory stays bounded; a row larger than a batch is no problem."""
    monkeypatch.setattr(row_group, "ROW_GROUP_BYTES", 1 << 20)
    query = "select n, repeat(n::text, case n when 7 then 3000000 else 60000 end) as t from generate_series(1, 40) n"

    result = export_query(database_url, query, tmp_path / "x.parquet", block_size=1 << 21)

    lengths = [len(text) for text in pq.read_table(tmp_path / "x.parquet")["t"].to_pylist()]
    assert lengths == [len(str(n)) * (3_000_000 if n == 7 else 60_000) for n in range(1, 41)]
    assert result.row_groups >= 4


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "none"])
def test_compression(database_url: str, tmp_path: Path, compression: str) -> None:
    """The pages are compressed as asked."""
    export_query(database_url, "select 1 as a", tmp_path / "x.parquet", compression=compression)

    chunk = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(0).column(0)
    assert chunk.compression == {"none": "UNCOMPRESSED"}.get(compression, compression.upper())


def test_the_file_tells_where_it_comes_from(database_url: str, tmp_path: Path) -> None:
    """Query, types, rows, snapshot and versions are in the footer; no address, user or password is."""
    query = "select 1.5::numeric(4,1) as a, interval '1 day' as b"
    result = export_query(database_url, query, tmp_path / "x.parquet")

    metadata = {
        key.decode(): value.decode() for key, value in pq.read_metadata(tmp_path / "x.parquet").metadata.items()
    }
    assert metadata["absurd.query"] == query
    assert metadata["absurd.rows"] == "1"
    assert json.loads(metadata["absurd.columns"]) == {"a": "numeric(4,1)", "b": "interval"}
    assert metadata["absurd.snapshot"] == result.snapshot.snapshot
    assert metadata["absurd.snapshot_at"].endswith("+00")
    assert metadata["absurd.server_version"] and metadata["absurd.version"]
    told = {name: text for name, text in metadata.items() if name.startswith("absurd.")}
    assert not [text for text in told.values() if "host" in text or str(tmp_path) in text]


def test_two_exports_in_one_transaction_see_one_snapshot(database_url: str, tmp_path: Path) -> None:
    """In a caller's REPEATABLE READ transaction, what others commit meanwhile is not seen; it stays open after."""
    with psycopg.connect(database_url, autocommit=True) as other, psycopg.connect(database_url) as mine:
        other.execute("create table t as select generate_series(1, 10) as n")
        mine.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        mine.execute("select 1")
        first = export_query(mine, "table t", tmp_path / "a.parquet")
        other.execute("insert into t values (11)")
        second = export_query_to_parquet(mine.cursor(), "table t", str(tmp_path / "b.parquet"), 5, 1 << 20, False)

        assert (first.rows, second.rows, second.row_groups) == (10, 10, 2)
        assert mine.info.transaction_status.name == "INTRANS"
        mine.rollback()
        assert export_query(mine, "table t", tmp_path / "a.parquet").rows == 11
        assert mine.info.transaction_status.name == "IDLE"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("selekt 1", 'PostgreSQL refuses the query: syntax error at or near "selekt" (at character 1)'),
        ("select x from nowhere", 'relation "nowhere" does not exist'),
        ("select 1 as a, 2 as a, 3 as b, 4 as b", "several columns of the query are called 'a' and 'b'"),
        ("select 1; select 2", "cannot insert multiple commands"),
        ("", "the query gives no columns"),
        ("select", "the query gives no columns"),
        ("create table t (a int)", "the query gives no columns"),
        ("insert into q values (1) returning a", "cannot execute INSERT in a read-only transaction"),
        ("show server_version", "PostgreSQL refuses the query"),
        ("select $1::int", "there is no parameter $1"),
        ("select 1) to program 'true' --", "syntax error"),
        ("select 1 as a\0, 2 as b", "the query holds a NUL"),
        ("select '\udcff' as a", "or is not UTF-8"),
    ],
)
def test_a_query_that_is_none(connection: psycopg.Connection[Any], tmp_path: Path, query: str, message: str) -> None:
    """PostgreSQL's reason is told in one sentence; nothing is written, to disk or to the database."""
    connection.execute("create table q (a int)")
    with pytest.raises(ExportQueryError) as caught:
        export_query(connection, query, tmp_path / "x.parquet")

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code == "export_query_invalid"
    assert list(tmp_path.iterdir()) == []
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_query_that_fails_on_its_way(database_url: str, tmp_path: Path) -> None:
    """An error after some rows leaves what was there before under the final name, and nothing beside it."""
    (tmp_path / "x.parquet").write_text("older")
    query = "select 1 / (90000 - n) as a from generate_series(1, 100000) n"
    with pytest.raises(ExportFailedError, match="the query failed after 89999 rows: division by zero") as caught:
        export_query(database_url, query, tmp_path / "x.parquet")

    assert caught.value.code == "export_failed"
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]


@pytest.mark.parametrize("options", [{"row_group_size": 0}, {"compression": "rar"}])
def test_options_that_are_none(tmp_path: Path, options: dict[str, Any]) -> None:
    """Wrong options are told before any connection is made."""
    with pytest.raises(ExportConfigError, match=r"is (0|'rar'); it must be"):
        export_query("host=nowhere.invalid", "select 1", tmp_path / "x.parquet", **options)


def test_no_database(tmp_path: Path) -> None:
    """A server that does not answer is another error than a bad query, and the password is not told."""
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached") as caught:
        export_query("host=127.0.0.1 port=1 user=u password=geheim", "select 1", tmp_path / "x.parquet")

    assert "geheim" not in str(caught.value)


def test_the_server_goes_away(database_url: str, connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    """A connection that is cut in the middle is an error worth a retry, and leaves nothing."""

    def cut(rows: int, size: int) -> None:
        del rows, size
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where query like 'copy%'")

    query = "select n, repeat('x', 1000) as t from generate_series(1, 1000000) n"
    with pytest.raises(DatabaseUnavailableError, match="the database went away during the export"):
        export_query(database_url, query, tmp_path / "x.parquet", progress=cut)
    assert list(tmp_path.iterdir()) == []


def test_progress_and_its_end(database_url: str, connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Progress tells rows and bytes as they grow; an error in it ends the export, on the server too."""
    seen: list[tuple[int, int]] = []
    query = "select n, repeat('x', 1000) as t from generate_series(1, 30000) n"
    export_query(
        database_url,
        query,
        tmp_path / "x.parquet",
        progress=lambda rows, size: seen.append((rows, size)),
        limit_mib_per_second=40,
    )
    assert seen == sorted(seen)
    assert seen[-1][0] == 30_000
    assert seen[-1][1] > 30_000_000
    assert len(seen) > 2

    def stop(rows: int, size: int) -> None:
        raise InterruptedError(f"{rows} {size}")

    with pytest.raises(InterruptedError):
        export_query(connection, query, tmp_path / "y.parquet", progress=stop)
    assert connection.execute(
        "select count(*) from pg_stat_activity where query like 'copy%' and state = 'active'"
    ).fetchone() == (0,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.parquet", "x.parquet.manifest.json"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_export_leaves_no_file(
    database_url: str, tmp_path: Path, how: signal.Signals, until: Callable[[Callable[[], object]], None]
) -> None:
    """Killed in the middle: nothing under the final name; the next export removes what is left and is whole."""
    stuck = "case when n = 50000 then pg_sleep(60)::text end"
    query = f"select n, {stuck} as s, repeat('x', 500) as t from generate_series(1, 99999) n"
    code = "import sys; from absurd.tasks.export import export_query; export_query(*sys.argv[1:4])"
    process = subprocess.Popen([sys.executable, "-c", code, database_url, query, str(tmp_path / "x.parquet")])
    until(lambda: any(path.name.endswith(".part") for path in tmp_path.iterdir()))
    process.send_signal(how)
    process.wait()
    assert not (tmp_path / "x.parquet").exists()

    export_query(database_url, "select 1 as a", tmp_path / "x.parquet")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.parquet", "x.parquet.manifest.json"]


def test_rows_and_types_are_of_one_snapshot(database_url: str, tmp_path: Path) -> None:
    """A table that changes between the two looks gives either state, never a mixture."""
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("create table t as select 1 as a")
        seen: list[int] = []

        def change(rows: int, size: int) -> None:
            seen.append(rows + size)
            other.execute("insert into t values (2)")

        assert export_query(database_url, "table t", tmp_path / "x.parquet", progress=change).rows == 1
        assert len(seen) == 1


def test_text_of_a_value_does_not_depend_on_the_server(connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Whatever the role has set, text is exact and in ISO form, and the settings are left as they were."""
    for setting in (
        "extra_float_digits = -10",
        "datestyle = 'SQL, DMY'",
        "timezone = 'Asia/Tokyo'",
        "intervalstyle = iso_8601",
    ):
        connection.execute(f"set {setting}")
    query = "select point(0.1, 1.0/3) as p, '[2020-01-02,)'::daterange as r, '1 mon'::interval as i"

    export_query(connection, query, tmp_path / "x.parquet")

    (row,) = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert row == {
        "p": "(0.1,0.3333333333333333)",
        "r": "[2020-01-02,)",
        "i": {"months": 1, "days": 0, "microseconds": 0},
    }
    assert connection.execute("show timezone").fetchone() == ("Asia/Tokyo",)


def test_unfit_values_end_the_statement_on_the_server(connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    """After a refusal in the first of many rows nothing keeps running."""
    query = "select 'infinity'::date as d, repeat('x', 1000) as t from generate_series(1, 5000000)"
    with pytest.raises(UnfitValueError, match="row 1 of column 'd'"):
        export_query(connection, query, tmp_path / "x.parquet")

    assert connection.execute("select 1").fetchone() == (1,)
