"""One batch at a time in a folder: two at once would take the files of each other for their own.

A file lock tells while a process of a batch is at work, and dies with it.  A batch on a queue has no process while it
waits for its parts: a file beside the lock names its task, which is asked for.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from absurd.tasks.artifact import write_aside
from absurd.tasks.cutout.errors import FolderInUseError

LOCK, HOLDER = "lock", "holder.json"

HasEnded = Callable[[UUID], bool]
"""Whether the task of a batch has ended, or is none that the queue knows."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Which batch a folder was given to last."""

    batch: str | None
    """Its task; None: it is a process."""
    host: str
    pid: int
    since: str

    @classmethod
    def of(cls, batch: UUID | None) -> Holder:
        """The one that this process is, or works for."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(None if batch is None else str(batch), socket.gethostname(), os.getpid(), now)

    @classmethod
    def read(cls, folder: Path) -> Holder | None:
        """None if there is none, or it cannot be understood."""
        try:
            return cls(**json.loads((folder / HOLDER).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        with write_aside(folder / HOLDER) as aside:
            aside.write_text(json.dumps(asdict(self)), encoding="utf-8")

    def __str__(self) -> str:
        who = f"task {self.batch}" if self.batch else f"process {self.pid} on {self.host}"
        return f"{who}, since {self.since}"


@contextmanager
def in_use(
    folder: Path, *, batch: UUID | None = None, has_ended: HasEnded = lambda _: False, take: bool = True
) -> Iterator[None]:
    """Have the `folder` of a batch's parts to itself: for its task with all its parts, or for this process alone.

    Without `take`, as for a part, only if it is that batch's already.  Raises FolderInUseError, at once, if another
    batch is at work there, or waits for its parts.

    Locks are those of `flock`: where a file system shares these between hosts, as NFS does, they hold there too; where
    it has none, the file that names the task counts alone.
    """
    with _opened(folder) as lock:
        holder = Holder.read(folder)
        if batch is None or holder is None or holder.batch != str(batch):
            if not take:
                if holder is not None:
                    raise _error(folder, holder)
            else:
                _take(folder, lock, batch, has_ended)
        if batch is not None and not _is_locked(lock, fcntl.LOCK_SH):
            raise _error(folder, Holder.read(folder))
        if not _is_there(lock, folder / LOCK):
            raise _error(folder, None)
        yield


def _take(folder: Path, lock: int, batch: UUID | None, has_ended: HasEnded) -> None:
    free = _is_locked(lock, fcntl.LOCK_EX)
    holder = Holder.read(folder)
    if not free or (holder is not None and holder.batch is not None and not has_ended(UUID(holder.batch))):
        raise _error(folder, holder)
    Holder.of(batch).write(folder)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """The file to lock."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield lock
    finally:
        os.close(lock)


def _is_locked(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _is_there(lock: int, path: Path) -> bool:
    """Whether it is still the file that others lock: who ends a batch removes it."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


def _error(folder: Path, holder: Holder | None) -> FolderInUseError:
    who = str(holder) if holder is not None else "another process"
    return FolderInUseError(
        f"a batch is at work in {folder.parent} already: {who}",
        advice="wait until it has ended, cancel it, or give another folder as out",
        holder=holder.batch if holder is not None else None,
    )
