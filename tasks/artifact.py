"""Files that are whole or absent: written aside, flushed to the disk, renamed into place."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK = 1 << 20
_OWNER = re.compile(r"([0-9]+)(?:\.([0-9a-f]{16}))?")


@contextmanager
def write_aside(
    path: str | os.PathLike[str], *, private: bool = False, unfinished: str | os.PathLike[str] | None = None
) -> Iterator[Path]:
    """Give a path to write to, and put what was written there under `path` when the block ends.

    The file takes its final name in one step, after its bytes have reached the disk; an existing file is
    replaced, and its mode, owner and group stay as far as this user may give them.  A symbolic link stays: what it
    points to is written.  When the block raises, nothing changes under the final name and the unfinished file goes.
    What a killed process on this machine left is removed by the next one that writes the same file.
    Missing folders are made.  The path given is an empty file: whoever writes must open it, and not replace it.  A
    `private` path is one that nobody else reads until its owner renames it, as ``ctx.artifact`` gives; it is written as
    it is, and removed when the block raises.  With `unfinished`, what was written when the block raises is kept under
    that name instead, in the same file system.

    Raises OSError; FileExistsError or IsADirectoryError for a path that is no regular file; FileNotFoundError if the
    block ends without having written.
    """
    if private:
        with _removed_on_error(Path(path), unfinished):
            yield Path(path)
            sync(Path(path))
        sync(Path(path).parent)
        return
    final = file_at(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    for left in left_behind(final, "part"):
        remove(left)
    with own_place(final, "part") as part, _removed_on_error(part, unfinished):
        take_after(final, part, least=0o600)
        os.utime(part, ns=(0, 0))  # which the first opening for writing changes
        yield part
        if not _is_written(part):
            raise FileNotFoundError(errno.ENOENT, "nothing was written", str(final))
        sync(part)
        file_at(final)
        take_after(final, part)
        part.replace(final)
    sync(final.parent)


@contextmanager
def _removed_on_error(part: Path, unfinished: str | os.PathLike[str] | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if unfinished is not None and part.is_file() and part.stat().st_size:
            part.replace(unfinished)
        part.unlink(missing_ok=True)
        raise


def _is_written(part: Path) -> bool:
    told = part.stat()
    return bool(told.st_size or told.st_mtime_ns)


def file_at(path: str | os.PathLike[str]) -> Path:
    """Where a file lies that is written to `path`: there, or where a symbolic link points.

    Raises IsADirectoryError for a folder, FileExistsError for a device, a pipe and the like, OSError.
    """
    try:
        mode = os.stat(path).st_mode  # through links, those of /dev/fd too, which lead to no path
    except FileNotFoundError:
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder is in the way", os.fspath(path))
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "a device or pipe is in the way, which no file can replace", str(path))
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


def take_after(older: Path, newer: Path, *, least: int = 0) -> None:
    """Give a file or folder the mode, owner and group of the one that it will replace, where there is one.

    What this user may not give stays; nobody may read more than before then.  The mode has the bits of `least` beside.
    """
    try:
        told = older.stat()
    except FileNotFoundError:
        return
    own = newer.stat()
    if (own.st_uid, own.st_gid) != (told.st_uid, told.st_gid):
        for owner, group in ((told.st_uid, told.st_gid), (-1, told.st_gid)):
            with suppress(PermissionError):
                os.chown(newer, owner, group)
                break
        own = newer.stat()
    mode = told.st_mode & 0o777
    if own.st_gid != told.st_gid:  # another group may do what all others may
        mode = mode & ~0o070 | (mode & 0o007) << 3
    newer.chmod(mode | least)


def checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits; reads it in pieces of 256 KiB."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make what is written to a file, or to the list of a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def send_to_disk(file: int, start: int, length: int) -> None:
    """Have the system begin to write some bytes of an open file to the disk, without waiting for it.

    Linux does so with what it is told is not needed, and keeps that while it is not on the disk yet.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, start, length, os.POSIX_FADV_DONTNEED)


def remove(path: str | os.PathLike[str]) -> None:
    """Remove a file, or a folder with all in it; one that is not there does no harm."""
    if os.path.isdir(path) and not os.path.islink(path):
        with suppress(FileNotFoundError):  # another process removes it too
            shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Hold off others who give names in a folder, in several steps that belong together.

    Where the file system has no locks for folders, as NFS, nobody is held off.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process that was forked meanwhile has the descriptor too
        os.close(descriptor)


@contextmanager
def own_place(final: Path, suffix: str, *, is_folder: bool = False) -> Iterator[Path]:
    """A new empty file or folder beside `final`, which nobody takes for left behind while the block runs.

    Nobody can know its name beforehand.  Raises OSError.
    """
    descriptor = None
    while descriptor is None:
        path = final.with_name(own_name(final.name, suffix))
        if is_folder:
            path.mkdir()
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        if not (_lock(descriptor) is not False and path.exists()):  # taken for left behind before it was locked
            os.close(descriptor)
            descriptor = None
    try:
        yield path
    finally:
        os.close(descriptor)


def own_name(name: str, suffix: str) -> str:
    """A new name beside `name`: hidden, with the machine, the process and something random in it."""
    return f".{name}.{_host()}.{os.getpid()}.{secrets.token_hex(8)}.{suffix}"


def is_left(entry: str, name: str, suffix: str) -> bool:
    """Whether `entry` is the `own_name` of a process of this machine that is dead, as its number tells.

    A process of another machine may be alive behind a shared file system, so its files stay.
    """
    owner = _owner(entry, name, suffix)
    return owner is not None and not _is_alive(owner[0])


def left_behind(final: Path, suffix: str) -> Iterator[Path]:
    """What dead processes left beside `final`; each to be dealt with before the next one is asked for.

    A lock tells whether somebody is at work: numbers of processes are not unique where containers share a
    folder and the name of their host.  Only where there are no locks, the number tells.
    """
    for each in list(final.parent.iterdir()):
        owner = _owner(each.name, final.name, suffix)
        if owner is None:
            continue
        held: bool | None = None
        descriptor = _opened(each) if owner[1] else None
        try:
            if descriptor is not None:
                held = _lock(descriptor)
            if held or (held is None and not _is_alive(owner[0])):
                yield each
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _owner(entry: str, name: str, suffix: str) -> tuple[int, str] | None:
    """The number of the process, and what is random, in an `own_name`; None if it is none of this machine.

    Names of older versions have nothing random in them, and no lock.
    """
    before, after = f".{name}.{_host()}.", f".{suffix}"
    if not entry.startswith(before) or not entry.endswith(after):
        return None
    found = _OWNER.fullmatch(entry[len(before) : -len(after)])
    return None if found is None else (int(found[1]), found[2] or "")


def _opened(path: Path) -> int | None:
    """A descriptor to lock a file or folder by; None where it cannot be had."""
    for flags in (os.O_RDWR, os.O_RDONLY | os.O_DIRECTORY):
        with suppress(OSError):
            return os.open(path, flags | os.O_NOFOLLOW)
    return None


def _lock(descriptor: int) -> bool | None:
    """Whether the lock is held now; None where the file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is alive, and another user's
        return True
    return True


def _host() -> str:
    return socket.gethostname().partition(".")[0] or "localhost"
