"""The manager: there is always an active session, none overwrites another, and all that was told is in some file."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time as real_time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asdf
import numpy as np
import pytest
from session_files import in_process, line_of, opened, session_files, tree_of

from absurd.tasks.session import (
    SessionFolderBusyError,
    SessionManager,
    SessionStateError,
    SessionStorageError,
    SessionValueError,
    book,
    verify,
    writer,
)
from absurd.tasks.session.listing import summaries


class Clock:
    """The clock on the wall, which a test sets; the one that nobody sets goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *now: int) -> None:
        self.set(*now)
        fake = SimpleNamespace(
            time_ns=lambda: self.ns, monotonic_ns=real_time.monotonic_ns, monotonic=real_time.monotonic
        )
        for module in (book, writer):
            monkeypatch.setattr(module, "time", fake)

    def set(self, *now: int) -> None:
        self.ns = int(datetime(*now, tzinfo=UTC).timestamp()) * 1_000_000_000  # type: ignore[misc,arg-type]


def test_the_flow_of_a_night(tmp_path: Path) -> None:
    """Idle, alignment, idle, observation: each is a file that plain asdf opens, with all that it was told."""
    sessions = SessionManager(data_dir=tmp_path, location={"lat": 45.5, "lon": -122.6, "alt": 100})
    sessions.log("INFO", "Telescope server started")
    sessions.log("INFO", "Cameras initialized", cameras=["ASI482MC", "ASI120MC-S"])
    alignment = sessions.start_session("alignment", purpose="ra_dec_calibration")
    sessions.log("INFO", "Beginning plate solve alignment")
    alignment.add_calibration("plate_solve", {"ra": 10.5, "dec": np.float64(41.25), "rotation": 1, "scale": 6.2})
    sessions.log("INFO", "Alignment complete", offset_ra=0.5, offset_dec=-0.3)
    alignment_path = sessions.end_session()
    sessions.log("INFO", "Waiting for observation command")
    obs = sessions.start_session("observation", target="M31", planned_duration_minutes=120, observer="Ada")
    obs.add_camera("main", info={"model": "ASI482MC", "sensor_size": [11.13, 6.26]}, settings={"gain": 0})
    for number in range(20):
        obs.add_frame("main", np.full((4, 5), number, np.uint16), exposure_us=312000, settings={"gain": number})
        sessions.log("DEBUG", f"Frame {number} captured", exposure_us=312000)
        obs.add_telemetry("mount_position", ra=10.0, dec=41.0, alt=60.0, az=120.0)
    obs.add_telemetry("focus_position", 3)
    obs.add_event("cloud_detected", {"cover": 0.3})
    sessions.log("error", "Dew")
    obs_path = sessions.end_session()
    sessions.close()

    aligned, observed = tree_of(alignment_path), opened(obs_path)
    assert aligned["calibration"] == {"plate_solve_results": [{"ra": 10.5, "dec": 41.25, "rotation": 1, "scale": 6.2}]}
    assert [each["message"] for each in aligned["observability"]["logs"]][-1] == "Alignment complete"
    assert aligned["observability"]["logs"][-1]["context"] == {"offset_ra": 0.5, "offset_dec": -0.3}
    meta = observed["meta"]
    assert meta["location"] == {"lat": 45.5, "lon": -122.6, "alt": 100}
    assert (meta["target"], meta["planned_duration_minutes"], meta["observer"]) == ("M31", 120, "Ada")
    assert (meta["session_type"], meta["recovered"], meta["schema_version"]) == ("observation", False, "1.1.0")
    camera = observed["cameras"]["main"]
    assert camera["info"] == {"model": "ASI482MC", "sensor_size": [11.13, 6.26]}
    assert camera["settings"] == {"gain": 19}
    assert [each["sum"] for each in camera["frames"]] == [20.0 * number for number in range(20)]
    assert [each["settings"]["gain"] for each in camera["frame_info"]] == list(range(20))
    assert {each["exposure_us"] for each in camera["frame_info"]} == {312000}
    assert observed["telemetry"]["focus_position"][0]["value"] == 3
    assert observed["observability"]["events"][0]["event"] == "cloud_detected"
    metrics = observed["observability"]["metrics"]
    assert (metrics["frames_captured"], metrics["errors"], metrics["log_entries"]) == (20, 1, 21)
    assert observed["provenance"]["software"]["absurd"]
    names = [each.name.split("_")[0] for each in session_files(tmp_path)]
    assert sorted(names) == ["alignment", "idle", "idle", "observation"]
    assert obs_path.name.startswith("observation_m31_")
    assert not list((tmp_path / ".sessions").glob("*_*"))


