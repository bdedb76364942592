"""All that one session is told, from any thread: into its journal, and frames into their files."""

from __future__ import annotations

import itertools
import logging
import os
import platform
import shutil
import socket
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

from absurd.tasks.artifact import sync as sync_folder
from absurd.tasks.session import journal
from absurd.tasks.session.errors import SessionStateError, SessionValueError
from absurd.tasks.session.frames import check, facts_of, store
from absurd.tasks.session.live import Live
from absurd.tasks.session.outline import Outline
from absurd.tasks.session.place import Place, new_id, place_of, slug
from absurd.tasks.session.values import encode, key_of, moment, plain
from absurd.tasks.session.writer import JournalWriter, Listener, Sync, refused

CALIBRATIONS = {
    "plate_solve": "plate_solve_results",
    "dark": "dark_frames",
    "darks": "dark_frames",
    "flat": "flat_frames",
    "flats": "flat_frames",
    "bias": "bias_frames",
}
"""Short names of calibrations, and the lists of the file that they mean."""
RESERVED = frozenset(["schema_version", "session_type", "session_id", "start_time", "end_time", "recovered"])
"""Fields of a session that nobody gives: they are found out."""

_LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL", "ERR": "ERROR"}
_NUMBERS = {name: getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
_console = logging.getLogger("absurd.session")


class Book:
    """The journal and the frames of one session that has not ended.

    Every call gives a future that ends once what was told is safe, as the session's `sync` says.
    """

    def __init__(
        self, place: Place, start: Mapping[str, Any], writer: JournalWriter, *, is_empty: bool, frames: int
    ) -> None:
        self.place = place
        self.start = start
        self._writer = writer
        self._frames = itertools.count(frames + 1)
        self.is_empty = is_empty
        self.begun = time.monotonic()
        """When it was begun, or went on, on the clock that nobody sets."""

    @classmethod
    def create(
        cls,
        data_dir: Path,
        session_type: str,
        fields: Mapping[str, Any],
        form: Mapping[str, Any],
        sync: Sync,
        live: Live | None = None,
    ) -> Self:
        """Begin a session; `form` tells how its file will keep arrays, `live` tells on what it is told.

        Raises SessionValueError, SessionStorageError.
        """
        target = fields.get("target")
        place = place_of(data_dir, new_id(session_type, None if target is None else str(target), time.time_ns()))
        start = {
            "session_type": session_type,
            "session_id": place.id,
            "fields": checked_fields(fields),
            "provenance": {"host": socket.gethostname(), "pid": os.getpid(), "software": software()},
            **form,
        }
        body = encode(start, "session")
        try:
            place.frames.mkdir(parents=True)
            writer = JournalWriter.create(place.journal, sync, _listener(place, live))
            sync_folder(place.work)
            sync_folder(place.work.parent)
        except OSError as error:
            shutil.rmtree(place.work, ignore_errors=True)
            raise refused(Path(error.filename or place.work), error) from error
        made = cls(place, start, writer, is_empty=True, frames=0)
        try:
            writer.append(journal.START, body)
            writer.flush()
        except OSError:
            made.discard()
            raise
        return made

    @classmethod
    def go_on(cls, place: Place, outline: Outline, sync: Sync, live: Live | None = None) -> Self:
        """Go on with a session that was left.  Raises SessionStorageError."""
        away = max(0, time.time_ns() - outline.last.time_ns)
        last = outline.last
        try:
            writer = JournalWriter(
                place.journal,
                sync,
                size=last.end,
                number=last.number,
                elapsed_ns=last.elapsed_ns + away,
                listener=_listener(place, live),
            )
        except OSError as error:
            raise refused(place.journal, error) from error
        numbers = (each.rpartition("_")[2].partition(".")[0] for each in os.listdir(place.frames))
        made = cls(
            place,
            outline.start,
            writer,
            is_empty=outline.is_empty,
            frames=max((int(each) for each in numbers if each.isdecimal()), default=0),
        )
        made.begun -= (last.elapsed_ns + away) / 1e9
        return made

    @property
    def id(self) -> str:
        """The session's name."""
        return self.place.id

    @property
    def session_type(self) -> str:
        """One of the five types."""
        return str(self.start["session_type"])

    # What is told -------------------------------------------------------------------------------

    def log(self, level: str | int, message: str, source: str | None, context: Mapping[str, Any]) -> Future[None]:
        """A line of the log; it goes to the logger ``absurd.session`` too."""
        name = level_of(level)
        entry = {"level": name, "source": source or "", "message": message, "context": context}
        done = self._tell(journal.LOG, entry, "log")
        number = _NUMBERS.get(name, logging.INFO)
        if _console.isEnabledFor(number):
            words = "".join(f" {key}={value}" for key, value in context.items())
            extra = {"session_id": self.id, "session_source": source, "session_context": dict(context)}
            _console.log(number, "%s%s", message, words, extra=extra)
        return done

    def event(self, event: str, details: Mapping[str, Any]) -> Future[None]:
        """Something that happened."""
        return self._tell(journal.EVENT, {"event": event, "details": details}, "event")

    def telemetry(self, name: str, values: Mapping[str, Any], time: datetime | str | None) -> Future[None]:
        """A sample of what is measured all the time."""
        told: dict[str, Any] = {"name": key_of(name, "telemetry"), "values": values}
        return self._tell(journal.TELEMETRY, told if time is None else told | {"time": time}, f"telemetry {name}")

    def calibration(self, name: str, value: Any) -> Future[None]:
        """A result of a calibration, or an array, or several."""
        name = key_of(CALIBRATIONS.get(name, name), "calibration")
        if _is_array(value):
            return self._keep(f"{slug(name) or 'calibration'}", value, {"calibration": name, "fields": {}})
        if isinstance(value, list | tuple) and value and all(map(_is_array, value)):
            return [self.calibration(name, each) for each in value][-1]
        return self._tell(journal.CALIBRATION, {"name": name, "value": value}, f"calibration {name}")

    def camera(self, camera: str, info: Mapping[str, Any], settings: Mapping[str, Any]) -> Future[None]:
        """What is known of a camera; later values of a name replace earlier ones."""
        told = {"camera": key_of(camera, "camera"), "info": info, "settings": settings}
        return self._tell(journal.CAMERA, told, f"camera {camera}")

    def frame(self, camera: str, frame: Any, told: Mapping[str, Any], fields: Mapping[str, Any]) -> Future[None]:
        """A frame; it is on the disk when this returns, and told in the journal when the future ends."""
        camera = key_of(camera, "camera")
        given = {name: value for name, value in told.items() if value is not None}
        return self._keep(slug(camera) or "camera", frame, {"camera": camera, "fields": fields, **given})

    def _keep(self, prefix: str, array: Any, told: dict[str, Any]) -> Future[None]:
        made = check(array, f"frame of {prefix}")
        told = plain({"time": moment(time.time_ns())} | told, "frame")
        name = f"{prefix}_{next(self._frames):06d}"
        try:
            stored = store(self.place.frames, name, made, facts_of(self.id, told))
        except FileNotFoundError:
            raise SessionStateError(f"the session {self.id} has ended") from None
        except OSError as error:
            raise refused(self.place.frames / f"{name}.asdf", error) from error
        try:
            return self._tell(journal.FRAME, told | {"stored": asdict(stored)}, "frame")
        except SessionStateError:
            (self.place.frames / stored.file).unlink(missing_ok=True)
            raise

    def _tell(self, kind: str, value: dict[str, Any], name: str) -> Future[None]:
        done = self._writer.append(kind, encode(value, name))
        self.is_empty = False
        return done

    # Its end ------------------------------------------------------------------------------------

    def finish(self) -> None:
        """End the session: nothing can be told to it any more.

        Raises SessionStateError if it has ended, SessionStorageError if the disk refuses: then it goes on.
        """
        self._writer.finish(journal.END, encode({"end_time": moment(time.time_ns())}, "end"))

    def leave(self) -> None:
        """Let another manager go on with the session.  Raises as `finish`."""
        self._writer.finish(journal.LEFT, b"{}")

    def abandon(self) -> None:
        """Let go of the journal as it is; the next manager recovers the session."""
        self._writer.abandon()

    def discard(self) -> None:
        """Remove the session, of which nothing was told."""
        self.abandon()
        shutil.rmtree(self.place.work, ignore_errors=True)


def _listener(place: Place, live: Live | None) -> Listener | None:
    return None if live is None else partial(live.offer, place.id)


def checked_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a session was begun with, as its file will tell it.  Raises SessionValueError."""
    if taken := RESERVED & fields.keys():
        raise SessionValueError(f"{', '.join(sorted(taken))} cannot be given: what it is follows from the session")
    made: dict[str, Any] = plain(fields, "session")
    return made


def level_of(level: str | int) -> str:
    """A level by its name in capitals: ``warn`` is ``WARNING``, 30 too.  Raises SessionValueError for an empty one."""
    if level in _NUMBERS:
        return str(level)
    text = logging.getLevelName(level) if isinstance(level, int) else str(level).strip().upper()
    if not text or len(text) > 32:
        raise SessionValueError(f"{level!r} is no level of a log")
    return _LEVELS.get(text, text)


@cache
def software() -> dict[str, str]:
    """Versions of what took part, by name."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("absurd", "numpy", "astropy", "asdf"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array_interface__") and getattr(value, "ndim", 0) > 0
