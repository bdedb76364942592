"""`SessionManager`: every moment belongs to a session, and every session becomes a file."""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

from absurd.tasks.session.book import Book
from absurd.tasks.session.compression import compression_of
from absurd.tasks.session.errors import SessionStateError, SessionStorageError, SessionValueError
from absurd.tasks.session.folder import FolderLock, look_around
from absurd.tasks.session.live import Live
from absurd.tasks.session.outline import Outline
from absurd.tasks.session.place import Place
from absurd.tasks.session.sealer import Client, Sealer
from absurd.tasks.session.telling import Call, Telling
from absurd.tasks.session.writer import Sync

IDLE = "idle"


class Session(Telling):
    """One session; what is told to it is told to no other."""

    def __init__(self, book: Book, end: Callable[[Book], Path]) -> None:
        self._book = book
        self._end = end

    @property
    def id(self) -> str:
        """Its name, which no other session has."""
        return self._book.id

    @property
    def session_type(self) -> str:
        """One of observation, alignment, experiment, maintenance, idle."""
        return self._book.session_type

    @property
    def path(self) -> Path:
        """Where its file is, or will be."""
        return self._book.place.path

    def close(self) -> Path:
        """End it and give its file.  Raises as `SessionManager.end_session`."""
        return self._end(self._book)

    def on_book(self, call: Call) -> Future[None]:
        """Make a call of `Telling` without waiting for what becomes of it."""
        return call(self._book)

    def _tell(self, call: Call) -> None:
        self.on_book(call).result()


