"""Files that are whole or absent: written aside, flushed to the disk, renamed into place."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHUNK = 1 << 20


@contextmanager
def write_aside(
    path: str | os.PathLike[str], *, private: bool = False, unfinished: str | os.PathLike[str] | None = None
) -> Iterator[Path]:
    """Give a path to write to, and put what was written there under `path` when the block ends.

    The file takes its final name in one step, after its bytes have reached the disk; an existing file is
    replaced.  When the block raises, nothing changes under the final name and the unfinished file goes.
    What a killed process on this machine left is removed by the next one that writes the same file.
    Missing folders are made.  A `private` path is one that nobody else reads until its owner renames it, as
    ``ctx.artifact`` gives; it is written as it is, and removed when the block raises.  With `unfinished`, what was
    written when the block raises is kept under that name instead, in the same file system.

    Raises OSError; FileNotFoundError if the block ends without having written.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    if private:
        part = final
    else:
        for left in dead_writers(final, "part"):
            remove(left)
        part = final.with_name(own_name(final.name, "part"))
    try:
        yield part
        sync(part)
        if part != final:
            part.replace(final)
    except BaseException:
        if unfinished is not None and part.is_file():
            part.replace(unfinished)
        part.unlink(missing_ok=True)
        raise
    sync(final.parent)


def checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits; reads it in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


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
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


def own_name(name: str, suffix: str) -> str:
    """The name beside `name` that is this process's own: hidden, with the machine and the process in it."""
    return f".{name}.{_host()}.{os.getpid()}.{suffix}"


def is_left(entry: str, name: str, suffix: str) -> bool:
    """Whether `entry` is the `own_name` of a process of this machine that is dead.

    A process of another machine may be alive behind a shared file system, so its files stay.
    """
    before, after = f".{name}.{_host()}.", f".{suffix}"
    if not entry.startswith(before) or not entry.endswith(after):
        return False
    pid = entry[len(before) : -len(after)]
    return pid.isdecimal() and not _is_alive(int(pid))


def dead_writers(final: Path, suffix: str) -> list[Path]:
    """What dead processes left beside `final`."""
    return [each for each in final.parent.iterdir() if is_left(each.name, final.name, suffix)]


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
