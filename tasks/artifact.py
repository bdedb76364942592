"""Files that are whole or absent: written aside, flushed to the disk, renamed into place."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHUNK = 1 << 20


@contextmanager
def write_aside(path: str | os.PathLike[str], *, private: bool = False) -> Iterator[Path]:
    """Give a path to write to, and put what was written there under `path` when the block ends.

    The file takes its final name in one step, after its bytes have reached the disk; an existing file is
    replaced.  When the block raises, nothing changes under the final name and the unfinished file goes.
    What a killed process on this machine left is removed by the next one that writes the same file.
    Missing folders are made.  A `private` path is one that nobody else reads until its owner renames it, as
    ``ctx.artifact`` gives; it is written as it is, and removed when the block raises.

    Raises OSError; FileNotFoundError if the block ends without having written.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    if private:
        part = final
    else:
        _sweep(final)
        part = final.with_name(f".{final.name}.{_host()}.{os.getpid()}.part")
    try:
        yield part
        _sync(part)
        if part != final:
            part.replace(final)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync(final.parent)


def checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits; reads it in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Make what is written to a file, or to the list of a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(final: Path) -> None:
    """Remove the unfinished files of `final` whose writers, on this machine, are dead.

    A process of another machine may be alive behind a shared file system, so its files stay.
    """
    prefix, suffix = f".{final.name}.{_host()}.", ".part"
    for each in final.parent.iterdir():
        if each.name.startswith(prefix) and each.name.endswith(suffix):
            pid = each.name[len(prefix) : -len(suffix)]
            if pid.isdecimal() and not _is_alive(int(pid)):
                each.unlink(missing_ok=True)


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
