"""A file of a data folder as a row of the catalogue, from its head alone."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from absurd.tasks.session.errors import SessionDamagedError, SessionForeignError
from absurd.tasks.session.listing import summary
from absurd.tasks.session.place import CALIBRATION, CATALOG, is_frames_folder

TEXTS = ("session_id", "session_type", "target", "purpose", "schema_version")
COUNTS = {
    "frames_captured": "frames_captured",
    "error_count": "errors",
    "warning_count": "warnings",
    "log_entries": "log_entries",
    "events": "events",
    "telemetry_samples": "telemetry_samples",
    "calibration_results": "calibration_results",
}
"""Columns, and what a file calls them among its metrics."""
_OWN = {*TEXTS, "start_time", "end_time", "recovered"}


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalogue tells of one file."""

    path: str
    """Within the data folder, with ``/``."""
    bytes: int
    changed_ns: int
    """When it was last written, nanoseconds since 1970."""
    state: str
    """``sealed``, ``damaged``, ``foreign`` (a whole ASDF file, no session's) or ``duplicate`` (of a session's name)."""
    reason: str | None = None
    """Why it is not sealed."""
    columns: dict[str, Any] = field(default_factory=dict)
    """Of a sealed one: session_id, session_type, start_time, …"""

    @property
    def is_unread(self) -> bool:
        """Whether it is a file or folder that could not even be looked at."""
        return self.state == "damaged" and self.changed_ns == 0

    def row(self, folder: Path) -> dict[str, Any]:
        """As ``ctx.product("session", …)`` takes it."""
        told = {"folder": str(folder), "path": self.path, "state": self.state, "reason": self.reason}
        columns = {name: _iso(value) for name, value in self.columns.items()}
        if "meta" in columns:
            columns["meta"] = json.loads(columns["meta"])
        return told | {"bytes": self.bytes, "changed_ns": self.changed_ns} | columns


def _iso(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def files(data_dir: Path) -> Iterator[tuple[str, os.stat_result | OSError]]:
    """Each ASDF file of a data folder by its path within it, but frames, masters and what is not sealed.

    A folder that cannot be listed comes with the error.
    """
    yield from _files(data_dir, "")


def _files(folder: Path, within: str) -> Iterator[tuple[str, os.stat_result | OSError]]:
    try:
        found = sorted(os.scandir(folder), key=lambda each: each.name)
    except OSError as error:
        yield within.rstrip("/") or ".", error
        return
    for each in found:
        path = within + each.name
        if each.is_dir(follow_symlinks=False):
            if not (each.name.startswith(".") or path in {CALIBRATION, CATALOG} or is_frames_folder(each.name)):
                yield from _files(Path(each.path), path + "/")
        elif each.name.endswith(".asdf") and not each.name.startswith("."):
            try:
                yield path, each.stat()
            except OSError as error:
                yield path, error


def read_entry(data_dir: Path, path: str, told: os.stat_result) -> Entry:
    """The row of one file; whatever is wrong with it is told in that, and raises nothing."""
    fixed = (path, told.st_size, told.st_mtime_ns)
    try:
        found = summary(data_dir / path)
        return Entry(*fixed, "sealed", None, _columns(found.meta, found.metrics))
    except SessionForeignError as error:
        return Entry(*fixed, "foreign", _clean(error.message))
    except SessionDamagedError as error:
        return Entry(*fixed, "damaged", _clean(error.message))
    except OSError as error:
        return Entry(*fixed, "damaged", _clean(f"it cannot be read: {error}"))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:  # a tree that no session has
        return Entry(*fixed, "damaged", _clean(f"its meta or metrics are no session's: {type(error).__name__} {error}"))


def entry_of(data_dir: Path, path: Path) -> Entry:
    """The row of a file that is there.  Raises OSError."""
    return read_entry(data_dir, path.relative_to(data_dir).as_posix(), path.stat())


def _columns(meta: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError, TypeError, KeyError for what is no session's."""
    rest = {name: value for name, value in meta.items() if name not in _OWN}
    start = _moment(meta["start_time"])
    if start is None:
        raise ValueError("start_time is missing")
    return {
        **{name: _text(meta.get(name)) for name in TEXTS},
        "start_time": start,
        "end_time": _moment(meta.get("end_time")),
        "recovered": bool(meta.get("recovered")),
        "duration_seconds": float(metrics.get("duration_seconds") or 0.0),
        **{column: int(metrics.get(name) or 0) for column, name in COUNTS.items()},
        "meta": json.dumps(_storable(rest), sort_keys=True),
    }


def _storable(value: Any) -> Any:
    """What both PostgreSQL and JSON hold."""
    if isinstance(value, dict):
        return {_clean(str(key)): _storable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_storable(each) for each in value]
    if isinstance(value, str):
        return _clean(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _moment(text: Any) -> datetime | None:
    if text is None:
        return None
    made = datetime.fromisoformat(str(text))
    return (made if made.tzinfo else made.replace(tzinfo=UTC)).astimezone(UTC)


def _text(value: Any) -> str | None:
    return None if value is None else _clean(str(value))


def _clean(text: str) -> str:
    """Text that PostgreSQL takes."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def changes(data_dir: Path, found: Iterable[Entry], stored: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the database has to be told of the files that there are, where `stored` is what it knows.

    A file that is as it knows it is left out; one that is not there any more comes as ``gone``, but if it was retired,
    or lies in a folder that cannot be read now.
    """
    known = {each["path"]: (each["state"], each["bytes"], each["changed_ns"]) for each in stored}
    made, there, unread = [], set(), []
    for each in found:
        there.add(each.path)
        if each.is_unread:
            unread.append("" if each.path == "." else f"{each.path}/")
        if known.get(each.path) != (each.state, each.bytes, each.changed_ns):
            made.append(each.row(data_dir))
    missing = (path for path in known if path not in there and not path.startswith(tuple(unread)))
    gone = (path for path in missing if known[path][0] != "retired")
    return made + [{"folder": str(data_dir), "path": path, "state": "gone"} for path in gone]
