"""Programs that export a query to Parquet, to be held against ours.  Each runs in a process of its own.

``python -P exporters.py NAME SQL FILE``, by an interpreter that has the package but maybe not absurd: so nothing
of absurd is imported.  The database is in the environment, which other users of the machine cannot read.  Each
exporter is used as its documentation shows for speed: streaming where it can, zstd at level 1, row groups of a
million rows, dictionaries for text alone where that can be chosen.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from queue import Queue
from typing import Any

ROWS = 1_000_000
"""Of a row group."""
LEVEL = 1

PEERS = {
    "csv": ("psycopg", "pyarrow"),
    "adbc": ("adbc-driver-postgresql", "pyarrow"),
    "connectorx": ("connectorx", "pyarrow"),
    "polars_connectorx": ("polars", "connectorx", "pyarrow"),
    "polars_adbc": ("polars", "adbc-driver-postgresql", "pyarrow"),
    "duckdb": ("duckdb", "duckdb-extension-postgres-scanner"),
    "duckdb_unordered": ("duckdb", "duckdb-extension-postgres-scanner"),
}
"""Packages that each needs."""


def floor(url: str, sql: str, out: str) -> None:
    """COPY BINARY by libpq, and every row thrown away."""
    del out
    import psycopg

    connection = psycopg.connect(url)
    receive = _copying(connection, f"copy ({sql}) to stdout (format binary)")
    while receive(0)[0] > 0:
        pass
    _ended(connection)


def csv(url: str, sql: str, out: str) -> None:
    """COPY CSV to a temporary file, read that with Arrow, write Parquet: as fast-export did before it was reborn."""
    import psycopg
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    as_arrow: dict[int, Any] = {
        16: pa.bool_(), 20: pa.int64(), 21: pa.int16(), 23: pa.int32(), 700: pa.float32(), 701: pa.float64(),
        1700: pa.float64(), 1082: pa.date32(), 1114: pa.timestamp("us"), 1184: pa.timestamp("us", tz="UTC"),
        1186: pa.duration("us"),
    }  # fmt: skip
    connection = psycopg.connect(url)
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        described = connection.execute(f"select * from ({sql}) as q limit 0").description or []
        types = {each.name: as_arrow.get(each.type_code, pa.string()) for each in described}
        receive = _copying(connection, f"copy ({sql}) to stdout (format csv)")
        while (message := receive(0))[0] > 0:
            file.write(message[1])
        _ended(connection)
        file.flush()
        reader = pyarrow.csv.open_csv(
            file.name,
            pyarrow.csv.ReadOptions(column_names=[each.name for each in described], block_size=64 << 20),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=types,
                null_values=["", "NULL"],
                true_values=["t"],
                false_values=["f"],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
        with pq.ParquetWriter(out, reader.schema, compression="zstd", use_dictionary=False) as writer:
            for table in _row_groups(reader, ROWS):
                writer.write_table(table, row_group_size=ROWS)


def adbc(url: str, sql: str, out: str) -> None:
    """The reader of ADBC, and Arrow's writer in a thread of its own."""
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        _write_beside(cursor.fetch_record_batch(), out)


def connectorx(url: str, sql: str, out: str) -> None:
    """The stream of connectorx, and Arrow's writer in a thread of its own."""
    import connectorx as cx

    _write_beside(cx.read_sql(url, sql, return_type="arrow_stream", batch_size=100_000), out)


def polars(url: str, sql: str, out: str, engine: str) -> None:
    """The whole table in memory, by one of two engines."""
    import polars as pl

    frame = pl.read_database_uri(sql, url, engine=engine)
    frame.write_parquet(out, compression="zstd", compression_level=LEVEL, row_group_size=ROWS)


def duckdb(url: str, sql: str, out: str, *, ordered: bool) -> None:
    """Its scanner of PostgreSQL, which reads a table over several connections."""
    import duckdb
    import duckdb_extension_postgres_scanner as extension

    [library] = Path(str(extension.__file__)).parent.rglob("*.duckdb_extension")
    connection = duckdb.connect()
    connection.execute(f"set preserve_insertion_order = {ordered}")
    connection.execute(f"load '{library}'")
    connection.execute(f"attach '{url}' as pg (type postgres, read_only)")
    connection.execute("use pg.public")
    how = f"format parquet, compression zstd, compression_level {LEVEL}, row_group_size {ROWS}"
    connection.execute(f"copy ({sql}) to '{out}' ({how})")


def check(path: str, column: str, kind: str) -> dict[str, int]:
    """Rows, NULLs and checksum of a column of a file, as `absurd.bench.export_tables.Checksum` tells."""
    import hashlib

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows = nulls = total = 0
    for batch in pq.ParquetFile(path).iter_batches(columns=[column]):
        values = batch.column(0)
        rows += len(values)
        nulls += values.null_count
        if kind == "text":
            texts = values.cast(pa.large_binary()).drop_null().to_pylist()
            total += sum(int.from_bytes(hashlib.md5(each, usedforsecurity=False).digest()[:4], "big") for each in texts)
        else:
            total += pc.sum(values.view(pa.int64())).as_py() or 0
    return {"rows": rows, "nulls": nulls, "total": total % 2**64}


def versions() -> dict[str, dict[str, str]]:
    """The contestants that can be run here, with the versions of their packages."""
    found = {}
    for name, packages in PEERS.items():
        try:
            found[name] = {each: version(each) for each in packages}
        except PackageNotFoundError:
            continue
    return found


def _copying(connection: Any, statement: str) -> Any:
    """Start a COPY; what gives its messages without the driver's own loop, which takes long over a row."""
    result = connection.pgconn.exec_(statement.encode())
    if result.error_message:
        raise RuntimeError(result.error_message.decode())
    return connection.pgconn.get_copy_data


def _ended(connection: Any) -> None:
    """Raise what the server said at the end of a COPY."""
    said = connection.pgconn.get_result().error_message
    if said:
        raise RuntimeError(said.decode())


def _row_groups(batches: Any, rows: int) -> Any:
    import pyarrow as pa

    held: list[Any] = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) >= rows:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _write_beside(reader: Any, out: str) -> None:
    """Write what a reader gives, in another thread; a quarter of a row group at a time, for the sake of memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [field.name for field in reader.schema if pa.types.is_string(field.type)]
    waiting: Queue[Any] = Queue(2)
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with pq.ParquetWriter(
                out, reader.schema, compression="zstd", compression_level=LEVEL, use_dictionary=texts or False
            ) as writer:
                while (table := waiting.get()) is not None:
                    writer.write_table(table, row_group_size=ROWS)
        except BaseException as error:  # raised below
            failed.append(error)
            while waiting.get() is not None:
                pass

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for table in _row_groups(reader, ROWS // 4):
            waiting.put(table)
    finally:
        waiting.put(None)
        thread.join()
    if failed:
        raise failed[0]


def main(name: str, *words: str) -> None:
    """Run one of them."""
    if name == "versions":
        json.dump(versions(), sys.stdout)
        return
    if name == "check":
        json.dump(check(*words), sys.stdout)
        return
    url = os.environ["ABSURD_BENCH_URL"]
    sql, out = words
    if name.startswith("polars_"):
        polars(url, sql, out, name.removeprefix("polars_"))
    elif name.startswith("duckdb"):
        duckdb(url, sql, out, ordered=name == "duckdb")
    else:
        {"floor": floor, "csv": csv, "adbc": adbc, "connectorx": connectorx}[name](url, sql, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
