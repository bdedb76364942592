"""Who writes a journal: a thread that takes what many told meanwhile to the disk at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Literal

from absurd.tasks.session.errors import SessionStateError, SessionStorageError
from absurd.tasks.session.journal import MAGIC, record

Sync = Literal["entry", "second"]
Listener = Callable[[list[bytes]], None]

PAUSE = 0.5
"""Seconds for which records are gathered with ``sync="second"``, and after which a disk that refused is tried again."""
MOST_WAITING = 32 << 20
"""Bytes of records that wait for the disk; who tells more waits too."""


def _group() -> Future[None]:
    """What is waited for by all who told something since the thread last took what there was."""
    group: Future[None] = Future()
    group.set_running_or_notify_cancel()  # one who waits no longer does not end it for the others
    return group


class _Ended(Future[None]):
    """Of what is acknowledged at once: asking takes no lock, for which threads would stand in line."""

    def __init__(self) -> None:
        super().__init__()
        self.set_result(None)

    def result(self, timeout: float | None = None) -> None:
        """Nothing to wait for."""


_ENDED = _Ended()


class _BriefLock:
    """A lock for what takes microseconds, of which no thread becomes the owner while it waits for the GIL.

    Handed to a waiting thread, as `threading.Lock` is on more than one processor, it is held until that thread has the
    GIL: the one that runs needs it first, gives the GIL away, and so on with each entry.  Ten threads were
    acknowledged a third of the entries that they are now.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.release = self._lock.release

    def acquire(self, blocking: bool = True) -> bool:  # noqa: FBT002 - as that of threading.Lock
        """Take it; false if it is taken and `blocking` is not set."""
        while not self._lock.acquire(blocking=False):
            if not blocking:
                return False
            time.sleep(0)  # the one who has it wants the GIL
        return True

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class JournalWriter:
    """Appends to a journal, from any thread.

    With ``sync="entry"`` the future of a record ends when it is on the disk, with all records told meanwhile.  With
    ``"second"`` it has ended at once, and the record is on the disk within a second.  `listener` is given all that is
    on the disk, in order; it must neither wait nor raise.
    """

    def __init__(
        self, path: Path, sync: Sync, *, size: int, number: int, elapsed_ns: int, listener: Listener | None = None
    ) -> None:
        """Go on with a journal whose last record has that number and that time since the start.

        What is in the file beyond `size` bytes goes: a record that is torn.  Raises OSError.
        """
        self.path = path
        self.sync = sync
        self._listener = listener
        self._size = size
        self._number = number
        self._base_ns = elapsed_ns - time.monotonic_ns()
        self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.ftruncate(self._file, size)
        self._changed = threading.Condition(_BriefLock())  # type: ignore[arg-type]
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._group = _group()
        self._writing: Future[None] | None = None
        self._at_once = False
        self._finishing = self._finished = False
        self._refused: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="absurd-journal", daemon=True)
        self._thread.start()

    @classmethod
    def create(cls, path: Path, sync: Sync, listener: Listener | None = None) -> JournalWriter:
        """Begin a journal.  Raises SessionStorageError, and leaves no file then."""
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                os.write(file, MAGIC)
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise refused(path, error) from error
        return cls(path, sync, size=len(MAGIC), number=0, elapsed_ns=0, listener=listener)

    def append(self, kind: str, body: bytes) -> Future[None]:
        """Tell something; the future ends as `sync` says, with SessionStorageError if the disk refused.

        Raises SessionStateError once the journal is finished; with ``sync="second"`` SessionStorageError while the
        disk refuses what was told before, which is kept and tried again.
        """
        with self._changed:
            if self._finishing or self._bytes > MOST_WAITING:
                self._changed.wait_for(self._may_tell)
            if self._finished:
                raise SessionStateError(f"the session {self.path.parent.name} has ended")
            if self._refused is not None and self.sync == "second":
                raise refused(self.path, self._refused)
            if not self._waiting:
                self._changed.notify_all()
            self._waiting.append(self._stamped(kind, body))
            self._bytes += len(self._waiting[-1])
            return self._group if self.sync == "entry" else _ENDED

    def flush(self) -> None:
        """Wait until all that was told is on the disk.  Raises SessionStorageError."""
        with self._changed:
            if self._waiting:
                self._at_once = True
                self._changed.notify_all()
                group: Future[None] | None = self._group
            else:
                group = self._writing
        if group is not None:
            group.result()

    def finish(self, kind: str, body: bytes) -> None:
        """Write a last record behind all that was told, and close the journal.

        Who tells something meanwhile waits for the outcome.  Raises SessionStateError if it was finished before,
        SessionStorageError if the disk refuses: then the journal goes on as if nothing had been asked.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._finishing)
            if self._finished:
                raise SessionStateError(f"the session {self.path.parent.name} has ended")
            self._finishing = True
        try:
            self.flush()
            last = self._stamped(kind, body)
            self._store(last)  # the thread has nothing to write, and gets nothing
        except SessionStorageError:
            raise
        except OSError as error:
            raise refused(self.path, error) from error
        else:
            self._finished = True
            self._announce([last])
        finally:
            with self._changed:
                self._finishing = False
                self._changed.notify_all()
        self._thread.join()

    def abandon(self) -> None:
        """Close the file without a last record; who waits for something that is not written is told so."""
        with self._changed:
            self._finished = True
            lost, group = bool(self._waiting), self._group
            self._waiting.clear()
            self._changed.notify_all()
        if lost:
            group.set_exception(SessionStateError(f"the session {self.path.parent.name} was given up"))
        self._thread.join()

    def _may_tell(self) -> bool:
        full = self._bytes > MOST_WAITING and self._refused is None
        return self._finished or not (self._finishing or full)

    def _stamped(self, kind: str, body: bytes) -> bytes:
        # Called under the lock: numbers and times go up as the places in the file do.
        self._number += 1
        return record(kind, self._number, time.time_ns(), self._base_ns + time.monotonic_ns(), body)

    def _run(self) -> None:
        try:
            while self._gather():
                with self._changed:
                    records, self._waiting = self._waiting, []
                    group, self._group = self._group, _group()
                    self._writing, self._at_once = group, False
                self._write(records, group)
        finally:
            os.close(self._file)

    def _gather(self) -> bool:
        """Wait until there is something to write; false once the journal is finished."""
        with self._changed:
            if self._refused is not None and self._waiting:
                self._changed.wait_for(lambda: self._at_once, PAUSE)
            self._changed.wait_for(lambda: self._waiting or self._finished)
            if self.sync == "second" and self._waiting:
                self._changed.wait_for(lambda: self._at_once, PAUSE)
            return bool(self._waiting)

    def _write(self, records: list[bytes], group: Future[None]) -> None:
        """Take records to the disk and tell who waits for them; what the disk refused of acknowledged ones is kept."""
        error: OSError | None = None
        try:
            self._store(b"".join(records))
        except OSError as caught:
            error = caught
        with self._changed:
            self._refused, self._writing = error, None
            if error is not None and self.sync == "second":
                self._waiting[:0] = records
            else:
                self._bytes -= sum(map(len, records))
            self._changed.notify_all()
        if error is None:
            self._announce(records)  # before who waits can write a last record
            group.set_result(None)
        else:
            group.set_exception(refused(self.path, error))

    def _announce(self, records: list[bytes]) -> None:
        if self._listener is not None:
            self._listener(records)

    def _store(self, data: bytes) -> None:
        """Append to the file; one that is too full keeps the length it had, so that the next record finds its place."""
        rest, offset = memoryview(data), self._size
        try:
            while rest:
                written = os.pwrite(self._file, rest, offset)
                rest, offset = rest[written:], offset + written
            os.fdatasync(self._file)
        except OSError:
            with suppress(OSError):  # what is left there is written over, or read as records nobody was told of
                os.ftruncate(self._file, self._size)
            raise
        self._size = offset


def refused(path: Path, error: OSError) -> SessionStorageError:
    """The error that tells what the disk did not take."""
    return SessionStorageError(
        f"{path} could not be written: {error.strerror or error}; what was acknowledged before is safe",
        path=str(path),
        errno=error.errno,
    )
