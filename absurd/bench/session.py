"""What sessions take: entries and frames on their way to the disk, memory meanwhile, and a catalogue of many files."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from absurd.bench.figures import Figure
from absurd.tasks.artifact import sync
from absurd.tasks.session import SessionManager, catalog
from absurd.tasks.session.query import query

THREADS = 10
SHAPE = (1080, 1920)
QUERY = "target LIKE 'M%' ORDER BY start_time DESC LIMIT 10"

_PROGRAM = """
import json, sys
from pathlib import Path
from absurd.bench import session
print(json.dumps(getattr(session, sys.argv[1])(Path(sys.argv[2]), int(sys.argv[3]))))
"""


def measure(
    *, rounds: int, folder: Path | None, entries: int, frames: int, files: int, tell: Callable[[str], None]
) -> list[list[Figure]]:
    """Figures of each round, each part in a process of its own, in a folder of `folder` that goes afterwards."""
    found = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="absurd_bench_", dir=folder) as name:
            place = Path(name)
            figures = []
            for sync in ("second", "entry"):
                rate = _run(f"tell_by_{sync}", place / sync, entries if sync == "second" else max(1, entries // 10))[
                    "rate"
                ]
                figures.append(Figure(f"entries, sync={sync}", rate, "1/s"))
            figures += _frames(_run("add_frames", place / "frames", frames))
            figures += _found(_run("find", place / "catalogue", files), files)
        found.append(figures)
        tell(f"Round {number + 1} of {rounds}: " + "; ".join(f"{e.name} {e.value:,.4g} {e.unit}" for e in figures))
    return found


def _run(what: str, place: Path, size: int) -> dict[str, float]:
    command = [sys.executable, "-c", _PROGRAM, what, str(place), str(size)]
    told: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return told


def _frames(told: dict[str, float]) -> list[Figure]:
    return [
        Figure("frames", told["rate"], "MB/s"),
        Figure("the disk, the same bytes", told["disk"], "MB/s", None),
        Figure("frames by the disk's own rate", 100 * told["rate"] / told["disk"], "%"),
        Figure("memory above the interpreter", told["peak"], "MiB", higher=False),
    ]


def _found(told: dict[str, float], files: int) -> list[Figure]:
    return [
        Figure(f"catalogue of {files:,} files", told["rate"], "1/s of a core"),
        Figure("of which none has changed", told["again"], "1/s of a core"),
        Figure("query", told["query_ms"], "ms", higher=False),
        Figure("query, SQLite", told["sqlite_ms"], "ms", higher=False),
    ]


def tell_by_second(folder: Path, entries: int) -> dict[str, float]:
    """Entries a second that threads are acknowledged, on the disk within a second; the last are waited for."""
    return _tell(folder, entries, "second")


def tell_by_entry(folder: Path, entries: int) -> dict[str, float]:
    """Entries a second that threads are acknowledged, each on the disk by then."""
    return _tell(folder, entries, "entry")


def _tell(folder: Path, entries: int, sync: Any) -> dict[str, float]:
    logging.getLogger("absurd.session").setLevel(logging.CRITICAL)
    sessions = SessionManager(folder, sync=sync)
    session = sessions.start_session("experiment")

    def tell() -> None:
        for number in range(entries // THREADS):
            session.log("INFO", "an entry of some length", number=number, exposure_us=312000)

    threads = [threading.Thread(target=tell) for _ in range(THREADS)]
    began = time.perf_counter()
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    sessions.leave()  # returns when all is on the disk
    return {"rate": entries // THREADS * THREADS / (time.perf_counter() - began)}


def add_frames(folder: Path, frames: int) -> dict[str, float]:
    """Frames of 1920 x 1080 in 16 bits, turn by turn with as many bytes written and synced by hand: MB/s of both.

    Memory is the most above that at the beginning, sealing included; each frame is an array of its own.
    """
    logging.getLogger("absurd.session").setLevel(logging.CRITICAL)
    own = folder.with_name("own")
    own.mkdir()
    sessions = SessionManager(folder)
    source = np.random.default_rng(1).integers(0, 4096, SHAPE, np.uint16)
    before, peak = _resident(), [0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    session = sessions.start_session("observation", target="M31")
    spent = {"ours": 0.0, "disk": 0.0}
    for number in range(frames):
        frame = source + np.uint16(number)
        began = time.perf_counter()
        session.add_frame("main", frame, exposure_us=312000)
        spent["ours"] += time.perf_counter() - began
        began = time.perf_counter()
        _write_by_hand(own / str(number), frame)
        spent["disk"] += time.perf_counter() - began
        (own / str(number)).unlink()
        sync(own)  # or the next frame would have to wait until the disk has freed this one's place
    sessions.end_session()
    sessions.close()
    ended.set()
    watcher.join()
    size = frames * source.nbytes / 1e6
    return {"rate": size / spent["ours"], "disk": size / spent["disk"], "peak": (peak[0] - before) / (1 << 20)}


def _write_by_hand(path: Path, frame: np.ndarray[Any, Any]) -> None:
    """What no program that keeps a frame can do without: the bytes, and that they are on the disk."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    data = memoryview(frame.data).cast("B")
    while data:
        data = data[os.write(file, data) :]
    os.fsync(file)
    os.close(file)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def find(folder: Path, files: int) -> dict[str, float]:
    """Files a second of a core whose heads are read, and milliseconds of a query, with all that opens the catalogue."""
    logging.getLogger("absurd.session").setLevel(logging.CRITICAL)
    _make(folder, files)
    began = time.process_time()
    made = catalog.rebuild(folder)
    first = time.process_time() - began
    began = time.process_time()
    catalog.rebuild(folder)
    again = time.process_time() - began
    catalog.write_sqlite(made, folder / catalog.SQLITE)
    query(folder, QUERY)  # imports

    def asked(sqlite: bool) -> float:
        times = []
        for _ in range(9):
            start = time.perf_counter()
            query(folder, QUERY, sqlite=sqlite)
            times.append(time.perf_counter() - start)
        return 1000 * median(times)

    return {"rate": files / first, "again": files / again, "query_ms": asked(False), "sqlite_ms": asked(True)}


def _make(folder: Path, files: int) -> None:
    """Files of sessions with 200 entries each, all of another session."""
    with SessionManager(folder, sync="second") as sessions:
        sessions.start_session("observation", target="M31")
        for number in range(200):
            sessions.log("ERROR" if number == 7 else "INFO", f"entry {number}", exposure_us=312000)
        path = sessions.end_session()
    whole = path.read_text()
    short = path.stem.rpartition("_")[2]
    for number in range(files - 1):
        text = whole.replace(short, f"{number:08x}")
        text = re.sub(r'"target": "M31"', f'"target": "{"MNI"[number % 3]}{number % 110}"', text, count=1)
        day = path.parent.with_name(f"{1 + number % 28:02}")
        day.mkdir(exist_ok=True)
        (day / f"{path.stem.replace(short, f'{number:08x}')}.asdf").write_text(text)
