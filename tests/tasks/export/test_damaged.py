"""A stream that is damaged on its way is an error of its own: no crash, no byte read that is not the stream's."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import export_fuzz
import psycopg
import pyarrow as pa
import pytest
from export_fuzz import Sent
from proof import amount, seed_of

from absurd.tasks import export
from absurd.tasks.export import reader
from absurd.tasks.export.arrow_types import UUID, Wishes
from absurd.tasks.export.compiled import library

SOURCE = Path(export.__file__).parent / "decoder.c"
COLUMNS = {
    "bool": ("true", "false", "null"),
    "int2": ("1", "-1"),
    "int4": ("1", "null"),
    "int8": ("9223372036854775807", "0"),
    "oid": ("4294967295", "0"),
    "float4": ("1.5", "'NaN'"),
    "float8": ("-0.0", "null"),
    "date": ("'2020-01-01'", "'infinity'"),
    "time": ("'12:00'", "'24:00'"),
    "timestamptz": ("'2020-01-01'", "'-infinity'"),
    "text": ("'ab ü'", "''", "null"),
    "bytea": ("'\\x00ff'", "null"),
    "jsonb": ("'{}'", "'[1,2]'"),
    "uuid": ("'12345678-1234-5678-1234-56789abcdef0'", "null"),
    "interval": ("'1 mon 2 days 3 s'", "null"),
    "numeric(12,2)": ("1234567.89", "-0.01", "0", "'NaN'"),
    "numeric(76,70)": ("1.5", "-0.000001", "123456"),
    "numeric(30,0)": ("100000000000000000", "-1"),
    "inet": ("'::1'", "null"),
}


@pytest.fixture(scope="module")
def corpus(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Streams of each type, of arrays of each, and of all types together."""
    plain = {kind: f"(array[{', '.join(values)}]::{kind}[])[1 + n % {len(values)}]" for kind, values in COLUMNS.items()}
    lists = {
        kind: f"case n % 4 when 0 then '{{}}' when 1 then null else array[{', '.join(values)}] end::{kind}[]"
        for kind, values in COLUMNS.items()
    }
    each = [(value,) for value in (*plain.values(), *lists.values())]
    streams = [_sent(server_url, values, Wishes()) for values in (*each, (*plain.values(), *lists.values()))]
    streams.append(_sent(server_url, (plain["uuid"], lists["uuid"]), Wishes(types={UUID: pa.binary(16)})))
    streams.append(_sent(server_url, (plain["inet"], lists["int4"]), Wishes(types={869: pa.int32(), 23: pa.int64()})))
    path = tmp_path_factory.mktemp("corpus") / "streams"
    path.write_bytes(pickle.dumps(streams))
    return path


def test_the_decoders_agree_on_what_is_damaged(corpus: Path, tmp_path: Path) -> None:
    """Whatever becomes of a stream, both decoders give the same rows or an error; the compiled one under a sanitizer.

    Where there is no compiler, as where the compiled decoder was not built, its memory cannot be watched.
    """
    seed, rounds = seed_of("damaged streams"), amount(600, 300_000)
    environment = {**os.environ, "PYTHONPATH": str(Path(export_fuzz.__file__).parent)}
    built, preloaded = _sanitized(tmp_path)
    if built is None and library() is None:
        pytest.skip("there is neither a compiled decoder nor a compiler")
    if preloaded:
        environment |= {"LD_PRELOAD": preloaded, "ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0"}
    command = [sys.executable, export_fuzz.__file__, str(corpus), str(seed), str(rounds), *([built] if built else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr[-6000:]
    errors = int(done.stdout.split()[0])
    assert rounds // 4 < errors < rounds  # neither is nearly all of it whole, nor all of it damaged


def _sanitized(folder: Path) -> tuple[str | None, str]:
    """The decoder built to watch its memory and arithmetic, and what to load before all else; None without gcc."""
    gcc = shutil.which("gcc")
    if gcc is None:
        return None, ""
    runtime = subprocess.run([gcc, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    if not os.path.isabs(runtime.stdout.strip()):
        return None, ""
    built = folder / "sanitized.so"
    options = ["-std=c11", "-O1", "-g", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
    watched = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run([gcc, *options, *watched, "-o", built, SOURCE], check=True)
    return str(built), runtime.stdout.strip()


def _sent(url: str, values: Any, wishes: Wishes) -> Sent:
    listed = ", ".join(f"{value} as c{place}" for place, value in enumerate(values))
    query = f"select {listed} from generate_series(1, 13) as n"
    with psycopg.connect(url) as connection, reader.one_snapshot(connection):
        columns = reader.describe(connection, query, wishes)
        with connection.cursor() as cursor, cursor.copy(reader.copy_statement(query, columns)) as copy:
            return Sent(columns, [bytes(message) for message in copy])
