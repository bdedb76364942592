"""What options of ``fast-export`` bring about on the server, and what it warns of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from house import ROOT
from interrupting import Sessions, command, environment, files, prepare

from absurd import SyncAbsurdClient
from absurd.cli.export import fast_export
from absurd.cli.run import call
from absurd.tasks.export import DEFAULT_BLOCK_SIZE, query, snapshot
from absurd.tasks.export.block import Block
from absurd.tasks.export.meter import Meter, StoppedError
from absurd.tasks.export.pipeline import Pipeline
from absurd.tasks.export.snapshot import HoldWatch

Until = Callable[[Callable[[], object]], None]

MIB = 1 << 20


class Clock:
    """A time that only goes on when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        """Let it go on."""
        self.now += seconds


# How many connections ----------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [1, 2])
def test_connections(module_database_url: str, tmp_path: Path, until: Until, wanted: int) -> None:
    """--connections read side by side, beside the one that holds the snapshot: so many are seen on the server."""
    with Sessions(module_database_url) as sessions:
        if not sessions.knows("public.large"):
            prepare(module_database_url)
        words = ("--sql", "select n, t from public.large", "--out", "x.parquet", "--limit-mib-per-second", "0.2")
        process = subprocess.Popen(
            command(module_database_url, *words, "--connections", str(wanted)), cwd=tmp_path, env=environment()
        )
        until(lambda: sessions.count("query like 'copy%'") == wanted and files(tmp_path))
        assert sessions.count() == 1 + wanted
        process.terminate()
        assert process.wait(20) == 143


# How fast ----------------------------------------------------------------------------------------


def test_a_rate() -> None:
    """What is read is waited for at the rate that is allowed, and time in which nothing was read is not made up for."""
    clock = Clock()
    meter = Meter(2.0, clock=clock, wait=clock.wait)

    for _ in range(10):
        meter.spend(MIB, 100)
    assert clock.now == pytest.approx(1005.0)
    clock.wait(60)
    meter.spend(3 * MIB, 1)

    assert clock.now == pytest.approx(1066.5)
    assert (meter.bytes, meter.rows) == (13 * MIB, 1001)
    assert meter.piece <= 2 * MIB / 10, "a wait is short enough for progress to be told"
    meter.halt()
    with pytest.raises(StoppedError):
        meter.spend(1, 1)


