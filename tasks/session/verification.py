"""Whether a session's file is whole: all it counts is there, and all its arrays are the bytes that arrived."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from absurd.tasks.artifact import checksum
from absurd.tasks.session.errors import SessionDamagedError
from absurd.tasks.session.outline import ERRORS, WARNINGS
from absurd.tasks.session.reading import Array, Block, Head, blocks, items

_NONE = b"\0\0\0\0"


@dataclass(slots=True)
class Verified:
    """What was found in a session's file."""

    path: str
    bytes: int
    sha256: str
    meta: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def session_id(self) -> str:
        """The session's name."""
        return str(self.meta.get("session_id"))


@dataclass(slots=True)
class _Counted:
    """What a tree holds, counted."""

    counts: dict[str, int] = field(default_factory=dict)
    arrays: list[tuple[int | str, str | None]] = field(default_factory=list)
    """Source and MD5 of each array in the tree; of calibration arrays only the source is known."""


def verify(path: str | os.PathLike[str], *, beside: Path | None = None) -> Verified:
    """Read a file through, and the external frames that it names.

    These lie in folders of `beside`, the folder of the file unless it is still to be moved.
    Raises SessionDamagedError, which tells what is wrong, FileNotFoundError, OSError.
    """
    import yaml

    file_path = Path(path)
    made = Verified(str(file_path), file_path.stat().st_size, checksum(file_path))
    counted = _Counted()
    with file_path.open("rb") as file:
        head = Head(file)
        try:
            _count(items(head), made, counted)
        except yaml.YAMLError as error:
            raise _damaged(file_path, f"its tree is no YAML: {error}") from error
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise _damaged(file_path, f"its tree is no session's: {type(error).__name__} {error}") from error
        if head.end is None:
            raise _damaged(file_path, "its tree does not end")
        if "session_id" not in made.meta:
            raise _damaged(file_path, "it is no session's")
        _compare(file_path, made, counted)
        _check_arrays(file_path, beside or file_path.parent, counted, list(_whole(file_path, file, head.end)))
    return made


def _count(tree: Iterator[tuple[tuple[str | int, ...], Any]], made: Verified, counted: _Counted) -> None:
    """Go through a tree once."""
    frames: list[Any] = []
    for path, value in tree:
        match path:
            case ("meta", str() as name):
                made.meta[name] = value
            case ("observability", "metrics"):
                made.metrics = value if isinstance(value, dict) else {}
            case ("observability", "logs", int()):
                _add(counted, "log_entries")
                level = value.get("level")
                _add(counted, "errors", level in ERRORS)
                _add(counted, "warnings", level in WARNINGS)
            case ("observability", "events", int()):
                _add(counted, "events")
            case ("telemetry", _, int()):
                _add(counted, "telemetry_samples")
            case ("calibration", _, int()):
                _add(counted, "calibration_results")
                if isinstance(value, Array):
                    counted.arrays.append((value["source"], None))
            case ("cameras", _, "frames", int()):
                _add(counted, "frames_captured")
                frames.append(value)
            case ("cameras", _, "frame_info", int() as at):
                if isinstance(frames[at], Array):
                    counted.arrays.append((frames[at]["source"], value["md5"]))
                if at == len(frames) - 1:
                    frames.clear()
            case _:
                pass


def _add(counted: _Counted, name: str, count: int = 1) -> None:
    counted.counts[name] = counted.counts.get(name, 0) + count


def _compare(path: Path, made: Verified, counted: _Counted) -> None:
    for name, told in made.metrics.items():
        found = counted.counts.get(name, 0)
        if name != "duration_seconds" and found != told:
            raise _damaged(path, f"{name} is {told}, and it holds {found}")


def _whole(path: Path, file: BinaryIO, start: int) -> Iterator[Block]:
    try:
        for each in blocks(file, start):
            if not each.is_whole:
                raise _damaged(path, "the bytes of a block are not those of its checksum")
            yield each
    except EOFError as error:
        raise _damaged(path, str(error)) from error


def _check_arrays(path: Path, beside: Path, counted: _Counted, found: list[Block]) -> None:
    for source, md5 in counted.arrays:
        if isinstance(source, str):
            block = _external(beside / source)
        elif 0 <= source < len(found):
            block = found[source]
        else:
            raise _damaged(path, f"it has no block {source}")
        if md5 is not None and block.label == _NONE and block.md5 != md5:
            raise _damaged(path, f"the array {source} is not the frame that arrived")


def _external(path: Path) -> Block:
    """The block of a frame's file."""
    try:
        with path.open("rb") as file:
            head = Head(file)
            while head.read():
                pass
            found = None if head.end is None else next(_whole(path, file, head.end), None)
    except FileNotFoundError as error:
        raise _damaged(path, "it is not there") from error
    if found is None:
        raise _damaged(path, "it holds no array")
    return found


def _damaged(path: Path, reason: str) -> SessionDamagedError:
    return SessionDamagedError(f"{path} is damaged: {reason}", path=str(path), reason=reason)
