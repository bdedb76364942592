"""Datasets: what readers find in their folders, which columns can make them, and the bounds of memory and files."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from absurd.tasks.export import (
    ExportConfigError,
    ExportFailedError,
    UnfitValueError,
    dataset,
    export_query,
    open_dataset,
    row_group,
    verify_manifest,
)
from absurd.tasks.export import stage as stages

Until = Callable[[Callable[[], object]], None]
TYPES = {"text": pa.string(), "bigint": pa.int64(), "smallint": pa.int16(), "boolean": pa.bool_(), "date": pa.date32()}
HARD = ("", " ", "a/b", "a=b", "100%", "%41", "ü ☃", "007", "..", ".", "a\nb", "true", "NULL", "null", "A", "a\\b", "'")


def names(folder: Path) -> list[str]:
    """The Parquet files below a folder, from there."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.parquet"))


def by_number(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of their column n."""
    return sorted(rows, key=lambda row: row["n"])


def test_files_hold_so_many_rows(database_url: str, tmp_path: Path) -> None:
    """With max_rows_per_file each file but the last has exactly those, in the order of the query."""
    query = "select n, n::text as t from generate_series(1, 250000) n order by n desc"
    result = export_query(database_url, query, tmp_path / "d", max_rows_per_file=100_000, row_group_size=60_000)

    assert [(each.path, each.rows, each.row_groups) for each in result.files] == [
        ("part-00000.parquet", 100_000, 2),
        ("part-00001.parquet", 100_000, 2),
        ("part-00002.parquet", 50_000, 1),
    ]
    read = ds.dataset(tmp_path / "d").to_table()  # a plain reader needs nothing but the folder
    assert read["n"].to_pylist() == list(range(250_000, 0, -1))
    assert pq.read_metadata(tmp_path / "d" / "part-00002.parquet").metadata[b"absurd.rows"] == b"50000"
    assert (result.rows, result.row_groups, result.bytes) == (250_000, 5, sum(each.bytes for each in result.files))
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_values_are_folders(connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    """Each value of the columns is a folder, which holds its rows in their order; NULL has a name of its own."""
    connection.execute("create table t (n int, day date, name text)")
    days = [None, "2024-02-29", "0001-01-01", "9999-12-31"]
    with connection.cursor().copy("copy t from stdin") as copy:
        for n in range(400):
            copy.write_row((n, days[n % 4], HARD[n % len(HARD)]))

    result = export_query(connection, "select * from t order by n", tmp_path / "d", partition_by=["day", "name"])

    assert len(result.files) == 4 * len(HARD)
    first = next(each for each in result.files if each.path.startswith("day=2024-02-29/name=007/"))
    assert first.partition == {"day": "2024-02-29", "name": "007"}
    read = open_dataset(tmp_path / "d").to_table()
    assert read.schema.names == ["n", "day", "name"]
    wanted = connection.execute("select * from t order by n").fetchall()
    assert [tuple(row.values()) for row in by_number(read.to_pylist())] == wanted
    for name in names(tmp_path / "d"):
        part = pq.read_table(tmp_path / "d" / name, partitioning=None)
        assert part.schema.names == ["n"]
        assert part["n"].to_pylist() == sorted(part["n"].to_pylist())
    assert names(tmp_path / "d")[-1].startswith("day=__HIVE_DEFAULT_PARTITION__/")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    kinds=st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=2),
    data=st.data(),
)
def test_any_value_comes_back(
    connection: psycopg.Connection[Any], tmp_path: Path, kinds: list[str], data: st.DataObject
) -> None:
    """Whatever the values: a plain Hive reader that is told the types gives each row back as it was, with its type."""
    values = {
        "text": st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12),
        "bigint": st.integers(-(2**63), 2**63 - 1),
        "smallint": st.integers(-(2**15), 2**15 - 1),
        "boolean": st.booleans(),
        "date": st.dates(),
    }
    rows = data.draw(st.lists(st.tuples(*(st.none() | values[kind] for kind in kinds)), min_size=1, max_size=20))
    columns = [f"k{place}" for place in range(len(kinds))]
    connection.execute("drop table if exists t")
    connection.execute(f"create table t (n int, {', '.join(map(' '.join, zip(columns, kinds, strict=True)))})")
    with connection.cursor() as cursor:
        marks = ", ".join(["%s"] * len(kinds))
        cursor.executemany(f"insert into t values (%s, {marks})", [(n, *row) for n, row in enumerate(rows)])

    export_query(connection, "table t", tmp_path / "d", partition_by=columns)

    schema = pa.schema([(name, TYPES[kind]) for name, kind in zip(columns, kinds, strict=True)])
    plain = ds.dataset(tmp_path / "d", partitioning=ds.partitioning(schema, flavor="hive")).to_table()
    for table in (plain, open_dataset(tmp_path / "d").to_table()):
        assert [table.schema.field(name).type for name in columns] == schema.types
        found = [tuple(row[name] for name in columns) for row in by_number(table.to_pylist())]
        assert found == rows
    assert verify_manifest(tmp_path / "d").rows == len(rows)


def test_an_empty_result_has_columns(database_url: str, tmp_path: Path) -> None:
    """No rows give one file without rows, at the top: whoever reads the dataset finds its columns."""
    query = "select 1 as n, 'x' as t where false"
    for options in ({"max_rows_per_file": 5}, {"partition_by": ["t"]}):
        result = export_query(database_url, query, tmp_path / "d", **options)
        assert [(each.path, each.rows) for each in result.files] == [("part-00000.parquet", 0)]
        read = open_dataset(tmp_path / "d").to_table()
        assert (read.num_rows, read.schema.names) == (0, ["n", "t"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["absent"], "names 'absent', which the query does not give; it gives n, x, _k, moment, price"),
        (["n", "n"], "names 'n' more than once"),
        (["x"], "names 'x', which is double"),
        (["moment"], "names 'moment', which is timestamp"),
        (["price"], "names 'price', which is decimal128"),
        (["_k"], "names '_k', of which no folder can be made that readers find"),
        (["n", "x", "_k", "moment", "price"], "_k|double"),
    ],
)
def test_columns_that_cannot(database_url: str, tmp_path: Path, columns: list[str], message: str) -> None:
    """A column that is not there, twice there, or does not come back exactly is refused before a row is read."""
    query = "select pg_sleep(n) is null as n, 1.5::float8 as x, 1 as _k, now() as moment, 1.50::numeric(4,2) as price"
    with pytest.raises(ExportConfigError, match=message) as caught:
        export_query(database_url, f"{query} from generate_series(60, 61) n", tmp_path / "d", partition_by=columns)
    assert caught.value.code == "export_config_invalid"
    with pytest.raises(ExportConfigError, match="names all columns"):
        export_query(database_url, "select 1 as a, 2 as b", tmp_path / "d", partition_by=["b", "a"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("'__HIVE_DEFAULT_PARTITION__'::text", "for which readers have NULL"),
        ("repeat('ü', 50)", "too long for a folder's name"),
        ("'10000-01-01'::date", "row 2 of column 'k' holds 2932897 days since 1970"),
        ("'0001-01-01 BC'::date", "row 2 of column 'k' holds -719528 days"),
        ("'infinity'::date", "row 2 of column 'k' holds infinity"),
    ],
)
def test_values_that_cannot(database_url: str, tmp_path: Path, value: str, message: str) -> None:
    """A value that no folder can be named after is refused with its column, and nothing is left."""
    query = f"select n, case when n = 2 then {value} end as k from generate_series(1, 3) n"
    with pytest.raises(UnfitValueError, match=message):
        export_query(database_url, query, tmp_path / "d", partition_by=["k"])
    assert list(tmp_path.iterdir()) == []


def test_a_column_that_is_text_after_all(database_url: str, tmp_path: Path) -> None:
    """With on_unfit "text" a date that does not fit makes folders of the server's text for all."""
    query = "select n, case n when 2 then 'infinity'::date else '2024-01-01' end as k from generate_series(1, 3) n"
    export_query(database_url, query, tmp_path / "d", partition_by=["k"], on_unfit="text", unfinished=tmp_path / "p")

    assert open_dataset(tmp_path / "d").to_table(columns=["k"]).to_pylist().count({"k": "infinity"}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


# Bounds ------------------------------------------------------------------------------------------


def test_open_files_are_bounded(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more partitions than files may be open, each goes on in a new file; no row is lost, and none is held."""
    monkeypatch.setattr(row_group, "ROW_GROUP_BYTES", 1 << 20)
    monkeypatch.setattr(stages._FolderStage, "open_files", 3)
    opened: list[int] = []
    create = stages._FolderStage.create

    def watched(stage: Any, name: str) -> Any:
        opened.append(sum(".part/" in os.readlink(f"/proc/self/fd/{each}") for each in _descriptors()))
        return create(stage, name)

    monkeypatch.setattr(stages._FolderStage, "create", watched)
    held: list[int] = []
    bound = dataset.FilesWriter._bound

    def measured(writer: Any) -> None:
        bound(writer)
        held.append(sum(each.writer.held_bytes for each in writer._partitions.values()))

    monkeypatch.setattr(dataset.FilesWriter, "_bound", measured)
    query = "select n, n % 10 as k, repeat('x', 100) || n as t from generate_series(1, 100000) n"

    files = [
        [each.path for each in export_query(database_url, query, tmp_path / "d", partition_by=["k"]).files]
        for _ in range(2)
    ]

    assert max(opened) == 2  # beside the one that is being opened
    assert max(held) < 1 << 20
    assert files[0] == files[1] == names(tmp_path / "d")
    assert len(files[0]) > 10
    assert sorted(open_dataset(tmp_path / "d").to_table()["n"].to_pylist()) == list(range(1, 100_001))


def test_partitions_are_bounded(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column with a value for each row is a mistake, told as one; nothing is left."""
    monkeypatch.setattr(dataset, "MAX_PARTITIONS", 50)
    query = "select n, n as k from generate_series(1, 51) n"
    with pytest.raises(ExportFailedError, match=r"k have more than 50 values.*coarser"):
        export_query(database_url, query, tmp_path / "d", partition_by=["k"])
    assert list(tmp_path.iterdir()) == []


# Whole or as it was ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_export_leaves_the_older_dataset(
    database_url: str, tmp_path: Path, how: signal.Signals, until: Until
) -> None:
    """Killed in the middle: the older dataset is there as it was; the next export removes what is left beside it."""
    place = tmp_path / "d"
    export_query(database_url, "select n, n % 3 as k from generate_series(1, 9) n", place, partition_by=["k"])
    stuck = "case when n = 90000 then pg_sleep(60)::text end"
    query = f"select n, n % 2 as k, {stuck} as s, repeat('x', 500) as t from generate_series(1, 99999) n"
    code = "import sys; from absurd.tasks.export import export_query as e; e(*sys.argv[1:4], max_rows_per_file=20000)"
    process = subprocess.Popen([sys.executable, "-c", code, database_url, query, str(place)])
    until(lambda: len(list(tmp_path.glob(".d.*.part/*.parquet"))) > 2)
    process.send_signal(how)
    process.wait()
    assert verify_manifest(place).rows == 9

    export_query(database_url, "select 1 as a", place, max_rows_per_file=5)

    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert sorted(path.name for path in place.iterdir()) == ["_manifest.json", "part-00000.parquet"]


def test_an_unfinished_dataset_is_kept_if_asked(database_url: str, tmp_path: Path) -> None:
    """With `unfinished` there is what was written, readable, under the other name, and no manifest with it."""
    query = "select n, 1 / (150000 - n) as a from generate_series(1, 200000) n"
    for _ in range(2):
        with pytest.raises(ExportFailedError, match="division by zero"):
            export_query(
                database_url,
                query,
                tmp_path / "d",
                max_rows_per_file=60_000,
                row_group_size=20_000,
                unfinished=tmp_path / "d.part",
            )
    assert [path.name for path in tmp_path.iterdir()] == ["d.part"]
    assert names(tmp_path / "d.part") == [f"part-0000{n}.parquet" for n in range(2)]
    assert not (tmp_path / "d.part" / "_manifest.json").exists()
    assert ds.dataset(tmp_path / "d.part").count_rows() == 120_000
    (tmp_path / "d.part" / "notes").write_text("mine")
    with pytest.raises(ExportConfigError, match=r"d\.part holds notes, which is not of an export"):
        export_query(database_url, query, tmp_path / "d", max_rows_per_file=9, unfinished=tmp_path / "d.part")
    assert (tmp_path / "d.part" / "notes").read_text() == "mine"


def test_dates_as_python_has_them() -> None:
    """Names of folders are ISO dates, small letters for booleans, and plain digits."""
    key = (dt.date(1, 2, 3), True, -5, "Ä", None)
    assert dataset.folder_of(("d", "b", "i", "t", "n"), key) == (
        "d=0001-02-03/b=true/i=-5/t=%C3%84/n=__HIVE_DEFAULT_PARTITION__/"
    )


def _descriptors() -> list[str]:
    return [each for each in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{each}")]
