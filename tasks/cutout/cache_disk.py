"""The disk level of the cache: one file for each value, shared by any number of processes, bound in bytes.

Files of our own rather than an SQLite database of them (as diskcache keeps): renames are atomic on the network file
systems that observatories share, where the locks of SQLite's log are not to be trusted, and nothing is pickled.

A file takes its name in one step, so a reader sees all of it or nothing.  It begins with a checksum: what a crash or a
full disk left is a miss, and removed.  The time of a file's last change is the time of its last use, by which the
least recently used are evicted.  What all files take together stands in a ledger, changed under a lock; it is raised
before a file appears and lowered after one has gone, so after a crash it says too much rather than too little, and is
counted anew when it reaches the bound.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absurd.tasks.cutout.cache_key import CacheKey, Version
from absurd.tasks.cutout.cache_value import pack, unpack

MAGIC = b"CUTOUT1\n"
_CHECKSUM = 32
_LEDGER = "ledger"
_UNFINISHED = "unfinished"
_ABANDONED = 3600.0
"""Seconds after which an unfinished file belongs to nobody."""
_ROOM = 0.9
"""Share of the bound that is left after evicting, so that not every write has to look at all files."""
_PATIENCE = 2.0
"""Seconds to wait for the lock: a stopped process may hold it, and a cache must not hold up its users."""
_RESPITE = 60.0
"""Seconds after such a wait in which nobody waits again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A value with what it depends on."""

    value: Any
    stored: float
    """When, by the clock of the cache that stored it, in seconds."""
    versions: tuple[Version, ...]
    """Of the key's files, as they were."""


