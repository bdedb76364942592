"""Measurement Sets as folders: made, and changed, in one step.

A Measurement Set is changed as a twin: a folder beside it with the same files.  Those that will not change are hard
links, so that only what changes is written; when all is on the disk the two folders swap their names.  Who reads
meanwhile goes on in the older one, and a process that is killed leaves either the old or the new state.  Of processes
that change the same Measurement Set each waits for the one before.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from absurd.tasks.artifact import checksum
from absurd.tasks.folder import fill_aside
from absurd.tasks.radio.errors import StageError, ValidationError
from absurd.tasks.said import first_line

_NEW = "new"
_KIND = "Measurement Set"


def size_and_checksum(path: str | os.PathLike[str]) -> tuple[int, str]:
    """Bytes of a Measurement Set, and SHA-256 of the list of its files with theirs, as 64 hexadecimal digits.

    Without files of locks, which change when a table is read.  Two that hold the same values may differ: casacore
    leaves a few bytes unset.  Changes wait until all is read, and this until they are done.
    """
    folder, total, digest = Path(path), 0, hashlib.sha256()
    with _alone(folder):
        for each in sorted(folder.rglob("*")):
            if each.is_file() and each.name != "table.lock":
                total += each.stat().st_size
                digest.update(f"{checksum(each)}  {each.relative_to(folder)}\n".encode())
    return total, digest.hexdigest()


def check_table(folder: Path, kind: str) -> None:
    """Raise ValidationError unless a folder is a casacore table of this kind, as its table.info tells, whole or not.

    For who would put another one in its place.
    """
    try:
        told = (folder / "table.info").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        told = ""
    if not told.startswith(f"Type = {kind}\n"):
        raise ValidationError(
            f"{folder} holds something else, and is not replaced by a {kind}",
            advice="name a folder that is empty or not there",
            path=str(folder),
        )


@contextmanager
def new_measurement_set(path: str | os.PathLike[str], bytes_needed: int) -> Iterator[Path]:
    """Where to make a Measurement Set that takes its place when the block ends; nothing is there yet.

    An older Measurement Set that stands there goes.  Raises ValidationError where a folder holds anything else,
    StageError where there is not room for so many bytes, or casacore cannot write; OSError.
    """
    told = os.fspath(path)
    with _alone(Path(told)), fill_aside(told, check_older=partial(check_table, kind=_KIND)) as aside:
        _check_room(aside, bytes_needed)
        folder = aside / _NEW  # casacore makes folders itself, and `aside` is locked
        try:
            yield folder
        except RuntimeError as error:
            raise StageError(f"{told} cannot be written: {first_line(error)}", path=told) from error
        for each in list(folder.iterdir()):
            each.rename(aside / each.name)
        folder.rmdir()


@contextmanager
def twin(path: str | os.PathLike[str], plan: Callable[[], tuple[Callable[[str], bool], int]]) -> Iterator[Path]:
    """A folder with the same files, to be changed, that takes the place of `path` when the block ends.

    `plan` is asked, once nobody else changes the folder, which files of the main table are shared, by their names, and
    how many bytes will be added.  Files that are shared must not be changed: they are the same in both.  Raises
    StageError where there is not room for the others and so many bytes, or casacore cannot write; OSError.
    """
    told = os.fspath(path)
    with _alone(Path(told)):
        is_shared, bytes_needed = plan()
        with _copied(told, is_shared, bytes_needed) as aside:
            try:
                yield aside
            except RuntimeError as error:
                raise StageError(f"{told} cannot be written: {first_line(error)}", path=told) from error


@contextmanager
def _copied(told: str, is_shared: Callable[[str], bool], bytes_needed: int) -> Iterator[Path]:
    with fill_aside(told, check_older=_all_of_it_is_copied) as aside:
        source = Path(os.path.realpath(told))
        copied = [each for each in source.rglob("*") if each.is_file() and not _is_link(each, source, is_shared)]
        _check_room(aside, bytes_needed + sum(each.stat().st_size for each in copied))
        for place, folders, names in os.walk(source):
            here = aside / Path(place).relative_to(source)
            here.mkdir(exist_ok=True)
            for name in folders:
                if (linked := Path(place, name)).is_symlink():  # a table that lies elsewhere
                    (here / name).symlink_to(linked.readlink())
            for name in names:
                _give(Path(place, name), here / name, share=_is_link(Path(place, name), source, is_shared))
        yield aside


def _all_of_it_is_copied(_folder: Path) -> None:
    """Whatever it is, nothing of it is lost."""


def _is_link(file: Path, source: Path, is_shared: Callable[[str], bool]) -> bool:
    return file.parent == source and is_shared(file.name)


def _give(old: Path, new: Path, *, share: bool) -> None:
    if share:
        with suppress(OSError):  # a file system without hard links
            os.link(old, new)
            return
    shutil.copy2(old, new)  # with its time: that of a table which nobody changes tells when the set was made


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until nobody else changes the Measurement Set that is there, and keep others from it.

    Where file systems have no locks, nobody is kept from it.
    """
    descriptor = None
    try:
        while descriptor is None:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                break
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_there(descriptor, path):  # it was replaced while this one waited
                os.close(descriptor)
                descriptor = None
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _is_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _check_room(folder: Path, bytes_needed: int) -> None:
    """Raise StageError where a disk has not so much room: casacore ends the process where it is full."""
    free = shutil.disk_usage(folder).free
    if free < bytes_needed:
        raise StageError(
            f"{folder.parent} has room for {free / 1e9:.3g} GB, and {bytes_needed / 1e9:.3g} GB are needed",
            advice="make room, or write elsewhere",
            free=free,
            needed=bytes_needed,
        )