def test_two_sessions_in_one_second_and_a_clock_that_steps_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions of the same second have files of their own; entries stay in order, durations positive, whatever the
    clock says; folders are those of the day on which a session began, over midnight and new year.
    """
    clock = Clock(monkeypatch, 2025, 12, 31, 23, 59, 59)
    with SessionManager(tmp_path) as sessions:
        paths = []
        for _ in range(3):
            sessions.start_session("observation", target="M31")
            sessions.log("INFO", "first")
            clock.set(2026, 1, 1, 0, 0, 1)
            sessions.log("INFO", "second")
            clock.set(2025, 12, 31, 23, 0, 0)
            sessions.log("INFO", "third")
            clock.set(2025, 12, 31, 23, 59, 59)
            paths.append(sessions.end_session())
        clock.set(2026, 1, 1, 0, 0, 0)
        sessions.start_session("observation", target="M31")
        paths.append(sessions.end_session())

    assert len(set(paths)) == 4
    assert [each.parent.relative_to(tmp_path).as_posix() for each in paths] == [*["2025/12/31"] * 3, "2026/01/01"]
    for path in paths[:3]:
        tree = tree_of(path)
        logs = tree["observability"]["logs"]
        assert [each["message"] for each in logs] == ["first", "second", "third"]
        assert [each["number"] for each in logs] == sorted(each["number"] for each in logs)
        assert logs[1]["time"] == "2026-01-01T00:00:01.000000Z"
        assert 0 < tree["observability"]["metrics"]["duration_seconds"] < 60


HOSTILE = [
    "../../etc/passwd",
    "a/b",
    "..",
    ".",
    "😀",
    "",
    " ",
    "x" * 300,
    "M31\n\x00",
    "NGC 7000 (North)",
    "ÄÖü",
    "\ud800",
]


def test_hostile_names(tmp_path: Path) -> None:
    """Whatever a target, a camera or a measure is called, the file is in its folder and has the name in full."""
    data = tmp_path / "data"
    with SessionManager(data) as sessions:
        for name in HOSTILE:
            sessions.start_session("experiment", target=name)
            sessions.add_frame(name[:200], np.ones(3))
            sessions.add_telemetry(name[:200], 1)
            sessions.add_calibration(name[:200], {"a": 1})
            path = sessions.end_session()

            tree = tree_of(path)
            kept = name.encode("utf-8", "backslashreplace").decode()
            assert tree["meta"]["target"] == kept
            assert list(tree["cameras"]) == [kept[:200]]
            assert path.resolve().parent.parent.parent.parent == data.resolve()
            assert len(path.name) < 100
    assert {each.name for each in tmp_path.iterdir()} == {"data"}


def test_what_cannot_be_kept_is_refused_at_the_call(tmp_path: Path) -> None:
    """The call raises, nothing of it is kept, and the session goes on and becomes a file."""
    with SessionManager(tmp_path) as sessions:
        session = sessions.start_session("experiment")
        endless: list[Any] = []
        endless.append(endless)
        for call in (
            lambda: sessions.log("INFO", "x", big=np.zeros((200, 200))),
            lambda: sessions.log("", "x"),
            lambda: session.add_telemetry("t", endless),
            lambda: session.add_telemetry("n" * 201, 1),
            lambda: session.add_frame("main", np.array([object()])),
            lambda: session.add_frame("main", np.array("2025", dtype="datetime64[s]")),
            lambda: session.add_frame("main", np.zeros((0, 5))),
            lambda: session.add_frame("main", 5),
            lambda: session.add_frame("main", np.ma.masked_array([1, 2], [True, False])),
            lambda: session.add_frame("main", [[1], [2, 3]]),
            lambda: sessions.start_session("nap"),
            lambda: sessions.start_session("experiment", session_id="mine"),
        ):
            with pytest.raises(SessionValueError):
                call()
        sessions.log("warn", "kept")
        sessions.log(40, "kept")
        assert sessions.active.id == session.id
        tree = tree_of(sessions.end_session())

    assert [each["level"] for each in tree["observability"]["logs"]] == ["WARNING", "ERROR"]
    assert tree["cameras"] == {}
    assert not list(tmp_path.glob("*/*/*/*_frames"))


def test_one_manager_has_a_folder(tmp_path: Path) -> None:
    """A second one, here or in another process, is told who has it; a process that is killed has it no more."""
    with in_process(
        """
        import sys
        from absurd.tasks.session import SessionManager
        sessions = SessionManager(sys.argv[1])
        sessions.log("INFO", "mine")
        print("ready", flush=True)
        sys.stdin.read()
        """,
        tmp_path,
    ) as other:
        assert line_of(other) == "ready"
        with pytest.raises(SessionFolderBusyError, match=f"process {other.pid} on"):
            SessionManager(tmp_path)
        other.kill()

    with SessionManager(tmp_path), pytest.raises(SessionFolderBusyError):
        SessionManager(tmp_path)

    [path] = session_files(tmp_path)
    tree = tree_of(path)
    assert tree["meta"]["recovered"] is True
    assert [each["message"] for each in tree["observability"]["logs"]] == ["mine"]


@pytest.mark.parametrize("length", [None, 0, 10, 25, 30, 60])
def test_a_session_that_was_hardly_begun(tmp_path: Path, length: int | None) -> None:
    """Of a session whose manager died while it was made, before it could be told anything, nothing is left."""
    made = book.Book.create(tmp_path, "observation", {}, {"frames": "external", "compression": None}, "entry")
    made.abandon()
    if length is None:
        made.place.journal.unlink()
    else:
        os.truncate(made.place.journal, length)

    SessionManager(tmp_path).close()

    assert [each.name for each in (tmp_path / ".sessions").iterdir()] == ["lock"]
    assert session_files(tmp_path) == []


def test_a_child_that_lives_on_does_not_hold_the_folder(tmp_path: Path) -> None:
    """A process that was forked from the manager's, and outlives it, keeps nobody from the folder."""
    with in_process(
        """
        import os, sys
        from absurd.tasks.session import SessionManager
        sessions = SessionManager(sys.argv[1])
        heard, told = os.pipe()
        if os.fork() == 0:
            os.write(told, b"here")
            os.close(1)
            os.close(2)
            sys.stdin.read()
            os._exit(0)
        os.read(heard, 4)
        print("ready", flush=True)
        os.kill(os.getpid(), 9)
        """,
        tmp_path,
    ) as parent:
        assert line_of(parent) == "ready"
        parent.wait()

        SessionManager(tmp_path).close()


