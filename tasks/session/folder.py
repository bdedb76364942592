"""A data folder in the hands of one manager, and what the last one left in it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import socket
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path

from absurd.tasks.artifact import sync
from absurd.tasks.session import journal
from absurd.tasks.session.errors import SessionDamagedError, SessionFolderBusyError, SessionStorageError
from absurd.tasks.session.outline import Outline, outline
from absurd.tasks.session.place import WORK, Place, unsealed
from absurd.tasks.session.sealed import GONE
from absurd.tasks.session.values import encode, moment
from absurd.tasks.session.writer import JournalWriter, refused

_log = logging.getLogger("absurd.session")


class FolderLock:
    """Holds a data folder for this process; ends with it, however it ends."""

    def __init__(self, data_dir: Path) -> None:
        """Make the folder if need be.  Raises SessionFolderBusyError, which names the owner, SessionStorageError."""
        path = data_dir / WORK / "lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sync(data_dir)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise refused(path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": moment(time.time_ns())}
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(owner).encode(), 0)
        except BlockingIOError:
            os.close(self._file)
            raise _busy(data_dir, path) from None
        except OSError as error:
            os.close(self._file)
            raise refused(path, error) from error
        _held.add(self)

    def close(self) -> None:
        """Let go of the folder."""
        if self in _held:
            _held.discard(self)
            os.close(self._file)


_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A process forked from this one has no manager, and must not hold the folder when this one is gone."""
    for each in list(_held):
        each.close()


os.register_at_fork(after_in_child=_let_go_in_child)


def _busy(data_dir: Path, path: Path) -> SessionFolderBusyError:
    try:
        owner = json.loads(path.read_bytes())
        told = f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError):  # it has just taken it, and has not said yet who it is
        owner, told = {}, "another process"
    return SessionFolderBusyError(f"{data_dir} is in the hands of {told}; one manager has a folder", **owner)


@dataclass(slots=True)
class Found:
    """What was left in a data folder."""

    left: tuple[Place, Outline] | None = None
    """The session to go on with."""
    ended: list[Place] = field(default_factory=list)
    """Sessions that have ended, and want to be sealed."""


def look_around(data_dir: Path) -> Found:
    """Find what the last manager of a folder left, and end what it could not, as recovered.

    A session that it left on purpose goes on; of several only the newest.  One of which nothing was told goes.
    A journal that cannot be read stays where it is, and is told of in the log.
    """
    for each in (data_dir / WORK).glob(f"*{GONE}"):
        shutil.rmtree(each, ignore_errors=True)
    found = Found()
    for place in unsealed(data_dir):
        try:
            made = outline(place.journal)
        except (SessionDamagedError, OSError) as error:
            if _holds_anything(place):
                _log.error("%s; it stays where it is", error)
            else:  # it broke off while it was made: nothing was acknowledged
                shutil.rmtree(place.work, ignore_errors=True)
            continue
        if made.last.kind == journal.LEFT:
            if found.left is not None:
                _end(found, *found.left)
            found.left = place, made
        elif made.ended:
            found.ended.append(place)
        elif made.is_empty and made.start["session_type"] == "idle":
            shutil.rmtree(place.work, ignore_errors=True)
        else:
            _end(found, place, made)
    return found


def _end(found: Found, place: Place, made: Outline) -> None:
    """Have a session sealed as recovered; where the disk refuses, the next manager does."""
    try:
        _recover(place, made)
    except SessionStorageError as error:
        _log.error("session %s stays as it is: %s", place.id, error)
    else:
        found.ended.append(place)


def _holds_anything(place: Place) -> bool:
    """Whether something was told to a session whose journal has no beginning; what cannot be read may be that."""
    try:
        return any(place.frames.glob("*")) or journal.has_records(place.journal)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _recover(place: Place, made: Outline) -> None:
    """End a session whose manager is gone where its last whole record ends.  Raises SessionStorageError."""
    last = made.last
    _log.warning("session %s was not ended, and is recovered", place.id)
    try:
        writer = JournalWriter(place.journal, "entry", size=last.end, number=last.number, elapsed_ns=last.elapsed_ns)
    except OSError as error:
        raise refused(place.journal, error) from error
    try:
        writer.finish(journal.END, encode({"end_time": moment(last.time_ns), "recovered": True}, "end"))
    except SessionStorageError:
        writer.abandon()
        raise