def test_the_limit_reaches_the_meter(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--limit-mib-per-second: as many seconds are waited as the bytes of all connections take at that rate."""
    clock = Clock()
    made: list[Meter] = []

    def metered(limit: float | None) -> Meter:
        made.append(Meter(limit, clock=clock, wait=clock.wait))
        return made[-1]

    monkeypatch.setattr(query, "Meter", metered)
    words = ("--sql", "select repeat('x', 10000) as t from generate_series(1, 1000)", "--out", str(tmp_path / "x"))
    assert call(fast_export, "fast-export", ("--dsn", database_url, *words, "--limit-mib-per-second", "4")) == 0

    (meter,) = made
    assert meter.bytes > 10_000_000
    assert clock.now - 1000 == pytest.approx(meter.bytes / (4 * MIB))
    assert "1,000 rows" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "size"), [((), DEFAULT_BLOCK_SIZE), (("--block-size", "65536"), 65536)])
def test_the_block_size_reaches_the_buffers(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], size: int
) -> None:
    """--block-size: readers wait once so many bytes are read ahead; a block is an eighth of that and a row at most."""
    bounds: list[int] = []
    blocks: list[int] = []

    class Watched(Pipeline):
        def __init__(self, *given: Any) -> None:
            bounds.append(given[-1])
            super().__init__(*given)

        def _put(self, part: int, block: Block) -> None:
            blocks.append(block.wire)
            super()._put(part, block)

    monkeypatch.setattr(query, "Pipeline", Watched)
    rows = ("--sql", "select repeat('x', 1000) as t from generate_series(1, 1000)", "--out", str(tmp_path / "x"))
    assert call(fast_export, "fast-export", ("--dsn", database_url, *rows, *words)) == 0

    assert bounds == [size]
    assert sum(blocks) > 1_000_000
    assert max(blocks) < size // 8 + 1010


# A snapshot that is held for long ----------------------------------------------------------------


def test_a_long_snapshot_is_warned_of_once() -> None:
    """After five minutes, and not again."""
    clock = Clock()
    told: list[str] = []
    watch = HoldWatch(told.append, clock=clock)

    watch.look()
    clock.wait(300)
    watch.look()
    assert told == []
    clock.wait(1)
    watch.look()
    clock.wait(1000)
    watch.look()

    assert len(told) == 1
    assert "more than 5 minutes" in told[0]
    assert "vacuum" in told[0]


def test_fast_export_warns(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, once for a list whose exports are all short: they hold one snapshot together."""
    monkeypatch.setattr(snapshot, "LONG_SECONDS", -1.0)
    (tmp_path / "x.json").write_text(
        '[{"sql": "select 1 as n", "out": "a.parquet"}, {"sql": "select 2 as n", "out": "b.parquet"}]'
    )
    monkeypatch.chdir(tmp_path)

    assert call(fast_export, "fast-export", ("--dsn", database_url, "--config", "x.json", "--json")) == 0

    warned = capsys.readouterr().err
    assert warned.count("Warning: the snapshot of this export is held") == 1
    assert "vacuum" in warned


def test_tasks_warn(module_database_url: str, tmp_path: Path) -> None:
    """In the worker's log: an export of its own does, and so does a batch, which holds the snapshot of its exports."""
    log = tmp_path / "log"
    given = {
        "ABSURD_DATABASE_URL": module_database_url,
        "ABSURD_LOG_LEVEL": "warning",
        "PYTHONPATH": str(ROOT / "tests"),
    }
    with log.open("wb") as written, SyncAbsurdClient(module_database_url) as client:
        process = subprocess.Popen(
            [sys.executable, "-m", "absurd.cli.worker", "--concurrency", "2", "--import", "impatient"],
            env=os.environ | given, stdout=written, stderr=written,
        )  # fmt: skip
        try:
            export = {"sql": "select 1 as n", "out": str(tmp_path / "x.parquet")}
            alone = client.spawn("export.query", export)
            client.wait(alone, timeout=60)
            batch = client.spawn("export.batch", {"exports": [export | {"out": str(tmp_path / "y.parquet")}]})
            client.wait(batch, timeout=60)
        finally:
            process.terminate()
            process.wait()

    warnings = [line for line in log.read_text().splitlines() if "vacuum removes no row" in line]
    for task in (alone, batch):
        assert len([line for line in warnings if str(task) in line]) == 1, log.read_text()


# A file that cannot be written -------------------------------------------------------------------

SMALL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
from absurd.cli import export
export.main()
"""
"""``fast-export`` where no file may be longer than a MiB."""


@pytest.mark.parametrize("keep", [(), ("--keep-temp",)])
def test_a_full_disk(database_url: str, tmp_path: Path, keep: tuple[str, ...]) -> None:
    """The error names the file and the reason; the file of the run before stays, and what was asked for."""
    (tmp_path / "x.parquet").write_bytes(b"the run before")
    words = ("--sql", "select n, md5(n::text) as t from generate_series(1, 200000) n", "--out", "x.parquet", *keep)
    _, _, *rest = command(database_url, *words, "--row-group-size", "1000")
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DISK, *rest[1:]],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1, done.stderr
    told = "Error: x.parquet cannot be written: File too large (see `absurd explain export_failed`)"
    assert done.stderr.strip() == told
    assert (tmp_path / "x.parquet").read_bytes() == b"the run before"
    assert files(tmp_path) == (["x.parquet", "x.parquet.part"] if keep else ["x.parquet"])
    with Sessions(database_url) as sessions:
        assert sessions.count() == 0


@pytest.mark.parametrize(
    ("out", "code", "reason"),
    [
        ("file/x.parquet", 1, "cannot be written: (Not a directory|File exists)"),
        ("/proc/nowhere/x.parquet", 1, "cannot be written: No such file"),
        ("folder", 2, "is a folder; a file is to be written"),
        ("x\udcff.parquet", 2, "cannot be the name of an export: it holds a NUL, or is not UTF-8"),
    ],
)
def test_no_place_for_a_file(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    out: str, code: int, reason: str,
) -> None:  # fmt: skip
    """A folder that cannot be made, or stands where the file should: an error with the reason, and no leftovers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()

    told = call(fast_export, "fast-export", ("--dsn", database_url, "--sql", "select 1 as n", "--out", out))

    assert told == code
    assert re.search(rf"^Error: \S*{re.escape(ascii(out)[1:-1])}'? {reason}", capsys.readouterr().err)
    assert files(tmp_path) == ["file", "folder"]


def test_a_folder_is_made(database_url: str, tmp_path: Path) -> None:
    """A folder that is not there is made."""
    out = tmp_path / "a" / "b" / "x.parquet"

    assert call(fast_export, "fast-export", ("--dsn", database_url, "--sql", "select 1 as n", "--out", str(out))) == 0
    assert pq.read_table(out).to_pylist() == [{"n": 1}]