def test_idle_sessions_give_way(tmp_path: Path) -> None:
    """An idle session becomes a file after its time, with nobody doing anything; one that is empty does not."""
    with SessionManager(tmp_path, idle_minutes=0.2 / 60) as sessions:
        first = sessions.active.id
        sessions.log("INFO", "something")
        deadline = real_time.monotonic() + 60
        while not session_files(tmp_path):
            assert real_time.monotonic() < deadline
            real_time.sleep(0.01)
        second = sessions.active.id
        assert second != first

    [path] = session_files(tmp_path)
    assert path.stem == first


def test_a_session_that_is_left_goes_on(tmp_path: Path) -> None:
    """The next manager goes on with it: its entries, frames and duration follow those before."""
    first = SessionManager(tmp_path)
    begun = first.start_session("maintenance", purpose="focus")
    first.log("INFO", "one")
    first.add_frame("main", np.ones((2, 2)))
    first.leave()
    assert [each.state for each in summaries(tmp_path)] == ["open"]

    second = SessionManager(tmp_path)
    assert second.active.id == begun.id
    second.log("INFO", "two")
    second.add_frame("main", 2 * np.ones((2, 2)))
    path = second.end_session()
    second.close()

    tree = tree_of(path)
    assert [each["message"] for each in tree["observability"]["logs"]] == ["one", "two"]
    assert [each["sum"] for each in tree["cameras"]["main"]["frames"]] == [4, 8]
    assert (tree["meta"]["purpose"], tree["meta"]["recovered"]) == ("focus", False)


