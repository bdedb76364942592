"""Sealing: wherever it is broken off it can be begun again, what is damaged is told, and no file is overwritten."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import asdf
import numpy as np
import pytest
from proof import amount, seed_of
from session_files import opened, session_files, tree_of

from absurd.tasks.session import (
    SessionDamagedError,
    SessionManager,
    SessionNotFoundError,
    SessionStateError,
    SessionStorageError,
    SessionValueError,
    folder,
    journal,
    seal,
    verify,
)
from absurd.tasks.session.place import Place
from absurd.tasks.session.session_file import SessionFile

FRAMES = [np.full((40, 50), number, ">u2") for number in range(5)]


def ended(data: Path, **options: Any) -> Place:
    """A session that has ended and is not sealed: as it is when its manager dies just then."""
    script = """
        import json, os, sys
        import numpy as np
        from absurd.tasks.session import SessionManager, sealer
        sealer.Sealer.owe = lambda *_: os._exit(0)
        sessions = SessionManager(sys.argv[1], **json.loads(sys.argv[2]))
        session = sessions.start_session("observation", target="M31")
        for number in range(5):
            session.log("INFO", f"frame {number}")
            session.add_frame("main", np.full((40, 50), number, ">u2"))
        session.add_calibration("dark", np.ones((3, 3), np.float32))
        sessions.end_session(wait=False)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), data, json.dumps(options)], check=True)
    [work] = (data / ".sessions").glob("observation_*")
    return Place(data, work.name)


def assert_whole(path: Path) -> None:
    """A file has all that `ended` told it, by its own asdf."""
    with asdf.open(path, validate_checksums=True) as file:
        assert [int(np.asarray(each)[0, 0]) for each in file["cameras"]["main"]["frames"]] == list(range(5))
        for frame, expected in zip(file["cameras"]["main"]["frames"], FRAMES, strict=True):
            assert np.array_equal(frame, expected)
            assert frame.dtype == expected.dtype
        assert np.array_equal(file["calibration"]["dark_frames"][0], np.ones((3, 3)))
        assert len(file["observability"]["logs"]) == 5
    assert verify(path).metrics["frames_captured"] == 5


@pytest.mark.parametrize("frames", ["external", "embedded"])
@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
def test_every_form(tmp_path: Path, frames: str, compression: str | None) -> None:
    """Frames beside the file or in it, compressed or not, are what was told, by plain asdf in another process too."""
    place = ended(tmp_path, frames=frames, compression=compression)

    done = seal(tmp_path, place.id)

    assert done.path == str(place.path)
    assert_whole(place.path)
    if compression != "zstd":  # whose plugin a plain installation of asdf does not bring
        assert [each["sum"] for each in opened(place.path)["cameras"]["main"]["frames"]] == [
            2000.0 * number for number in range(5)
        ]
    assert place.beside.exists() == (frames == "external")
    assert not place.work.exists()
    assert seal(tmp_path, place.id) == done


@pytest.mark.parametrize(("frames", "compression"), [("external", None), ("external", "zlib"), ("embedded", None)])
def test_a_spoilt_journal(tmp_path: Path, frames: str, compression: str | None) -> None:
    """What a bad disk took from the middle of a journal is missed, and nothing else: the session is sealed with what
    stands before and behind it, tells how much is spoilt, and keeps the file of a frame that is told of no more.
    """
    place = ended(tmp_path, frames=frames, compression=compression)
    first, *_, last = [each for each in journal.read(place.journal) if each.kind == journal.FRAME][:2]
    with place.journal.open("r+b") as file:
        file.seek(last.offset + 3)
        file.write(b"\xff" * 40)

    SessionManager(tmp_path).close()

    tree = tree_of(place.path)
    assert [each["sum"] for each in tree["cameras"]["main"]["frames"]] == [0, 4000, 6000, 8000]
    assert [each["message"] for each in tree["observability"]["logs"]] == [f"frame {number}" for number in range(5)]
    assert tree["meta"]["recovered"] is False
    assert tree["provenance"]["journal"]["spoilt_bytes"] == last.end - last.offset
    assert verify(place.path).metrics["frames_captured"] == 4
    kept = place.beside / last.value["stored"]["file"]
    with asdf.open(kept) as lost:
        assert (np.asarray(lost["frame"]) == 1).all()
        assert lost["camera"] == "main"
    assert (place.beside / first.value["stored"]["file"]).exists() == (frames == "external")


