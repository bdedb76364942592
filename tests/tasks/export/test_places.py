"""Where exports write: several at once, names that somebody else has taken, links, devices, permissions."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from absurd.tasks import artifact
from absurd.tasks.export import ExportConfigError, export_query, verify_manifest

DATASET: dict[str, Any] = {"max_rows_per_file": 5}

EXPORTS = """
import os, sys
from absurd.tasks.export import export_query

number = int(sys.argv[2])
for line in sys.stdin:
    export_query(sys.argv[1], f"select {number} as a", "x.parquet")
    print(line, end="", flush=True)
"""


def test_two_exports_in_a_process_write_files_of_their_own(database_url: str, tmp_path: Path) -> None:
    """The one that ends last gives the file; neither writes into that of the other, and nothing else is left."""
    place = tmp_path / "x.parquet"
    inner: list[int] = []

    def meanwhile() -> None:
        inner.append(export_query(database_url, "select n from generate_series(1, 9) n", place).rows)
        assert verify_manifest(place).rows == 9

    result = export_query(database_url, "select n from generate_series(1, 20) n", place, publishing=meanwhile)

    assert (inner, result.rows) == ([9], 20)
    assert verify_manifest(place).rows == 20
    assert sorted(os.listdir(tmp_path)) == ["x.parquet", "x.parquet.manifest.json"]


def test_two_processes_write_one_file(database_url: str, tmp_path: Path) -> None:
    """Whoever was last, the manifest is there and is that of the file."""
    words = [sys.executable, "-c", EXPORTS, database_url]
    pipe = subprocess.PIPE
    writers = [
        subprocess.Popen([*words, str(n)], stdin=pipe, stdout=pipe, text=True, bufsize=1, cwd=tmp_path) for n in (1, 22)
    ]
    try:
        for _ in range(60):
            for each in writers:
                assert each.stdin is not None
                print("go", file=each.stdin, flush=True)
            for each in writers:
                assert each.stdout is not None
                assert each.stdout.readline() == "go\n"
            verify_manifest(tmp_path / "x.parquet")
    finally:
        for each in writers:
            each.communicate()
    assert sorted(os.listdir(tmp_path)) == ["x.parquet", "x.parquet.manifest.json"]


def test_names_are_given_one_export_after_the_other(database_url: str, tmp_path: Path) -> None:
    """While somebody gives names in the folder, an export waits before its first one."""
    place = tmp_path / "x.parquet"
    export_query(database_url, "select 1 as a", place)
    is_written = threading.Event()
    other = threading.Thread(
        target=export_query, args=(database_url, "select 2 as a", place), kwargs={"publishing": is_written.set}
    )
    with artifact.naming(tmp_path):
        other.start()
        assert is_written.wait(60)
        assert verify_manifest(place).query == "select 1 as a"
    other.join()
    assert verify_manifest(place).query == "select 2 as a"


def test_nothing_is_written_through_a_link_in_the_way(database_url: str, tmp_path: Path) -> None:
    """Links under the names that a part could be guessed to have lead an export nowhere."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "shared"
    folder.mkdir()
    host = artifact._host()
    for name in ("x.parquet", "x.parquet.manifest.json"):
        (folder / f".{name}.{host}.{os.getpid()}.part").symlink_to(victim)

    export_query(database_url, "select 1 as a", folder / "x.parquet")
    with pytest.raises(OSError, match="symbolic"):
        (folder / "mine").symlink_to(victim)
        export_query(database_url, "select 1 as a", folder / "mine", private=True)

    assert victim.read_text() == "precious"
    assert not (folder / "x.parquet").is_symlink()


@pytest.mark.parametrize("options", [{}, DATASET], ids=["file", "dataset"])
def test_links_stay(database_url: str, tmp_path: Path, options: dict[str, Any]) -> None:
    """What a link points to is written, there or not there yet; its manifest is found by either name."""
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk" / "real")
    for rows in (10, 12):
        export_query(database_url, f"select n from generate_series(1, {rows}) n", link, **options)
        assert link.is_symlink()
        assert verify_manifest(link).rows == verify_manifest(tmp_path / "disk" / "real").rows == rows
    assert sorted(os.listdir(tmp_path)) == ["disk", "link"]


@pytest.mark.parametrize("options", [{}, DATASET], ids=["file", "dataset"])
def test_devices_and_pipes_stay(database_url: str, tmp_path: Path, options: dict[str, Any]) -> None:
    """They are refused, by themselves and behind a link, and are what they were."""
    pipe, link, null = tmp_path / "pipe", tmp_path / "link", tmp_path / "null"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    null.symlink_to(os.devnull)
    for place in (pipe, link, null, Path("/dev/stdin")):
        with pytest.raises(ExportConfigError, match=r"is a device or a pipe"):
            export_query(database_url, "select 1 as a", place, **options)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["link", "null", "pipe"]


def test_permissions_stay(database_url: str, tmp_path: Path) -> None:
    """Whoever could not read the file, its manifest or the folder of the dataset still cannot after the next export."""
    for place, options, kept in (
        ("x.parquet", {}, ["x.parquet", "x.parquet.manifest.json"]),
        ("d", DATASET, ["d"]),
    ):
        export_query(database_url, "select 1 as a", tmp_path / place, **options)
        modes = [0o640, 0o600] if not options else [0o750]
        for name, mode in zip(kept, modes, strict=True):
            (tmp_path / name).chmod(mode)
            if os.geteuid() == 0:
                os.chown(tmp_path / name, 12345, 23456)
        export_query(database_url, "select 2 as a", tmp_path / place, **options)
        for name, mode in zip(kept, modes, strict=True):
            told = (tmp_path / name).stat()
            assert stat.S_IMODE(told.st_mode) == mode
            assert os.geteuid() != 0 or (told.st_uid, told.st_gid) == (12345, 23456)
