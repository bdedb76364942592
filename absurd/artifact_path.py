"""Where the file of an artifact lies, and what it may be put in the place of."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from uuid import UUID

from absurd.errors import InvalidNameError


def artifact_path(path: str | os.PathLike[str]) -> str:
    """The absolute path of the file that an artifact will be: of a symbolic link, what it points to.

    Raises InvalidNameError for a path that cannot be stored; IsADirectoryError for a folder, FileExistsError for a
    device or a pipe, none of which a file may take the place of.
    """
    final = os.path.abspath(os.fspath(path))
    if not final.isprintable():  # it has to be stored, and read
        raise InvalidNameError(f"artifact path {final!r} has characters that cannot be printed", name=final)
    if os.path.isdir(final):
        raise IsADirectoryError(f"artifact {final} is a folder; an artifact is a file")
    if os.path.exists(final) and not os.path.isfile(final):
        raise FileExistsError(f"artifact {final} is a device or a pipe, which no file can replace")
    return os.path.realpath(final) if os.path.islink(final) else final


def attempt_path(final: str, task_id: UUID, attempt: int, lease: int) -> str:
    """The hidden name beside `final` under which an attempt writes it, in a folder that is made if need be.

    What earlier attempts left there that were killed with their worker is removed.
    """
    folder, name = os.path.split(final)
    os.makedirs(folder, exist_ok=True)
    task = f".{task_id.hex[-12:]}-"
    own = f"{task}{attempt}-{lease:x}.part."
    if attempt > 1:
        for each in os.listdir(folder):
            if each.startswith(task) and each.endswith(f".part.{name}") and not each.startswith(own):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, each))
    return os.path.join(folder, own + _tail(name, 255 - len(own)))


def _tail(name: str, size: int) -> str:
    """The end of a file name, in `size` bytes at most."""
    return name.encode()[-size:].decode(errors="ignore")


def keep_rights(older: str, newer: str) -> None:
    """Give a file the owner, group and mode of the one it will replace, as far as this user may; if there is one.

    Where the group cannot be given, another one gets no more than all others have.
    """
    try:
        told = os.stat(older)
    except FileNotFoundError:
        return
    with suppress(PermissionError):
        os.chown(newer, told.st_uid, told.st_gid)
    mode = stat.S_IMODE(told.st_mode)
    if os.stat(newer).st_gid != told.st_gid:
        mode = mode & ~0o070 | (mode & 0o007) << 3
    with suppress(PermissionError):
        os.chmod(newer, mode)