def test_threads_lose_nothing_while_sessions_change(tmp_path: Path) -> None:
    """What ten threads tell while sessions begin and end is in exactly one file each, and nothing is told twice."""
    stop = threading.Event()
    with SessionManager(tmp_path, sync="second") as sessions:

        def tell(name: int) -> list[str]:
            told: list[str] = []
            while not stop.is_set():
                message = f"{name}/{len(told)}"
                sessions.log("INFO", message)
                if len(told) % 50 == 0:
                    sessions.add_frame(f"cam{name}", np.full(4, len(told), np.int32))
                told.append(message)
            return told

        with ThreadPoolExecutor(10) as pool:
            running = [pool.submit(tell, name) for name in range(10)]
            for _ in range(8):
                sessions.start_session("observation", target="M31")
                sessions.end_session(wait=False)
            stop.set()
            told = [each for future in running for each in future.result()]

    found = []
    frames = 0
    for path in session_files(tmp_path):
        whole = verify(path)
        frames += whole.metrics["frames_captured"]
        text = path.read_text(encoding="utf-8")
        found += [line.split('"message": "')[1].split('"')[0] for line in text.splitlines() if '"message": "' in line]
    assert sorted(found) == sorted(told)
    assert frames == sum(1 for each in told if int(each.split("/")[1]) % 50 == 0)


def test_what_a_frame_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame on its way is not copied, is written once with a few hundred bytes before it, and waits for the disk
    three times: for its file, its folder and its place in the journal.  What takes longer than a disk, its MD5, is
    counted when the session is sealed.
    """
    written: list[int] = []
    waited: list[str] = []
    frame = np.ones((1024, 1024), np.uint16)
    real = {name: getattr(os, name) for name in ("pwrite", "fsync", "fdatasync")}

    def pwrite(file: int, data: Any, offset: int) -> int:
        done: int = real["pwrite"](file, data, offset)
        written.append(done)
        return done

    def waiting(name: str) -> Any:
        def wait(file: int) -> None:
            waited.append(name)
            real[name](file)

        return wait

    with SessionManager(tmp_path) as sessions:
        session = sessions.start_session("observation")
        session.add_frame("main", frame)
        with monkeypatch.context() as counting:
            counting.setattr(os, "pwrite", pwrite)
            counting.setattr(os, "fsync", waiting("fsync"))
            counting.setattr(os, "fdatasync", waiting("fdatasync"))
            counting.setattr(hashlib, "md5", None)
            tracemalloc.start()
            for number in range(5):
                session.add_frame("main", frame, number=number)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        path = sessions.end_session()

    assert peak < frame.nbytes // 4
    assert 5 * frame.nbytes < sum(written) < 5 * (frame.nbytes + 2000)
    assert sorted(waited) == ["fdatasync"] * 5 + ["fsync"] * 10
    with asdf.open(path) as file:
        assert [each["md5"] for each in file["cameras"]["main"]["frame_info"]] == [
            hashlib.md5(frame.tobytes(), usedforsecurity=False).hexdigest()
        ] * 6


def test_an_ended_session_takes_nothing(tmp_path: Path) -> None:
    """Its own calls say that it has ended; those of the manager go to the one that is active."""
    with SessionManager(tmp_path) as sessions:
        session = sessions.start_session("observation")
        path = session.close()
        with pytest.raises(SessionStateError, match="has ended"):
            session.log("INFO", "too late")
        with pytest.raises(SessionStateError, match="has ended"):
            session.add_frame("main", np.ones(3))
        with pytest.raises(SessionStateError, match="has ended"):
            session.close()
        sessions.log("INFO", "idle")
    assert path.exists()
    with pytest.raises(SessionStateError):
        sessions.log("INFO", "closed")


def test_a_session_that_cannot_begin_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for a new journal the active session goes on, and takes what it is told."""
    with SessionManager(tmp_path) as sessions:
        session = sessions.start_session("observation")

        def refuse(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as full:
            full.setattr(Path, "mkdir", refuse)
            with pytest.raises(SessionStorageError):
                sessions.start_session("alignment")
            with pytest.raises(SessionStorageError):
                sessions.end_session()
        session.log("INFO", "still there")
        tree = tree_of(sessions.end_session())

    assert [each["message"] for each in tree["observability"]["logs"]] == ["still there"]


def test_logs_go_to_the_console_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each line goes to the logger `absurd.session`, with its level and context."""
    with caplog.at_level(logging.DEBUG, "absurd.session"), SessionManager(tmp_path) as sessions:
        sessions.log("DEBUG", "Frame captured", exposure_us=312000)

    assert ("absurd.session", logging.DEBUG, "Frame captured exposure_us=312000") in caplog.record_tuples