def test_a_journal_without_its_beginning_stays(tmp_path: Path) -> None:
    """A session whose first record is spoilt cannot be sealed; what was told to it is there all the same, and the
    manager begins without it.
    """
    place = ended(tmp_path)
    with place.journal.open("r+b") as file:
        file.seek(40)
        file.write(b"\xff")

    for _ in range(2):
        with SessionManager(tmp_path) as sessions:
            sessions.log("INFO", "another night")

    assert len(list(journal.read(place.journal))) == 12
    assert len(session_files(tmp_path)) == 2


def test_a_session_that_cannot_be_recovered_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose journal cannot be written keeps no manager from beginning; the next one recovers it."""
    script = """
        import os, sys
        from absurd.tasks.session import SessionManager
        SessionManager(sys.argv[1]).start_session("observation").log("INFO", "kept")
        os._exit(9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path], check=False)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as read_only:
        read_only.setattr(folder, "JournalWriter", refuse)
        SessionManager(tmp_path).close()
    assert session_files(tmp_path) == []
    SessionManager(tmp_path).close()

    [path] = session_files(tmp_path)
    assert tree_of(path)["observability"]["logs"][0]["message"] == "kept"


DYING = """
    import os, shutil, sys
    from absurd.tasks.session import seal
    from absurd.tasks.session import compression, session_file, verification  # noqa: F401

    STEPS = ("fsync", "link", "rename", "unlink", "mkdir", "rmdir")
    real = {name: getattr(os, name) for name in STEPS}

    def die_after(steps):
        left = [steps]
        def count():
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
        def dying(name):
            def call(*arguments, **keywords):
                count()
                done = real[name](*arguments, **keywords)
                count()
                return done
            return call
        for name in STEPS:
            setattr(os, name, dying(name))

    steps, code = int(sys.argv[4]), 9
    while code:
        shutil.copytree(sys.argv[1], f"{sys.argv[2]}/{steps}")
        if (child := os.fork()) == 0:
            die_after(steps)
            seal(f"{sys.argv[2]}/{steps}", sys.argv[3])
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in {0, 9}, code
        steps += int(sys.argv[5])
"""


@pytest.mark.parametrize(("frames", "compression"), [("external", None), ("external", "zlib"), ("embedded", None)])
def test_broken_off_anywhere(tmp_path: Path, frames: str, compression: str | None) -> None:
    """Killed before or after any of its steps on the disk, sealing leaves all that is needed to begin again."""
    first, broken = tmp_path / "first", tmp_path / "broken"
    session_id = ended(first, frames=frames, compression=compression).id
    stride = amount(7, 1)
    offset = random.Random(seed_of("broken off")).randrange(stride)
    words = map(str, (first, broken, session_id, offset, stride))
    subprocess.run([sys.executable, "-c", textwrap.dedent(DYING), *words], check=True)

    left = list(broken.iterdir())
    for data in left:
        place = Place(data, session_id)
        SessionManager(data).close()

        assert_whole(place.path)
        assert session_files(data) == [place.path]
        assert {each.name for each in (data / ".sessions").iterdir()} == {"lock"}
    assert len(left) * stride > 20


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A file that has the session's name and is not its own stays, and the journal too."""
    place = ended(tmp_path)
    place.path.parent.mkdir(parents=True)
    place.path.write_bytes(b"precious")

    with pytest.raises(SessionDamagedError):
        seal(tmp_path, place.id)

    assert place.path.read_bytes() == b"precious"
    assert place.journal.exists()


