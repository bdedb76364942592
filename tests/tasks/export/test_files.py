"""The file of an export and its manifest: what both tell, and what is there when a process dies at any point."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from absurd.tasks.export import (
    ExportConfigError,
    ExportFailedError,
    ManifestError,
    export_query,
    export_query_to_parquet,
    read_manifest,
    verify_manifest,
)
from absurd.tasks.export.row_group import LARGE_PAGES
from absurd.tasks.export.source import DecoderName
from absurd.tasks.export.stage import EarlyFile

STEPS = """
import os, signal, sys, threading
from absurd.tasks.export import export_query

def counted(made):
    def call(*args, **options):
        global left
        with counting:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return made(*args, **options)
    return call

for name in ("rename", "replace", "unlink", "fsync", "mkdir", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))
options = eval(sys.argv[4])
counting = threading.Lock()
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        left = int(line)
        export_query(*sys.argv[1:4], **options)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""
"""Exports in a process for each number it reads, which dies before so many calls that change something on the disk."""


def test_the_manifest_tells_of_the_file(database_url: str, tmp_path: Path) -> None:
    """Rows, bytes and SHA-256 are those of the file; columns, snapshot and query are there, and no address."""
    query = "select n, 'x' as t from generate_series(1, 10) n"
    result = export_query(database_url, query, tmp_path / "x.parquet", row_group_size=4)

    told = json.loads((tmp_path / "x.parquet.manifest.json").read_text())
    data = (tmp_path / "x.parquet").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert told["files"] == [
        {"path": "x.parquet", "rows": 10, "bytes": len(data), "row_groups": 3, "sha256": digest, "partition": {}}
    ]
    assert (told["rows"], told["bytes"], told["row_groups"]) == (10, len(data), 3)
    assert (told["query"], told["snapshot"]) == (query, result.snapshot.snapshot)
    assert [(each["name"], each["postgres_type"]) for each in told["columns"]] == [("n", "integer"), ("t", "text")]
    assert (result.sha256, result.manifest) == (digest, str(tmp_path / "x.parquet.manifest.json"))
    assert "host" not in json.dumps(told) and str(tmp_path) not in json.dumps(told)
    assert verify_manifest(tmp_path / "x.parquet") == verify_manifest(result.manifest) == read_manifest(result.manifest)


def test_sha256sum_checks_a_manifest(database_url: str, tmp_path: Path) -> None:
    """The checksums are those of the program everybody has, by the line that the documentation gives."""
    export_query(
        database_url, "select 1 as a, n % 2 as b from generate_series(1, 9) n", tmp_path / "d", partition_by="b"
    )
    line = "import json, sys; [print(each['sha256'], each['path'], sep='  ') for each in json.load(sys.stdin)['files']]"

    with (tmp_path / "d" / "_manifest.json").open() as manifest:
        sums = subprocess.run([sys.executable, "-c", line], stdin=manifest, capture_output=True, check=True).stdout
    checked = subprocess.run(["sha256sum", "-c"], input=sums, cwd=tmp_path / "d", capture_output=True, check=True)

    assert checked.stdout.decode().splitlines() == [f"b={n}/part-00000.parquet: OK" for n in (0, 1)]


def test_a_manifest_finds_what_changed(database_url: str, tmp_path: Path) -> None:
    """A byte that changed, a file that is missing or is another's, a manifest that is none: each is told."""
    place = tmp_path / "x.parquet"
    export_query(database_url, "select 1 as a", place)
    whole = place.read_bytes()

    place.write_bytes(whole[:-5] + b"." + whole[-4:])
    with pytest.raises(ManifestError, match=f"not the file of its manifest: {len(whole)} bytes") as caught:
        verify_manifest(place)
    assert caught.value.code == "export_manifest_mismatch"
    place.unlink()
    with pytest.raises(ManifestError, match=r"x\.parquet is missing"):
        verify_manifest(place)
    for text in ("{", "[]", '{"format": "other/1"}', '{"format": "absurd.export/1"}'):
        (tmp_path / "x.parquet.manifest.json").write_text(text)
        with pytest.raises(ManifestError, match=r"is no manifest|has the format 'other/1'"):
            verify_manifest(place)
    with pytest.raises(ManifestError, match="has no manifest"):
        verify_manifest(tmp_path / "y.parquet")