class SessionManager(Telling):
    """Has a data folder, and always an active session, to which all calls of `Telling` go.

    `client` spawns sealing as a task, in `queue` or where the client does, and tells log and events to those who
    follow them in the database; without one, sealing is done in this process.  `location` is kept with each session.
    Idle sessions give way to new ones after `idle_minutes`, unless they are empty: those leave no file.  With
    ``sync="entry"`` what was acknowledged survives a power cut; with ``"second"`` calls return at once, and up to a
    second may be lost.  Arrays are ``"external"``: files beside the session's, or ``"embedded"`` in it; `compression`
    is ``"zlib"``, ``"zstd"`` (with its plugin) or None.

    On its start it ends and seals what a crashed process left, as recovered.  Any thread may call it.  Raises
    SessionFolderBusyError if another manager has the folder, SessionValueError, SessionStorageError.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        client: Client | None = None,
        *,
        location: Mapping[str, Any] | None = None,
        idle_minutes: float = 60.0,
        sync: Sync = "entry",
        frames: Literal["external", "embedded"] = "external",
        compression: Literal["zlib", "zstd"] | None = None,
        queue: str | None = None,
    ) -> None:
        _check(client, idle_minutes, sync, frames)
        compression_of(compression)
        self.data_dir = Path(os.path.abspath(data_dir))
        self._location = location
        self._idle_seconds = 60.0 * idle_minutes
        self._sync: Sync = sync
        self._form = {"frames": frames, "compression": compression}
        self._switching = threading.RLock()
        self._closed = threading.Event()
        self._live: Live | None = None
        self._lock = FolderLock(self.data_dir)
        try:
            self._sealer = Sealer(self.data_dir, client, queue)
            self._live = Live(client) if client is not None else None
            found = look_around(self.data_dir)
            self._active = self._begin(IDLE, {}) if found.left is None else self._go_on(*found.left)
        except BaseException:
            if self._live is not None:
                self._live.close()
            self._lock.close()
            raise
        for each in found.ended:
            self._sealer.owe(each)
        self._rotator = threading.Thread(target=self._rotate, name="absurd-session", daemon=True)
        self._rotator.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def active(self) -> Session:
        """The session that is active now."""
        return Session(self._active, self._end_one)

    def start_session(
        self,
        session_type: str,
        *,
        target: str | None = None,
        purpose: str | None = None,
        planned_duration_minutes: float | None = None,
        location: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Session:
        """Begin a session, of type observation, alignment, experiment, maintenance or idle.

        The one that is active ends and is sealed meanwhile; the new one names it as ``previous_session``.  What is
        given, further fields too, is kept under ``meta``.  Raises SessionValueError, SessionStorageError; the session
        before goes on then.
        """
        given = {
            "target": target,
            "purpose": purpose,
            "planned_duration_minutes": planned_duration_minutes,
            "location": location or self._location,
        }
        told = {name: value for name, value in given.items() if value is not None or name == "target"}
        with self._switching:
            told["previous_session"] = self._active.id
            before = self._switch(session_type, told | fields)
            if not _is_nothing(before):
                self._sealer.owe(before.place)
            return self.active

    def end_session(self, *, wait: bool = True, timeout: float | None = None) -> Path:
        """End the active session, become idle, and give the path of its file.

        Waits until the file is there, for `timeout` seconds at most (None: for ever); with ``wait=False``, and while
        the database is away, the path is where the file will be.  Raises SessionStorageError if the end cannot be
        written: the session goes on then, or if there is no room for the file: that is tried again until there is.
        Raises TaskFailed, WaitTimeoutError when that became of the task; the session has ended all the same.
        """
        return self._end_one(None, wait=wait, timeout=timeout)

    def rebuild_catalog(self, *, full: bool = False, timeout: float | None = None) -> Path:
        """Bring ``catalog/catalog.parquet`` up to date with the files that are sealed, and give its path.

        With a client the task ``session.catalog`` does it and tells the database too, and is waited for as in
        `end_session`; with the database away it is done here.  With `full` all files are read again.
        Raises SessionStorageError, TaskFailed, WaitTimeoutError.
        """
        return self._sealer.catalog(full, timeout)

    def close(self) -> None:
        """End the active session and let go of the folder; waits for the file where it is written here.

        Raises SessionStorageError if the end could not be written: the next manager recovers the session.
        """
        self._leave(self._finish)

    def leave(self) -> None:
        """Let go of the folder, and leave the active session to the next manager, who goes on with it."""
        self._leave(Book.leave)

    def on_book(self, call: Call) -> Future[None]:
        """Make a call of `Telling` on the active session, or the next one, without waiting for what becomes of it."""
        while True:
            book = self._active
            try:
                return call(book)
            except SessionStateError:
                with self._switching:  # until the next one is there
                    if self._active is book:
                        raise

    # Within ---------------------------------------------------------------------------------------

    def _tell(self, call: Call) -> None:
        self.on_book(call).result()

    def _end_one(self, book: Book | None, *, wait: bool = True, timeout: float | None = None) -> Path:
        """End the session of `book`, or the active one."""
        with self._switching:
            if book is not None and book is not self._active:
                raise SessionStateError(f"the session {book.id} has ended", path=str(book.place.path))
            ended = self._switch(IDLE, {})
        if wait:
            return self._sealer.seal(ended.place, timeout)
        self._sealer.owe(ended.place)
        return ended.place.path

    def _switch(self, session_type: str, fields: Mapping[str, Any]) -> Book:
        """Have another session instead of the active one, which is given."""
        new, old = self._begin(session_type, fields), self._active
        try:
            old.finish()
        except (SessionStateError, SessionStorageError):
            new.discard()
            raise
        self._active = new
        return old

    def _begin(self, session_type: str, fields: Mapping[str, Any]) -> Book:
        located = {} if self._location is None else {"location": self._location}
        return Book.create(self.data_dir, session_type, {**located, **fields}, self._form, self._sync, self._live)

    def _go_on(self, place: Place, outline: Outline) -> Book:
        return Book.go_on(place, outline, self._sync, self._live)

    def _finish(self, book: Book) -> None:
        book.finish()
        if not _is_nothing(book):
            self._sealer.owe(book.place)

    def _leave(self, end: Callable[[Book], None]) -> None:
        with self._switching:
            if self._closed.is_set():
                return
            self._closed.set()
            try:
                end(self._active)
            except SessionStorageError:
                self._active.abandon()
                raise
            finally:
                self._sealer.close()
                if self._live is not None:
                    self._live.close()
                self._lock.close()

    def _rotate(self) -> None:
        """Begin a new idle session when one has lasted long enough, until the manager is closed."""
        while not self._closed.wait(max(0.01, self._seconds_left())):
            with self._switching, suppress(SessionStorageError):  # the disk is full: it goes on as it is
                if self._seconds_left() <= 0 and not self._closed.is_set():
                    if self._active.is_empty:
                        self._active.begun = time.monotonic()
                    else:
                        self._sealer.owe(self._switch(IDLE, {}).place)

    def _seconds_left(self) -> float:
        """Until the active session gives way to another."""
        age = time.monotonic() - self._active.begun if self._active.session_type == IDLE else 0.0
        return self._idle_seconds - age


def _is_nothing(book: Book) -> bool:
    """Whether a session that has ended was idle and empty; its folder goes then."""
    if book.session_type != IDLE or not book.is_empty:
        return False
    book.discard()
    return True


def _check(client: Client | None, idle_minutes: float, sync: str, frames: str) -> None:
    if inspect.iscoroutinefunction(getattr(client, "spawn", None)):
        raise SessionValueError(
            "this client is for asyncio: give it to AsyncSessionManager, or a SyncAbsurdClient here"
        )
    if not idle_minutes > 0:
        raise SessionValueError(f"idle_minutes is {idle_minutes!r}; it must be above 0")
    if sync not in {"entry", "second"}:
        raise SessionValueError(f"sync is {sync!r}; it is entry or second")
    if frames not in {"external", "embedded"}:
        raise SessionValueError(f"frames is {frames!r}; they are external or embedded")
