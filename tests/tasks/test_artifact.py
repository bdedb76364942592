"""Files that are whole or absent."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from absurd.tasks.artifact import checksum, write_aside


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    """Until then the old content stays; folders are made; nothing else is left."""
    final = tmp_path / "deep" / "file.txt"
    for content in ("old", "new"):
        with write_aside(final) as part:
            part.write_text(content)
            assert not final.exists() or final.read_text() == "old"
        assert final.read_text() == content
    assert list(final.parent.iterdir()) == [final]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    """Whatever ends the block early: no file under the final name, and none beside it."""
    with pytest.raises(error), write_aside(tmp_path / "file") as part:
        part.write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_private_path_is_written_as_it_is(tmp_path: Path) -> None:
    """The path of a run's own needs no second name; it too goes when the block raises."""
    with write_aside(tmp_path / "mine", private=True) as part:
        assert part == tmp_path / "mine"
        part.write_text("x")
    with pytest.raises(ValueError, match="broken"), write_aside(tmp_path / "mine", private=True):
        raise ValueError("broken")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """The unfinished file of a dead writer goes with the next write; that of a living one, or elsewhere, stays."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname().partition(".")[0] or "localhost"
    left = tmp_path / f".file.{host}.{dead.pid}.part"
    alive, elsewhere = tmp_path / f".file.{host}.1.part", tmp_path / ".file.other-host.7.part"
    for each in (left, alive, elsewhere):
        each.write_text("half")

    with write_aside(tmp_path / "file") as part:
        part.write_text("whole")

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, elsewhere.name, "file"])


def test_a_block_that_writes_nothing(tmp_path: Path) -> None:
    """A file that was not written is an error, not an empty file."""
    with pytest.raises(FileNotFoundError), write_aside(tmp_path / "file"):
        pass


def test_checksum(tmp_path: Path) -> None:
    """The checksum is the SHA-256 of the whole file."""
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)

    assert checksum(tmp_path / "file") == hashlib.sha256(content).hexdigest()