def test_a_failure_leaves_both_as_they_were(database_url: str, tmp_path: Path) -> None:
    """An export that fails changes neither file nor manifest; one that succeeds changes both."""
    place = tmp_path / "x.parquet"
    export_query(database_url, "select 1 as a", place)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(ExportFailedError):
        export_query(database_url, "select 1 / (5 - n) as a from generate_series(1, 9) n", place)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def refuse() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        export_query(database_url, "select 2 as a", place, publishing=refuse)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    export_query(database_url, "select 2 as a", place)
    assert verify_manifest(place).query == "select 2 as a"


def test_the_function_of_old_writes_one_file(connection: psycopg.Connection[Any], tmp_path: Path) -> None:
    """`export_query_to_parquet` leaves one file, as its callers know it: no manifest, also none of an earlier file."""
    place = tmp_path / "x.parquet"
    export_query(connection, "select 1 as a", place)
    export_query_to_parquet(connection.cursor(), "select 2 as a", place)

    assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]


@pytest.mark.parametrize("options", [{}, {"partition_by": ["b"], "max_rows_per_file": 9}], ids=["file", "dataset"])
def test_killed_at_each_step(database_url: str, tmp_path: Path, options: dict[str, Any]) -> None:
    """Killed before any step on the disk: under the final name is the whole old export or the whole new one.

    A manifest that is there describes what is there.  The next export removes what was left, and is whole.
    """
    old, new = (f"select n, n % 2 as b from generate_series(1, {rows}) n" for rows in (10, 20))
    place = tmp_path / "x"
    export_query(database_url, old, place, **options)
    words = [sys.executable, "-c", STEPS, database_url, new, str(place), repr(options)]
    found: list[tuple[bool, int]] = []
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as exporting:
        assert exporting.stdin is not None and exporting.stdout is not None
        ended = signal.SIGKILL.value
        while ended == signal.SIGKILL:
            print(len(found) + 1, file=exporting.stdin, flush=True)
            ended = int(exporting.stdout.readline())
            if options or Path(f"{place}.manifest.json").exists():
                found.append((True, verify_manifest(place).rows))
            else:
                found.append((False, pq.read_metadata(place).num_rows))
            export_query(database_url, old, place, **options)
            assert set(os.listdir(tmp_path)) == ({"x"} if options else {"x", "x.manifest.json"})
            assert verify_manifest(place).rows == 10
    assert ended == 0
    assert found[0] == (True, 10) and found[-1] == (True, 20)
    assert [rows for _, rows in found] == sorted(rows for _, rows in found)
    assert len(found) > 6


