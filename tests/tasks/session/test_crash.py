"""A session survives what kills its process, and a disk that is full: all that was acknowledged is in its file."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from proof import amount, seed_of
from session_files import in_process, line_of, session_files, tree_of

from absurd.tasks.session import SessionManager, SessionStorageError, verify

WRITING = """
    import os, sys, threading
    import numpy as np
    from absurd.tasks.session import SessionManager

    sessions = SessionManager(sys.argv[1])
    acknowledged = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    sessions.start_session("observation", target="M31")

    def tell(name):
        for number in range(1_000_000):
            what = f"{name}/{number}"
            if number % 10 == 3:
                sessions.add_frame(f"camera{name}", np.full((8, 8), number, np.int32), what=what)
            elif number % 10 == 5:
                sessions.add_telemetry("mount_position", what=what)
            elif number % 10 == 7:
                sessions.add_event("passed", what=what)
            else:
                sessions.log("INFO", what)
            os.write(acknowledged, f"{what}\\n".encode())

    for name in range(10):
        threading.Thread(target=tell, args=(name,), daemon=True).start()
    print("ready", flush=True)
    if len(sys.argv) > 3:
        while True:
            sessions.start_session("observation", target="M31")
    threading.Event().wait()
"""


def told(tree: object) -> list[str]:
    """All that `WRITING` told a session, from its file."""
    text = json.dumps(tree)
    return re.findall(r'"(?:message|what)": "([0-9]+/[0-9]+)"', text)


@pytest.mark.parametrize("changing", [False, True])
def test_killed_at_any_moment(tmp_path: Path, changing: bool) -> None:
    """Ten threads tell logs, telemetry, events and frames, and the process is killed: what they were told is safe is
    in a file, once, in the order of each thread; also where sessions begin and end all the time.
    """
    chance = random.Random(seed_of("killed sessions"))
    for each in range(amount(2, 100)):
        data, acknowledged = tmp_path / str(each), tmp_path / f"{each}.acknowledged"
        with in_process(WRITING, data, acknowledged, *["changing"] * changing) as process:
            assert line_of(process) == "ready"
            time.sleep(chance.uniform(0, 0.5))  # the moment at which it is killed
            process.kill()

        SessionManager(data).close()

        found = []
        for path in session_files(data):
            assert verify(path).session_id == path.stem
            found += told(tree_of(path))
        expected = acknowledged.read_text(encoding="utf-8").split() if acknowledged.exists() else []
        assert set(expected) <= set(found)
        assert len(found) == len(set(found))
        assert len(found) <= len(expected) + 10
        recovered = [path for path in session_files(data) if tree_of(path)["meta"]["recovered"]]
        assert len(recovered) <= 1 + changing  # the next one has begun before the one before ends
        assert changing or len(recovered) == 1
        assert not list((data / ".sessions").glob("*_*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("sync", ["entry", "second"])
def test_a_full_disk(small_disk: Path, sync: str) -> None:
    """Every call without room says so and changes nothing; with room again the same session goes on, and is sealed
    with all that was acknowledged.
    """
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_700_000))
    with SessionManager(small_disk / "data", sync=sync) as sessions:  # type: ignore[arg-type]
        sessions.start_session("observation")
        acknowledged = []
        with pytest.raises(SessionStorageError, match="No space left"):
            for number in range(10_000_000):
                message = f"{number:06d} {'x' * 1000}"
                sessions.log("INFO", message)
                acknowledged.append(message)
                time.sleep(0.001)  # what waits in memory has to find room on the disk in the end
        with pytest.raises(SessionStorageError, match="No space left"):
            while True:
                sessions.add_frame("main", np.ones(10_000))

        ballast.unlink()
        deadline = time.monotonic() + 60
        while True:
            try:
                sessions.log("INFO", "room")
                break
            except SessionStorageError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        path = sessions.end_session()

    messages = [each["message"] for each in tree_of(path)["observability"]["logs"]]
    assert messages == [*acknowledged, "room"]


@pytest.mark.parametrize("sync", ["entry", "second"])
def test_a_disk_too_full_to_close(small_disk: Path, sync: str) -> None:
    """The manager lets go of the folder all the same, and writes nothing more; the next one recovers the session."""
    sessions = SessionManager(small_disk / "data", sync=sync)  # type: ignore[arg-type]
    session = sessions.start_session("observation")
    session.log("INFO", "first")
    sessions.on_book(lambda book: book.event("mark", {})).result()
    time.sleep(1)  # within which it is on the disk with sync="second" too
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    for message in ("x" * 10_000, ""):
        with pytest.raises(SessionStorageError):
            while True:
                session.add_event(message)
    with pytest.raises(SessionStorageError):
        sessions.close()

    ballast.unlink()
    SessionManager(small_disk / "data").close()

    tree = tree_of(session.path)
    assert tree["meta"]["recovered"] is True
    assert tree["observability"]["logs"][0]["message"] == "first"


def test_a_disk_too_full_to_seal(small_disk: Path) -> None:
    """The session has ended, its journal stays, and the next manager writes the file when there is room."""
    sessions = SessionManager(small_disk / "data")
    sessions.start_session("observation")
    for number in range(60):
        sessions.log("INFO", f"{number:06d} {'x' * 10_000}")
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (100_000, 4096):
            while True:
                try:
                    file.write(bytes(size))
                except OSError:
                    break
    # what is left is the room that an idle session needs, and less than the file does
    os.truncate(ballast, ballast.stat().st_size - 100_000)
    with pytest.raises(SessionStorageError, match="No space left"):
        sessions.end_session()
    sessions.close()
    assert session_files(small_disk / "data") == []

    ballast.unlink()
    SessionManager(small_disk / "data").close()

    [path] = session_files(small_disk / "data")
    assert len(tree_of(path)["observability"]["logs"]) == 60


def test_a_limit_on_files(tmp_path: Path) -> None:
    """A file that may not grow is told as a full disk is, and the session goes on within the limit of the next one."""
    script = """
        import resource, sys
        from absurd.tasks.session import SessionManager, SessionStorageError
        sessions = SessionManager(sys.argv[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        count = 0
        try:
            while True:
                sessions.log("INFO", "x" * 1000)
                count += 1
        except SessionStorageError as error:
            assert "too large" in error.message, error
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        sessions.log("INFO", "after")
        print(count)
        sessions.close()
    """
    with in_process(script, tmp_path) as process:
        count = int(line_of(process))
        process.wait()

    [path] = session_files(tmp_path)
    assert len(tree_of(path)["observability"]["logs"]) == count + 1
