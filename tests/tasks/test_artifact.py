"""Files that are whole or absent."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from absurd.tasks import artifact
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


HELD = """
import sys
from absurd.tasks import artifact
artifact._host = lambda: "container"
artifact.os.getpid = lambda: 7
with artifact.write_aside(sys.argv[1]) as part:
    part.write_text("half")
    print(part.name, flush=True)
    sys.stdin.read()
"""
"""Writes a file as process 7 of a host that other containers are called too, until it is told to end or killed."""


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """The unfinished file of a dead writer goes with the next write; that of a living one, or elsewhere, stays.

    So it is with files of older versions, which nobody locks: their process's number tells.
    """
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = artifact._host()
    left, old = tmp_path / f".file.{host}.{dead.pid}.{'0' * 16}.part", tmp_path / f".file.{host}.{dead.pid}.part"
    alive, elsewhere = tmp_path / f".file.{host}.1.part", tmp_path / ".file.other-host.7.part"
    for each in (left, old, alive, elsewhere):
        each.write_text("half")

    with write_aside(tmp_path / "file") as part:
        part.write_text("whole")

    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, elsewhere.name, "file"])


def test_containers_with_equal_names_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process writes stays, though no such process is seen here; once it is killed, its file goes."""
    words = [sys.executable, "-c", HELD, str(tmp_path / "file")]
    monkeypatch.setattr(artifact, "_host", lambda: "container")
    monkeypatch.setattr(artifact, "_is_alive", lambda _: False)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None
        name = other.stdout.readline().strip()
        with write_aside(tmp_path / "file") as part:
            part.write_text("mine")
        assert (tmp_path / name).read_text() == "half"
        other.kill()
        other.wait()
        with write_aside(tmp_path / "file") as part:
            part.write_text("mine")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_without_locks_the_number_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has no locks, what a living process writes stays, and what a dead one left goes."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = artifact._host()
    left, alive = (tmp_path / f".file.{host}.{pid}.{'0' * 16}.part" for pid in (dead.pid, 1))

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for each in (left, alive):
        each.write_text("half")
    with write_aside(tmp_path / "file") as part:
        part.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive.name, "file"])


def test_links_devices_and_modes(tmp_path: Path) -> None:
    """A link stays and what it points to is replaced, with its mode; a pipe and a folder are refused."""
    real, link, pipe = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    with write_aside(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o600

    os.mkfifo(pipe)
    with pytest.raises(FileExistsError, match="pipe"), write_aside(pipe):
        pass
    with pytest.raises(IsADirectoryError), write_aside(tmp_path):
        pass


def test_a_group_that_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The group of a new file may do what all may, where the file cannot be given to the group that it was for."""
    older, newer = tmp_path / "older", tmp_path / "newer"
    for each in (older, newer):
        each.write_text("")
    older.chmod(0o664)

    def refuse(*_: object) -> None:
        raise PermissionError

    told = os.stat_result((0o100664, 0, 0, 1, os.geteuid(), 54321, 0, 0, 0, 0))
    monkeypatch.setattr(os, "chown", refuse)
    stat_of = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: told if path == older else stat_of(path, **how))
    artifact.take_after(older, newer)
    assert stat_of(newer).st_mode & 0o777 == 0o644


def test_a_block_that_writes_nothing(tmp_path: Path) -> None:
    """A file that was not written is an error, not an empty file; one that was written empty is empty."""
    with pytest.raises(FileNotFoundError), write_aside(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []
    with write_aside(tmp_path / "file") as part:
        part.write_text("")
    assert (tmp_path / "file").read_bytes() == b""


def test_checksum(tmp_path: Path) -> None:
    """The checksum is the SHA-256 of the whole file."""
    content = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(content)

    assert checksum(tmp_path / "file") == hashlib.sha256(content).hexdigest()