def test_what_is_in_the_way(database_url: str, tmp_path: Path) -> None:
    """A folder where a file is to be, a file where a folder is to be, a folder of others': refused, and left alone."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")

    with pytest.raises(ExportConfigError, match="is a folder"):
        export_query(database_url, "select 1 as a", tmp_path / "folder")
    with pytest.raises(ExportConfigError, match="is a file"):
        export_query(database_url, "select 1 as a", tmp_path / "file", max_rows_per_file=1)
    with pytest.raises(ExportConfigError, match=r"holds notes\.txt, which is not of an export"):
        export_query(database_url, "select 1 as a", tmp_path / "folder", max_rows_per_file=1)

    export_query(database_url, "select 1 as a", tmp_path / "d", max_rows_per_file=1)
    (tmp_path / "d" / "notes.txt").write_text("mine")
    with pytest.raises(ManifestError, match=r"holds notes\.txt, which its manifest does not know"):
        verify_manifest(tmp_path / "d")
    with pytest.raises(ExportConfigError, match=r"holds notes\.txt"):
        export_query(database_url, "select 1 as a", tmp_path / "d", max_rows_per_file=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "file", "folder"]
    assert (tmp_path / "d" / "notes.txt").read_text() == "mine"


# Encodings ---------------------------------------------------------------------------------------


def test_how_columns_are_encoded(database_url: str, tmp_path: Path) -> None:
    """A dictionary where values repeat and nowhere else, floats split by byte, statistics and a page index on all.

    Of numbers that follow each other the steps are kept, and the lengths of hashes stand apart.  A third that stands
    once is too much for a dictionary.
    """
    query = """
        select n as serial, n::int8 as id, now() + n * interval '1 s' as time, hashint8extended(n, 0) as hash,
               case n % 3 when 0 then md5(n::text) when 1 then 'x' end as half,
               n % 7 as few, md5(n::text) as unique_text, (n % 9)::text as words, sqrt(n) as root,
               (n % 5)::float4 as step, array[n % 3, 1] as list, n % 2 = 0 as flag, array[sqrt(n)] as roots,
               'number ' || n as alike, decode(md5(n::text), 'hex') as bytes, array[md5(n::text), ''] as hashes,
               (n % 11)::numeric(8, 2) as price, now() as moment, null::text as nothing
        from generate_series(1, 20000) n
    """
    export_query(database_url, query, tmp_path / "x.parquet")

    group = pq.read_metadata(tmp_path / "x.parquet").row_group(0)
    chunks = {each.path_in_schema: each for each in map(group.column, range(group.num_columns))}
    dictionaries = {name for name, each in chunks.items() if "RLE_DICTIONARY" in each.encodings}
    splits = {name for name, each in chunks.items() if "BYTE_STREAM_SPLIT" in each.encodings}
    assert dictionaries == {"few", "words", "step", "list.list.element", "price", "moment", "nothing"}
    assert splits == {"root", "roots.list.element"}
    assert {name for name, each in chunks.items() if "DELTA_BINARY_PACKED" in each.encodings} == {"id", "time"}
    apart = {name for name, each in chunks.items() if "DELTA_LENGTH_BYTE_ARRAY" in each.encodings}
    assert apart == {"half", "unique_text", "bytes", "hashes.list.element"}
    assert [name for name, each in chunks.items() if not each.is_stats_set] == []
    assert [name for name, each in chunks.items() if not (each.has_column_index and each.has_offset_index)] == []
    assert {each.compression for each in chunks.values()} == {"ZSTD"}
    assert (chunks["serial"].statistics.min, chunks["serial"].statistics.max) == (1, 20_000)
    assert chunks["nothing"].statistics.null_count == 20_000


def test_names_that_parquet_has_twice(database_url: str, tmp_path: Path) -> None:
    """A column called as the elements of an array, or as a part of an interval, is written with its values as well."""
    query = """
        select array[sqrt(n)] as a, (n * 7919)::text as "a.list.element", n * interval '1 s' as i, n::text as "i.months"
        from generate_series(1, 9) n
    """
    export_query(database_url, query, tmp_path / "x.parquet")

    table = pq.read_table(tmp_path / "x.parquet")
    assert table["a"].to_pylist() == [[math.sqrt(n)] for n in range(1, 10)]
    assert table["a.list.element"].to_pylist() == [str(7919 * n) for n in range(1, 10)]
    assert [each["microseconds"] for each in table["i"].to_pylist()] == [n * 1_000_000 for n in range(1, 10)]
    assert table["i.months"].to_pylist() == [str(n) for n in range(1, 10)]


def test_only_noise_goes_without_the_entropy_coder(database_url: str, tmp_path: Path) -> None:
    """Random digits are compressed quickly, for a file that is hardly larger; all else as well as by zstd's level 1."""
    query = """
        select random() as noise, round(random() * 1e5) / 100 as rounded,
               case when n % 3 = 0 then random() else 'NaN' end as often_nan, array[random(), 1] as half_noise
        from generate_series(1, 60000) n
    """
    export_query(database_url, query, tmp_path / "x.parquet")
    columns = ["noise", "rounded", "often_nan", "half_noise.list.element"]
    pq.write_table(
        pq.read_table(tmp_path / "x.parquet"), tmp_path / "y.parquet", compression="zstd", compression_level=1,
        use_dictionary=False, use_byte_stream_split=columns, **LARGE_PAGES,
    )  # fmt: skip
    sizes = [_sizes(tmp_path / name) for name in ("x.parquet", "y.parquet")]

    ratios = {name: sizes[0][name] / sizes[1][name] for name in columns}
    assert 1 < ratios.pop("noise") < 1.05, sizes  # the bound itself is that of a sample, which is shorter than a page
    assert ratios == pytest.approx(dict.fromkeys(columns[1:], 1), abs=0.001), sizes


def _sizes(path: Path) -> dict[str, int]:
    group = pq.read_metadata(path).row_group(0)
    chunks = map(group.column, range(group.num_columns))
    return {each.path_in_schema: each.total_compressed_size for each in chunks}