def test_what_cannot_be_sealed(tmp_path: Path) -> None:
    """A session that has not ended, and one that there is not."""
    with SessionManager(tmp_path) as sessions:
        with pytest.raises(SessionStateError, match="has not ended"):
            seal(tmp_path, sessions.active.id)
        with pytest.raises(SessionNotFoundError):
            seal(tmp_path, "observation_20251214_210000_1f0c33a8")
        for name in ("../x", "", "observation_m31"):
            with pytest.raises(SessionNotFoundError):
                seal(tmp_path, name)


def test_a_frame_that_is_gone_is_told(tmp_path: Path) -> None:
    """Somebody removed a frame's file: the session is sealed without it, and says which one is lost."""
    place = ended(tmp_path)
    next(iter(sorted(place.frames.glob("main_*.asdf")))).unlink()

    seal(tmp_path, place.id)

    camera = tree_of(place.path)["cameras"]["main"]
    assert camera["frames"][0] is None
    assert [each.get("lost") for each in camera["frame_info"]] == [True, None, None, None, None]


@pytest.mark.parametrize("frames", ["external", "embedded"])
def test_a_frame_that_changed_is_refused(tmp_path: Path, frames: str) -> None:
    """A frame whose bytes are not those that arrived is no part of a file: the error names it, the journal stays."""
    place = ended(tmp_path, frames=frames)
    path = sorted(place.frames.glob("main_*.asdf"))[1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(SessionDamagedError):
        seal(tmp_path, place.id)

    assert place.journal.exists()
    assert not place.path.exists()


@pytest.mark.parametrize("frames", ["external", "embedded"])
def test_damage_is_found(tmp_path: Path, frames: str) -> None:
    """Cut off anywhere, or with a bit flipped in an array, a file is said to be damaged."""
    place = ended(tmp_path, frames=frames)
    seal(tmp_path, place.id)
    data = place.path.read_bytes()
    other = place.path.with_name("copy.asdf")

    for length in range(0, len(data) - 60, max(1, len(data) // 40)):
        other.write_bytes(data[:length])
        with pytest.raises(SessionDamagedError):
            verify(other)
    if frames == "embedded":
        broken = bytearray(data)
        broken[data.index(b"\xd3BLK") + 100] ^= 1
        other.write_bytes(broken)
        with pytest.raises(SessionDamagedError, match="checksum"):
            verify(other)
    else:
        frame = sorted(place.beside.glob("main_*"))[3]
        frame.write_bytes(frame.read_bytes()[:-1])
        with pytest.raises(SessionDamagedError, match="lacks 1"):
            verify(place.path)
        frame.unlink()
        with pytest.raises(SessionDamagedError, match="not there"):
            verify(place.path)


def test_no_room_to_seal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for the file the call says so, and it is written once there is room: nobody has to ask again."""
    monkeypatch.setattr("absurd.tasks.session.sealer.FIRST_PAUSE", 0.01)

    class Full:
        def write(self, *_: object) -> None:
            raise OSError(28, os.strerror(28))

    with SessionManager(tmp_path) as sessions:
        session = sessions.start_session("observation")
        session.log("INFO", "kept")
        with monkeypatch.context() as full:
            full.setattr(SessionFile, "write", Full.write)
            with pytest.raises(SessionStorageError, match="No space left"):
                sessions.end_session()
            sessions.log("INFO", "life goes on")
    assert tree_of(session.path)["observability"]["logs"][0]["message"] == "kept"


def test_zstd_without_its_plugin_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compression that cannot be done is no surprise for the end of a session."""
    with asdf.config_context() as config:
        for each in config.extensions:
            if each.compressors:
                config.remove_extension(each)
        with pytest.raises(SessionValueError, match="absurd\\[session\\]"):
            SessionManager(tmp_path, compression="zstd")
    with pytest.raises(SessionValueError, match="no compression"):
        SessionManager(tmp_path, compression="rar")  # type: ignore[arg-type]
