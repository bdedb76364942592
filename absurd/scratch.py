"""Scratch folders: a place for one run's intermediate files, gone when the run has ended, however it ended.

A worker makes one folder of its own below the scratch root, readable by its user alone, and its runs make theirs in
there.  It keeps that folder locked for as long as it lives; what a killed worker has left is known by the lock that
nobody holds, on whatever machine that was, and removed by the next worker that uses the same root.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from absurd.disk import try_lock
from absurd.errors import NoScratchError

PREFIX = "absurd-scratch-"
GIB = 1024**3


class ScratchSpace:
    """The scratch space of this process: a folder below `root`, made when a run first needs it.

    `root` None: the platform's folder for temporary files.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._at: Path | None = None
        self._lock: int | None = None
        self._making = threading.Lock()
        self.problem: str | None = None
        """Which disk has no room or cannot be used, and why; None while it was of use when it was last asked for."""

    @property
    def root(self) -> Path:
        """Where folders of processes lie.  Raises OSError where every folder for temporary files is full."""
        if self._root is None:
            self._root = Path(tempfile.gettempdir())
        return self._root

    @property
    def place(self) -> str:
        """The root as people are told it; never raises."""
        return "the folder for temporary files" if self._root is None else str(self._root)

    def folder(self) -> Path:
        """The folder of this process, whose folders of runs lie in it.  Raises OSError where it cannot be made."""
        with self._making:  # runs start in several threads, and a second folder would never be removed
            if self._at is None:
                self._at = self._make()
            return self._at

    def make(self, name: str) -> Path:
        """A folder for one run.  Raises NoScratchError."""
        try:
            made = self.folder() / name
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self.refuse(error.strerror or str(error)) from error
        self.problem = None
        return made

    def refuse(self, why: str) -> NoScratchError:
        """Note why the disk is of no use; gives the error that tells it."""
        self.problem = f"{self.place}: {why}"
        return NoScratchError(f"no scratch folder can be made in {self.problem}", folder=self.place)

    def probe(self) -> None:
        """Return once the disk has answered.  Raises OSError."""
        os.statvfs(self.folder())

    def free_gib(self) -> float:
        """How much this user may still write below the root, in GiB.  Raises OSError where that cannot be told."""
        found = os.statvfs(self.root if self._at is None else self._at)
        return found.f_bavail * found.f_frsize / GIB

    def close(self) -> bool:
        """Remove the folder with all that is in it; whether nothing is left."""
        if self._lock is None or self._at is None:
            return True
        gone = remove(self._at)
        os.close(self._lock)
        self._at = self._lock = None
        return gone

    def _make(self) -> Path:
        """Make the folder; it is locked before it has its name, so that nobody takes it for a dead one's."""
        self.root.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=self.root))
        lock = None
        try:
            lock = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # NFS locks no folders, Lustre may lock nothing: then nobody sweeps there either
                try_lock(lock)
            made = hidden.rename(self.root / f"{PREFIX}{os.getpid()}-{hidden.name.rpartition('-')[2]}")
        except OSError:  # a disk that is nearly full: this is tried again, and hidden folders are never swept
            if lock is not None:
                os.close(lock)
            with suppress(OSError):
                hidden.rmdir()
            raise
        self._lock = lock
        return made


def remove(folder: Path) -> bool:
    """Remove a folder with all that is in it, whatever rights its folders have; whether nothing is left."""
    shutil.rmtree(folder, ignore_errors=True)
    if not os.path.lexists(folder):
        return True
    for below, _, _ in os.walk(folder):  # top down: a folder is opened up before it is looked into
        with suppress(OSError):
            os.chmod(below, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
    return not os.path.lexists(folder)


def sweep(root: Path) -> list[Path]:
    """Remove what processes of this user have left below `root` that are certainly gone; returns what was removed."""
    removed = []
    for folder in sorted(root.glob(f"{PREFIX}*")):
        with suppress(OSError):  # removed by another meanwhile, somebody else's, or no folder
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid() and try_lock(descriptor) and remove(folder):
                    removed.append(folder)
            finally:
                os.close(descriptor)
    return removed
