"""Checksums of files that nobody has read through yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from absurd.tasks.session.entries import Entry
from absurd.tasks.session.errors import SessionDamagedError
from absurd.tasks.session.verification import verify


def add_checksums(
    data_dir: Path,
    sessions: Iterable[Entry],
    stored: Iterable[dict[str, Any]],
    rows: list[dict[str, Any]],
    progress: Callable[..., Any],
) -> list[str]:
    """Add the SHA-256 to the rows of files of which the database has none, or had one of another state of the file.

    Each is read through, and compared with what it tells of itself.  Gives the files that are not whole: they get none.
    """
    known = {each["path"]: (each["bytes"], each["changed_ns"]) for each in stored if each["sha256"] is not None}
    told = {each["path"]: each for each in rows}
    unread = [each for each in sessions if known.get(each.path) != (each.bytes, each.changed_ns)]
    not_whole = []
    for number, each in enumerate(unread):
        progress(number, len(unread), each.path)
        try:
            found = verify(data_dir / each.path)
        except (SessionDamagedError, OSError) as error:
            not_whole.append(f"{each.path}: {error}")
            continue
        if each.path not in told:
            told[each.path] = each.row(data_dir)
            rows.append(told[each.path])
        told[each.path]["sha256"] = found.sha256
    return not_whole
