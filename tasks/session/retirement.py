"""Files of sessions that have been kept long enough: which ones may go, and letting go of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from absurd.tasks.artifact import naming, sync
from absurd.tasks.session.entries import Entry
from absurd.tasks.session.errors import SessionDamagedError
from absurd.tasks.session.holds import hold_of
from absurd.tasks.session.place import CATALOG, FRAMES_SUFFIX
from absurd.tasks.session.verification import verify

RECORD = f"{CATALOG}/retired.jsonl"
"""What was retired: a line for each file, written before that goes."""


@dataclass(frozen=True, slots=True)
class Due:
    """A file that a rule would let go."""

    path: str
    """Within the data folder."""
    session_id: str
    session_type: str
    age_days: float
    bytes: int
    """With its frames."""
    kept: str | None = None
    """Why it stays all the same; None: it may go."""
    sha256: str | None = None


def find_due(
    data_dir: Path,
    entries: Iterable[Entry],
    keep_days: Mapping[str, float],
    stored: Iterable[dict[str, Any]],
    now: datetime,
) -> Iterator[Due]:
    """The files whose sessions ended longer ago than their type is kept, oldest first, each read through.

    `stored` is what the database knows of the folder's files.  One stays that is held, or damaged, or whose row or
    checksum there is missing or tells of another file.  Types without a rule are kept for ever.
    """
    rows = {each["path"]: each for each in stored}
    old = [each for each in entries if _age(each, now) > keep_days.get(each.columns["session_type"], float("inf"))]
    for each in sorted(old, key=lambda entry: _age(entry, now), reverse=True):
        kept, sha256 = _why_kept(data_dir, each, rows.get(each.path))
        yield Due(
            each.path, each.columns["session_id"], each.columns["session_type"], round(_age(each, now), 3),
            each.bytes + _frames_bytes(data_dir / each.path), kept, sha256,
        )  # fmt: skip


def _age(entry: Entry, now: datetime) -> float:
    """Days since the session ended; a clock that was set back meanwhile makes none older."""
    ended: datetime = max(entry.columns["end_time"] or entry.columns["start_time"], entry.columns["start_time"])
    return (now - ended).total_seconds() / 86400


def _why_kept(data_dir: Path, entry: Entry, row: dict[str, Any] | None) -> tuple[str | None, str | None]:
    """A reason to keep a file, or its checksum."""
    path = data_dir / entry.path
    held = hold_of(path)
    if held is not None:
        return f"it is held: {held.get('reason')}", None
    if row is None:
        return "the database has no row of it: session.catalog makes one", None
    own = {
        "state": "sealed",
        "session_id": entry.columns["session_id"],
        "bytes": entry.bytes,
        "changed_ns": entry.changed_ns,
    }
    for name, value in own.items():
        if row[name] != value:
            return f"its row disagrees: {name} is {row[name]} there, and {value} here", None
    if row["sha256"] is None:
        return "the database has no checksum of it: session.catalog with checksums reads it through", None
    try:
        found = verify(path)
    except (SessionDamagedError, OSError) as error:
        return f"it is not whole: {error}", None
    if found.sha256 != row["sha256"]:
        return "its checksum is not that of its row", None
    return None, found.sha256


def retire(data_dir: Path, due: Due, at: str) -> str | None:
    """Let go of a file and its frames; the reason if it stays after all, for it was held or changed meanwhile.

    The record is on the disk before the file goes.  Raises OSError.
    """
    path = data_dir / due.path
    with naming(path.parent):
        held = hold_of(path)
        if held is not None:
            return f"it is held: {held.get('reason')}"
        told = {"path": due.path, "session_id": due.session_id, "session_type": due.session_type, "at": at}
        _append(data_dir / RECORD, told | {"sha256": due.sha256, "bytes": due.bytes, "age_days": due.age_days})
        path.unlink()  # first: what has no file is nobody's, and is cleared away by the next run
        sync(path.parent)
        _remove_frames(path)
    return None


def retired(data_dir: Path) -> list[dict[str, Any]]:
    """What the record tells of files that are gone; frames that one has left, when that was broken off, go too."""
    try:
        lines = (data_dir / RECORD).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError):  # the last one, torn: its file did not go
            told = json.loads(line)
            if not (data_dir / told["path"]).exists():
                _remove_frames(data_dir / told["path"])
                found.append(told)
    return found


def _append(path: Path, told: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, b"\n" * torn + json.dumps(told).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync(path.parent)


def _frames(path: Path) -> Path:
    return path.with_name(path.stem + FRAMES_SUFFIX)


def _frames_bytes(path: Path) -> int:
    with suppress(OSError):
        return sum(each.stat().st_size for each in os.scandir(_frames(path)))
    return 0


def _remove_frames(path: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(_frames(path))