class DiskLevel:
    """Values in files under `folder`, which is made.  Methods raise OSError when the disk does not do its part."""

    def __init__(
        self, folder: str | os.PathLike[str], *, max_bytes: int = 1 << 30, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.corrupt = 0
        """How many damaged files were found, and removed."""
        self._clock = clock
        self._lock = threading.Lock()
        self._given_up = float("-inf")
        self._numbers = itertools.count()

    def read(self, key: CacheKey) -> Stored | None:
        """What is stored under `key`, of whatever age and version; None if nothing is."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            head, packed = _parse(content)
            if head["digest"] != key.digest:
                raise ValueError("copied from another name")
            versions = tuple(None if each is None else (each[0], each[1], each[2]) for each in head["versions"])
            found = Stored(unpack(packed), float(head["stored"]), versions)
        except (LookupError, TypeError, ValueError):  # written by a crash, a failing disk, or by someone else
            with self._lock:
                self.corrupt += 1
            self.remove(key)
            return None
        now = int(self._clock() * 1e9)
        with contextlib.suppress(OSError):  # evicted meanwhile, or not ours: then it only looks less used than it is
            os.utime(path, ns=(now, now))
        return found

    def write(self, key: CacheKey, entry: Stored) -> Counter[str] | None:
        """Store `entry` under `key`; tells how many of which kind were evicted, None if it is larger than the bound."""
        head = {
            "digest": key.digest,
            "stored": entry.stored,
            "versions": entry.versions,
            "tags": [*key.files, *key.tags],
        }
        content = _build(head, pack(entry.value))
        if len(content) > self.max_bytes:
            return None
        path = self._path(key)
        unfinished = self.folder / _UNFINISHED / self._own_name()
        for folder in (path.parent, unfinished.parent):
            folder.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(content)
            now = int(self._clock() * 1e9)
            os.utime(unfinished, ns=(now, now))
            with self._ledger() as ledger:
                evicted = self._make_room(ledger, len(content) - _size(path), path, unfinished)
                path.unlink(missing_ok=True)  # ext4 waits for the disk when a file takes the place of another
                unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        return evicted

    def remove(self, key: CacheKey) -> bool:
        """Remove what is stored under `key`; whether there was anything."""
        with self._ledger() as ledger:
            return self._unlink(ledger, self._path(key))

    def remove_kind(self, kind: str) -> int:
        """Remove all of a kind; tells how many."""
        with self._ledger() as ledger:
            return sum(self._unlink(ledger, path) for path in self._paths(kind))

    def remove_tag(self, tag: str) -> int:
        """Remove what has `tag`, or depends on the file of that name; tells how many.  Reads the head of every file."""
        with self._ledger() as ledger:
            return sum(self._unlink(ledger, path) for path in self._paths() if tag in _tags(path))

    def used_bytes(self) -> int:
        """What all files take together, at most; that of other processes too."""
        try:
            return int((self.folder / _LEDGER).read_bytes() or 0)
        except (FileNotFoundError, ValueError):
            return sum(map(_size, self._paths()))

    def entries(self) -> int:
        """How many values there are; looks at every folder."""
        return sum(1 for _ in self._paths())

    def check(self) -> None:
        """Raise OSError unless files can be written, read and locked there."""
        probe = self.folder / _UNFINISHED / self._own_name()
        probe.parent.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(MAGIC)
            if probe.read_bytes() != MAGIC:
                raise OSError(f"{probe} does not hold what was written to it")
        finally:
            probe.unlink(missing_ok=True)
        with self._ledger():
            shutil.disk_usage(self.folder)

    # Files ---------------------------------------------------------------------------------------

    def _path(self, key: CacheKey) -> Path:
        return self.folder / key.kind / key.digest[:2] / key.digest

    def _paths(self, kind: str = "*") -> Iterator[Path]:
        return (path for path in self.folder.glob(f"{kind}/??/*") if len(path.name) == 64)

    def _own_name(self) -> str:
        return f"{socket.gethostname()}.{os.getpid()}.{next(self._numbers)}.{id(self):x}"

    def _unlink(self, ledger: _Ledger, path: Path) -> bool:
        size = _size(path)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        ledger.add(-size)
        return True

    @contextlib.contextmanager
    def _ledger(self) -> Iterator[_Ledger]:
        """The ledger, alone among all threads and processes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            descriptor = os.open(self.folder / _LEDGER, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._await_lock(descriptor)
                yield _Ledger(descriptor, lambda: sum(map(_size, self._paths())))
            finally:
                os.close(descriptor)

    def _await_lock(self, descriptor: int) -> None:
        """Lock an open file until it is closed.  Raises TimeoutError when another process keeps it."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
                if now > until or now < self._given_up + _RESPITE:
                    self._given_up = now if now > until else self._given_up
                    raise TimeoutError(f"another process keeps {self.folder / _LEDGER} locked") from None
                time.sleep(0.002)
            else:
                return

    def _make_room(self, ledger: _Ledger, growth: int, path: Path, unfinished: Path) -> Counter[str]:
        """Enter `growth` bytes at `path` into the ledger, after evicting others if they do not fit."""
        if ledger.total + growth <= self.max_bytes:
            ledger.add(growth)
            return Counter()
        self._sweep(ledger, unfinished)
        found = []
        for each in self._paths():
            with contextlib.suppress(FileNotFoundError):  # removed by hand
                status = each.stat()
                found.append((status.st_mtime_ns, str(each), status.st_size))
        ledger.set(sum(size for *_, size in found))
        evicted: Counter[str] = Counter()
        room = min(int(_ROOM * self.max_bytes), self.max_bytes - growth)
        for _, name, _ in sorted(found):
            if ledger.total + growth <= room or ledger.total + growth <= 0:
                break
            other = Path(name)
            if other != path and self._unlink(ledger, other):
                evicted[other.parent.parent.name] += 1
        ledger.add(growth)
        return evicted

    def _sweep(self, ledger: _Ledger, own: Path) -> None:
        """Remove what killed processes left unfinished, not `own`; "now" is the file system's own time."""
        now = ledger.touch()
        for each in (self.folder / _UNFINISHED).glob("*"):
            with contextlib.suppress(FileNotFoundError):  # just finished
                if each != own and now - each.stat().st_ctime > _ABANDONED:
                    each.unlink()


class _Ledger:
    """What all files take together, as a decimal number in an open file; `count` counts where there is none."""

    def __init__(self, descriptor: int, count: Callable[[], int]) -> None:
        self._descriptor = descriptor
        try:
            self.total = int(os.pread(descriptor, 32, 0))
        except ValueError:  # new, or damaged
            self.set(count())

    def add(self, size: int) -> None:
        if size:
            self.set(max(0, self.total + size))

    def set(self, total: int) -> None:
        self.total = total
        os.pwrite(self._descriptor, f"{total:<20d}\n".encode(), 0)

    def touch(self) -> float:
        """Change the time of the file; gives that time, in seconds."""
        os.utime(self._descriptor)
        return os.fstat(self._descriptor).st_mtime


def _build(head: dict[str, Any], packed: bytes) -> bytes:
    described = json.dumps(head, separators=(",", ":")).encode()
    body = len(described).to_bytes(4, "big") + described + packed
    return MAGIC + hashlib.blake2b(body, digest_size=_CHECKSUM).digest() + body


def _parse(content: bytes) -> tuple[Any, memoryview]:
    """Head and packed value of a file.  Raises ValueError unless it is whole."""
    begin = len(MAGIC) + _CHECKSUM
    body = memoryview(content)[begin:]
    checksum = hashlib.blake2b(body, digest_size=_CHECKSUM).digest()
    if len(body) < 4 or content[:begin] != MAGIC + checksum:
        raise ValueError("damaged")
    end = 4 + int.from_bytes(body[:4], "big")
    return json.loads(bytes(body[4:end])), body[end:]


def _tags(path: Path) -> list[str]:
    """Tags of the file at `path`; none if it is gone or damaged, which its next reader finds."""
    begin = len(MAGIC) + _CHECKSUM
    try:
        with path.open("rb") as file:
            start = file.read(begin + 4)
            head = json.loads(file.read(int.from_bytes(start[begin:], "big")))
        return [str(each) for each in head["tags"]]
    except (FileNotFoundError, LookupError, TypeError, ValueError):
        return []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
