"""Where the file of an artifact lies, and what it may be put in the place of."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

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
