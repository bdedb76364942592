"""What sessions a data folder has, from the heads of their files alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from absurd.tasks.session.asdf_form import INDEX_MAGIC, LAST
from absurd.tasks.session.errors import SessionDamagedError, SessionForeignError, SessionNotFoundError
from absurd.tasks.session.outline import outline
from absurd.tasks.session.place import place_of, unsealed
from absurd.tasks.session.reading import Head, items

MAGIC = b"#ASDF"
CHUNK = 8 << 10
"""Bytes that are read at once: what is asked for stands in the first few."""
DAY = "[0-9][0-9][0-9][0-9]/[0-9][0-9]/[0-9][0-9]"


@dataclass(slots=True)
class Summary:
    """A session in short."""

    session_id: str
    path: str
    """Its file, or where that will be."""
    state: str
    """``open`` (active, or left by a manager that is gone), ``ended`` (to be sealed), ``sealed`` or ``damaged``."""
    meta: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    """Why it is damaged."""


def summary(path: Path) -> Summary:
    """A session's file in short; reads no more of it than that takes.

    Raises SessionForeignError for a whole ASDF file that is no session's, SessionDamagedError for what is none, or is
    cut off before its end, OSError.
    """
    import yaml

    made = Summary(path.stem, str(path), "sealed")
    arrays_embedded = False
    with path.open("rb") as file:
        if not file.read(len(MAGIC)).startswith(MAGIC):
            raise _damaged(path, "it is no ASDF file")
        file.seek(0)
        head = Head(file, CHUNK)
        try:
            for where, value in items(head):
                match where:
                    case ("meta", str() as name):
                        made.meta[name] = value
                    case ("meta",) if isinstance(value, dict):  # as asdf may write it
                        made.meta = value
                    case ("provenance", "frames"):
                        arrays_embedded = value == "embedded"
                    case ("observability", "metrics") if isinstance(value, dict):
                        made.metrics = value
                    case ("observability", "metrics", str() as name):
                        made.metrics[name] = value
                    case _ if made.meta and made.metrics:
                        break
        except (yaml.YAMLError, RuntimeError) as error:  # a stream that ends within an event
            raise _damaged(path, str(error)) from error
        if "session_id" not in made.meta or not made.metrics:
            if head.end is None and LAST.encode() not in _tail(file, len(LAST)):
                raise _damaged(path, "its tree does not end")
            raise SessionForeignError(f"{path} is no session's: it lacks meta or metrics", path=str(path))
        if "schema_version" in made.meta:
            _check_end(path, file, made, arrays_embedded)
    return made


def _check_end(path: Path, file: BinaryIO, made: Summary, embedded: bool) -> None:
    """Whether a file ends as it was written: its tree, and the index of its blocks, end alike."""
    arrays = made.metrics.get("frames_captured", 0) if embedded else 0
    tail = _tail(file, 64 + 24 * arrays)
    if not tail.endswith(LAST.encode()) or (arrays and INDEX_MAGIC not in tail):
        raise _damaged(path, "it is cut off")


def _tail(file: BinaryIO, size: int) -> bytes:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - size))
    return file.read()


def _damaged(path: Path, reason: str) -> SessionDamagedError:
    return SessionDamagedError(f"{path} is damaged: {reason}", path=str(path), reason=reason)


def summaries(data_dir: Path) -> Iterator[Summary]:
    """All sessions of a folder, newest first, those that are not sealed yet before all others.

    A file that cannot be read is among them, as damaged.
    """
    for place in reversed(unsealed(data_dir)):
        yield _open(data_dir, place.id)
    for path in sorted(data_dir.glob(f"{DAY}/*.asdf"), key=_order, reverse=True):
        try:
            yield summary(path)
        except (SessionDamagedError, OSError) as error:
            yield Summary(path.stem, str(path), "damaged", reason=str(error))


def find(data_dir: Path, name: str) -> Path:
    """The file of a session, by its name or path.  Raises SessionNotFoundError."""
    path = Path(name)
    if path.suffix != ".asdf":
        path = place_of(data_dir, name).path
    if not path.exists():
        raise SessionNotFoundError(f"there is no file {path}", path=str(path))
    return path


def _open(data_dir: Path, session_id: str) -> Summary:
    place = place_of(data_dir, session_id)
    try:
        made = outline(place.journal)
    except (SessionDamagedError, OSError) as error:
        return Summary(session_id, str(place.path), "damaged", reason=str(error))
    return Summary(session_id, str(place.path), "ended" if made.ended else "open", made.meta(), made.metrics())


def _order(path: Path) -> tuple[str, ...]:
    return tuple(path.stem.rsplit("_", 3)[-3:])
