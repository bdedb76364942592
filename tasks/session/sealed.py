"""From a session's journal and frames to its file, in steps that can be begun again wherever they were broken off."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absurd.tasks.artifact import sync
from absurd.tasks.session.compression import Compression, compression_of
from absurd.tasks.session.errors import SessionDamagedError, SessionNotFoundError, SessionStateError
from absurd.tasks.session.frames import facts_of, mark, md5_of, store_compressed
from absurd.tasks.session.outline import Outline, arrays, outline
from absurd.tasks.session.place import Place, place_of
from absurd.tasks.session.session_file import SessionFile
from absurd.tasks.session.values import moment
from absurd.tasks.session.verification import Verified, verify
from absurd.tasks.session.writer import refused

GONE = ".sealed"
"""Ending of the name of a session's folder that is to be removed: its file is there."""

_log = logging.getLogger("absurd.session")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A session's file."""

    session_id: str
    path: str
    sha256: str
    bytes: int
    recovered: bool
    metrics: dict[str, Any]


def seal(data_dir: str | os.PathLike[str], session_id: str) -> Sealed:
    """Write the file of a session that has ended, see that it is whole, and only then let go of the journal.

    A session that is sealed already is left as it is.  Raises SessionNotFoundError, SessionStateError if it has not
    ended, SessionDamagedError if what was written is not what was to be, SessionStorageError if there is no room: then
    the journal stays, and sealing can be asked for again.
    """
    place = place_of(data_dir, session_id)
    try:
        with _alone(place):
            return _seal(place)
    except OSError as error:
        raise refused(Path(error.filename or place.path), error) from error


def _seal(place: Place) -> Sealed:
    if place.path.exists():  # it was broken off between the last two steps, or another has sealed it
        found = verify(place.path)
    else:
        found = _write(place)
        _name(place)
    if place.work.exists():
        gone = place.work.with_name(place.id + GONE)
        place.work.rename(gone)  # at once: half a session's folder would be a session without frames
        sync(gone.parent)
        shutil.rmtree(gone)
    return Sealed(
        place.id, str(place.path), found.sha256, found.bytes, bool(found.meta.get("recovered")), found.metrics
    )


def _write(place: Place) -> Verified:
    """Write the file aside, and read it back from the disk."""
    made = outline(place.journal)
    if not made.ended:
        raise SessionStateError(f"the session {place.id} has not ended", session_id=place.id)
    compression = compression_of(made.start["compression"])
    files = {stored.file for _, stored in arrays(made, place.journal)}
    external = made.start["frames"] == "external" and bool(files)
    md5 = _check_frames(place, made, external and compression is None)
    _make_folders(place)
    if external and not place.beside.exists():
        _put_beside(place, made, files, compression)
    if made.spoilt:
        _keep_untold(place, made, files)
    file = (
        SessionFile(made, place.journal, place.beside, place.beside.name, md5)
        if external
        else SessionFile(made, place.journal, place.frames, None, md5)
    )
    with place.aside.open("wb") as out:
        sha256 = file.write(out, _provenance(place, made), compression)
        out.flush()
        os.fsync(out.fileno())
        os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    found = verify(place.aside, beside=place.path.parent)
    if found.sha256 != sha256 or found.metrics != made.metrics():
        raise SessionDamagedError(f"{place.aside} is not what was written to it", path=str(place.aside))
    return found


def _check_frames(place: Place, made: Outline, marked: bool) -> dict[str, str]:
    """The MD5 of each frame that is there, by its file's name; `marked`: which the file gets too."""
    folder = place.frames if place.frames.exists() else place.beside
    found = {}
    for _, stored in arrays(made, place.journal):
        with suppress(FileNotFoundError):  # somebody has removed it: the session is whole without it, and says so
            found[stored.file] = md5_of(folder / stored.file, stored)
            if marked:
                mark(folder / stored.file, stored, found[stored.file])
    return found


def _put_beside(place: Place, made: Outline, files: set[str], compression: Compression | None) -> None:
    """Give the folder of frames its final name, in one step; of frames that nobody was told of none is in it."""
    folder = place.frames
    if compression is None:
        for name in set(os.listdir(folder)) - files if not made.spoilt else ():
            (folder / name).unlink(missing_ok=True)  # whoever told it too late takes it away too
    else:
        folder = place.work / "compressed"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for told, stored in arrays(made, place.journal):
            source = place.frames / stored.file
            if source.exists():
                store_compressed(source, folder / stored.file, stored, facts_of(place.id, told), compression)
        sync(folder)
    folder.rename(place.beside)
    sync(place.beside.parent)
    sync(place.work)


def _keep_untold(place: Place, made: Outline, files: set[str]) -> None:
    """Keep frames of which a spoilt journal does not tell any more: each file tells of itself what it is."""
    _log.error("%d bytes of the journal of session %s are spoilt, and what they told is lost", made.spoilt, place.id)
    untold = [each for each in place.frames.glob("[!.]*") if each.name not in files]
    for each in untold:
        place.beside.mkdir(exist_ok=True)
        each.rename(place.beside / each.name)
    if untold:
        sync(place.beside)
        sync(place.beside.parent)


def _name(place: Place) -> None:
    """Give the file its final name, unless something has that name."""
    try:
        os.link(place.aside, place.path)
    except FileExistsError:
        raise SessionDamagedError(f"{place.path} is there already, and no file of this session's") from None
    except OSError:  # a file system without links, such as that of a memory card: nobody else makes this name
        place.aside.rename(place.path)
    sync(place.path.parent)


def _make_folders(place: Place) -> None:
    """Make the folders of the day, to stay."""
    missing = [each for each in (place.path.parent, *place.path.parent.parents) if not each.exists()]
    place.path.parent.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        sync(each.parent)


def _provenance(place: Place, made: Outline) -> dict[str, Any]:
    """What a file tells of how it came about."""
    return {
        **made.start["provenance"],
        "frames": made.start["frames"],
        "compression": made.start["compression"],
        "journal": {"records": made.last.number, "bytes": place.journal.stat().st_size, "spoilt_bytes": made.spoilt},
        "sealed_at": moment(time.time_ns()),
        "sealed_on": socket.gethostname(),
    }


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Hold off others who seal the same session."""
    try:
        journal = os.open(place.journal, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        if not place.path.exists():
            raise SessionNotFoundError(f"there is no session {place.id}", session_id=place.id) from None
        yield
        return
    try:
        fcntl.flock(journal, fcntl.LOCK_EX)
        yield
    finally:
        os.close(journal)
