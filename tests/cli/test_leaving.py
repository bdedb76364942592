"""How a program's process ends, whatever libraries still do in threads of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import atexit, io, time
import click, fsspec
import pyarrow as pa, pyarrow.dataset as ds, pyarrow.fs as fs, pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from absurd.cli.run import run

class SlowFile(io.FileIO):
    def read(self, size=-1):
        time.sleep(0.05)
        return super().read(size)

class Slow(LocalFileSystem):
    def _open(self, path, mode="rb", **options):
        return SlowFile(path)

@click.command()
@click.pass_context
def command(ctx):
    '''Reads the first of many files, while threads of Arrow read the next ones ahead.'''
    global batches
    paths = [f"{number}.parquet" for number in range(30)]
    for path in paths:
        pq.write_table(pa.table({"a": range(100)}), path)
    files = fs.PyFileSystem(fs.FSSpecHandler(Slow()))
    batches = ds.dataset(paths, filesystem=files, schema=pa.schema([("a", pa.int64())])).scanner().to_batches()
    print(next(batches).num_rows)
    ctx.exit(3)

atexit.register(print, "left in order")
run(command, "command", [])
"""


def test_threads_of_arrow_end_no_program_in_their_way(tmp_path: Path) -> None:
    """What it has printed is there, what was registered is called, and its exit code is its own: no abort, no hang."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )

    assert (3, "100\nleft in order\n", "") == (done.returncode, done.stdout, done.stderr)


def test_what_cannot_be_printed_fails(tmp_path: Path) -> None:
    """Output that the disk has no room for is not lost without a word of the exit code."""
    program = "import pyarrow, click\nfrom absurd.cli.run import run\nrun(click.command()(lambda: print('x')), 'c', [])"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, stdout=full, timeout=120, check=False)

    assert done.returncode == 1
