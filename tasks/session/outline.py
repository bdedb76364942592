"""What a journal holds, and where in it: enough to write a session's file without its entries in memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absurd.tasks.session import journal
from absurd.tasks.session.errors import SessionDamagedError
from absurd.tasks.session.frames import Stored
from absurd.tasks.session.journal import Record
from absurd.tasks.session.values import moment

ERRORS = frozenset(["ERROR", "CRITICAL", "FATAL"])
WARNINGS = frozenset(["WARNING"])


def _offsets() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Camera:
    """What was told of a camera: all in all, and where its frames stand in the journal."""

    info: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    frames: array[int] = field(default_factory=_offsets)


@dataclass(slots=True)
class Outline:
    """A journal in outline: 8 bytes for each entry."""

    start: dict[str, Any]
    """The value of its first record."""
    first: Record
    last: Record
    """The last record that is whole; it tells how the journal ends."""
    errors: int = 0
    warnings: int = 0
    spoilt: int = 0
    """Bytes between records that are none any more."""
    logs: array[int] = field(default_factory=_offsets)
    events: array[int] = field(default_factory=_offsets)
    telemetry: dict[str, array[int]] = field(default_factory=dict)
    calibration: dict[str, array[int]] = field(default_factory=dict)
    cameras: dict[str, Camera] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the session has ended: nothing comes behind that record."""
        return self.last.kind == journal.END

    @property
    def is_empty(self) -> bool:
        """Whether nothing was told to the session."""
        return not (self.logs or self.events or self.telemetry or self.calibration or self.cameras)

    @property
    def frames(self) -> int:
        """How many frames of cameras there are."""
        return sum(len(each.frames) for each in self.cameras.values())

    def meta(self) -> dict[str, Any]:
        """What a file tells of its session first."""
        end = self.last.value if self.ended else {}
        fixed = {name: self.start[name] for name in ("session_type", "session_id")}
        times = {"start_time": moment(self.first.time_ns), "end_time": end.get("end_time", moment(self.last.time_ns))}
        return {**fixed, **times, **self.start["fields"], "recovered": bool(end.get("recovered"))}

    def metrics(self) -> dict[str, Any]:
        """What is counted, from the entries alone; ``duration_seconds`` by a clock that nobody sets."""
        return {
            "frames_captured": self.frames,
            "errors": self.errors,
            "warnings": self.warnings,
            "duration_seconds": (self.last.elapsed_ns - self.first.elapsed_ns) / 1e9,
            "log_entries": len(self.logs),
            "events": len(self.events),
            "telemetry_samples": sum(map(len, self.telemetry.values())),
            "calibration_results": sum(map(len, self.calibration.values())),
        }


def outline(path: Path) -> Outline:
    """Read a journal through.  Raises SessionDamagedError if it has no beginning, OSError."""
    records = journal.read(path)
    first = next(records, None)
    if first is None or first.kind != journal.START:
        raise SessionDamagedError(f"{path} tells of no session", path=str(path))
    made = Outline(first.value, first, first)
    for each in records:
        made.spoilt += each.offset - made.last.end
        made.last = each
        _note(made, each)
    return made


def _note(made: Outline, each: Record) -> None:
    if each.kind == journal.LOG:
        made.logs.append(each.offset)
        level = each.value["level"]
        made.errors += level in ERRORS
        made.warnings += level in WARNINGS
    elif each.kind == journal.EVENT:
        made.events.append(each.offset)
    elif each.kind == journal.TELEMETRY:
        made.telemetry.setdefault(each.value["name"], _offsets()).append(each.offset)
    elif each.kind == journal.CALIBRATION:
        made.calibration.setdefault(each.value["name"], _offsets()).append(each.offset)
    elif each.kind == journal.CAMERA:
        _note_camera(made, each.value)
    elif each.kind == journal.FRAME:
        told = each.value
        if "camera" in told:
            _note_camera(made, told)
            made.cameras[told["camera"]].frames.append(each.offset)
        else:
            made.calibration.setdefault(told["calibration"], _offsets()).append(each.offset)


def _note_camera(made: Outline, told: dict[str, Any]) -> None:
    camera = made.cameras.setdefault(told["camera"], Camera())
    camera.info |= told.get("info", {})
    camera.settings |= told.get("settings", {})


def arrays(made: Outline, path: Path) -> Iterator[tuple[dict[str, Any], Stored]]:
    """The arrays of a journal in the order of a session's file: what is told of each, and where it is stored."""
    with path.open("rb") as file:
        for camera in made.cameras.values():
            for offset in camera.frames:
                told = journal.read_at(file, offset).value
                yield told, Stored(**told["stored"])
        for listed in made.calibration.values():
            for offset in listed:
                found = journal.read_at(file, offset)
                if found.kind == journal.FRAME:
                    told = found.value
                    yield told, Stored(**told["stored"])
