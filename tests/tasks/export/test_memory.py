"""What an export takes of memory: as much for many rows as for few."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
from interrupting import environment

WIDTH = 512
"""Bytes of a row."""
FEW, MANY = 40_000, 400_000

PROGRAM = """
import sys
from absurd.cli.export import fast_export
from absurd.cli.run import call

code = call(fast_export, "fast-export", sys.argv[1:])
with open("/proc/self/status") as told:  # not what getrusage says: that counts whoever started this process
    print(next(line.split()[1] for line in told if line.startswith("VmHWM:")))
sys.exit(code)
"""


def peak(url: str, folder: Path, rows: int) -> int:
    """Most bytes of memory that a process has held which exports so many rows, in row groups of a few MiB."""
    query = f"select repeat(md5(n::text), {WIDTH // 32}) as t from generate_series(1, {rows}) n"
    words = ("--sql", query, "--out", "x.parquet", "--block-size", str(4 << 20), "--row-group-size", "10000")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--dsn", url, *words],
        cwd=folder, env=environment(), check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert pq.read_metadata(folder / "x.parquet").num_rows == rows
    return int(done.stdout.splitlines()[-1]) << 10


def test_memory_does_not_grow_with_the_rows(database_url: str, tmp_path: Path) -> None:
    """Ten times the rows take less than a quarter of the memory that they would fill, and no 400 MiB in all."""
    few, many = (peak(database_url, tmp_path, rows) for rows in (FEW, MANY))
    print(f"{few >> 20} MiB, {many >> 20} MiB")

    assert many - few < (MANY - FEW) * WIDTH / 4
    assert many < 400 << 20
