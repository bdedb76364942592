"""Retention of files: what is old under a folder goes, if its name is of the form that was given.

Nothing but names and ages decides.  So the ways to lose something by a slip are shut: a folder near the root, at or
above a home or around the queue's own data, a pattern that begins with a dot or holds a folder.
"""

from __future__ import annotations

import fnmatch
import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from absurd.tasks.maintenance.errors import UnsafeFolderError

SHOWN = 100
"""Paths that are named."""
SERVER = "PG_VERSION"
"""A file that lies in the folders of a PostgreSQL server's data: they are passed over."""
DEPTH = 2
"""Steps below the root that a folder must lie: those right below it belong to the system."""


@dataclass(slots=True)
class Pruned:
    """What went, or would go."""

    files: int = 0
    bytes: int = 0
    paths: list[str] = field(default_factory=list)
    """The first hundred."""


def prune_files(
    folder: str | os.PathLike[str],
    pattern: str,
    older_than: float,
    *,
    guarded: Iterable[Path] = (),
    dry_run: bool = False,
    told: Callable[[Pruned], None] | None = None,
) -> Pruned:
    """Delete the files below `folder` whose name fits `pattern`, last written more than `older_than` seconds ago.

    The pattern is one for names, such as ``*.png``, whatever folder below they lie in.  Links are neither followed
    nor deleted, hidden files and folders not looked at (unfinished artifacts are hidden), nor the data of
    PostgreSQL servers; folders stay.  What cannot be deleted raises.  `told` is called after each folder.

    Raises
    ------
    UnsafeFolderError
        The folder is not absolute, too near the root, a home or above one, or it holds or lies in one of the folders
        `guarded`; or the pattern could mean hidden files or names a folder.
    NotADirectoryError
        It is no folder.
    """
    top = _checked(folder, guarded)
    if "/" in pattern or pattern.startswith("."):
        raise UnsafeFolderError(f"the pattern {pattern!r} must be one for names, such as '*.png', and not hidden ones")
    before = time.time() - older_than
    pruned = Pruned()
    # By descriptors: a folder that is swapped for a link meanwhile leads nowhere else.
    for place, folders, names, descriptor in os.fwalk(top, follow_symlinks=False, onerror=_raise):
        if SERVER in names:
            folders.clear()
            continue
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or not fnmatch.fnmatchcase(name, pattern):
                continue
            with suppress(FileNotFoundError):  # somebody else was faster
                about = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if not stat.S_ISREG(about.st_mode) or about.st_mtime >= before:
                    continue
                if not dry_run:
                    os.unlink(name, dir_fd=descriptor)
                pruned.files += 1
                pruned.bytes += about.st_size
                if len(pruned.paths) < SHOWN:
                    pruned.paths.append(os.path.join(place, name))
        if told is not None:
            told(pruned)
    return pruned


def _checked(folder: str | os.PathLike[str], guarded: Iterable[Path]) -> Path:
    given = Path(folder)
    if not given.is_absolute():
        raise UnsafeFolderError(f"the folder {str(given)!r} is not absolute: name it from the root on")
    top = given.resolve()
    if not top.is_dir():
        raise NotADirectoryError(f"{given} is not a folder on this machine")
    home = Path(os.path.expanduser("~")).resolve()
    if len(top.parts) <= DEPTH or home.is_relative_to(top):
        raise UnsafeFolderError(f"files are not pruned in {top}: it is too near the root, or a home; name one below")
    for each in guarded:
        own = each.resolve()
        if own.is_relative_to(top) or top.is_relative_to(own):
            raise UnsafeFolderError(f"files are not pruned in {top}: the queue's own files in {own} could go")
    return top


def _raise(error: OSError) -> None:
    raise error