def test_encodings_do_not_depend_on_how_rows_arrive(database_url: str, tmp_path: Path) -> None:
    """Both decoders, and any number of connections, give the same bytes: the choice looks at rows, not at blocks."""
    with psycopg.connect(database_url) as mine:
        mine.execute("create table t as select n, n / 100 as few from generate_series(1, 100000) n")
        mine.commit()
        mine.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        mine.execute("select 1")
        decoders: tuple[DecoderName, ...] = ("auto", "numpy")
        ways = [(decoder, connections) for decoder in decoders for connections in (1, 3)]
        sums = {
            export_query(mine, "table t", tmp_path / "x.parquet", decoder=decoder, connections=connections).sha256
            for decoder, connections in ways
        }
        mine.rollback()

    group = pq.read_metadata(tmp_path / "x.parquet").row_group(0)
    assert ["RLE_DICTIONARY" in group.column(n).encodings for n in (0, 1)] == [False, True]
    assert len(sums) == 1


@pytest.mark.parametrize("decoder", ["auto", "numpy"])
def test_huge_values_have_no_statistics(database_url: str, tmp_path: Path, decoder: DecoderName) -> None:
    """Columns of values past 64 KiB, or lists of such, have neither statistics nor a dictionary; all others do."""
    query = """
        select n, repeat(n::text, 70000) as text, decode(repeat('00', 70000), 'hex') as bytes, '1 day'::interval as i,
               array[repeat('x', 40000), repeat('y', 40000)] as list, repeat('x', 60000) as long,
               array['1 day'::interval] as intervals, array[n] as numbers,
               case n when 7 then repeat('z', 700000) end as mostly_null
        from generate_series(1, 300) n
    """
    export_query(database_url, query, tmp_path / "x.parquet", decoder=decoder)

    group = pq.read_metadata(tmp_path / "x.parquet").row_group(0)
    chunks = {each.path_in_schema: each for each in map(group.column, range(group.num_columns))}
    without = {name for name, each in chunks.items() if not each.is_stats_set}
    assert without == {"text", "bytes", "list.list.element"}
    assert {name for name, each in chunks.items() if "RLE_DICTIONARY" in each.encodings}.isdisjoint(without)
    assert all(each.has_offset_index for each in chunks.values())
    table = pq.read_table(tmp_path / "x.parquet")
    assert [len(value) for value in table["text"].to_pylist()] == [70_000 * len(str(n)) for n in range(1, 301)]


MEASURE = """
import resource, sys
from absurd.tasks.export import export_query

for query in ("select 1 as a, 'x' as t", "table big"):
    export_query(sys.argv[1], query, sys.argv[2], decoder=sys.argv[3])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""
"""MiB of memory of a process at most: after an export that needs none, and after one of a huge value."""


@pytest.mark.parametrize("decoder", ["auto", "numpy"])
def test_a_huge_value_is_not_copied_often(database_url: str, tmp_path: Path, decoder: str) -> None:
    """One value takes the memory that the documentation tells: five to six times its size, not ten."""
    with psycopg.connect(database_url) as connection:
        connection.execute("create table big as select 1 as n, repeat(md5('1'), 3 << 20) as t")  # 96 MiB
    words = [sys.executable, "-c", MEASURE, database_url, str(tmp_path / "x.parquet"), decoder]

    small, large = map(int, subprocess.run(words, capture_output=True, check=True).stdout.split())

    assert large - small < 6 * 96, (small, large)
    assert pq.read_table(tmp_path / "x.parquet")["t"].to_pylist()[0].endswith("c4ca4238a0b923820dcc509a6f75849b")


def test_a_file_is_on_its_way_to_the_disk_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system is told of all but the last few megabytes, of each byte once, and only of what is written."""
    told: list[tuple[int, int]] = []
    advise = os.posix_fadvise

    def counted(file: int, start: int, length: int, advice: int) -> None:
        assert start + length <= os.fstat(file).st_size
        told.append((start, length))
        advise(file, start, length, advice)

    monkeypatch.setattr(os, "posix_fadvise", counted)
    piece = os.urandom(5 << 20)
    with EarlyFile(tmp_path / "rows", "w") as file:
        for _ in range(11):
            file.write(piece)

    assert [start for start, _ in told] == [sum(length for _, length in told[:place]) for place in range(len(told))]
    assert sum(length for _, length in told) > len(piece) * 11 - (16 << 20)
    assert (tmp_path / "rows").read_bytes() == piece * 11
