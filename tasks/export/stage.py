"""What an export writes into until it is whole: a local file, or the folder of a dataset, under another name."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from absurd.tasks.artifact import file_at, naming, remove, send_to_disk, sync, take_after, write_aside
from absurd.tasks.export.destination import is_address, located, place_of, place_to_write
from absurd.tasks.export.errors import ExportConfigError, ManifestError
from absurd.tasks.export.manifest import IN_FOLDER, SUFFIX, names_in, read_manifest
from absurd.tasks.folder import fill_aside, folder_at

_BUFFER = 1 << 16
"""Bytes of a file's buffer: for the headers of pages; pages themselves are longer, and go past it uncopied."""
_EARLY_BYTES = 16 << 20
"""After so many bytes the system is told to begin writing them to disk."""


class Stage(Protocol):
    """Takes the files of an export; they appear under their names when its context is left without an error."""

    open_files: int
    """How many may be open at a time: each has its buffers."""

    def create(self, name: str) -> Any:
        """A new binary file to write to, and to close; of a dataset by its path in the folder."""
        ...

    def conclude(self, manifest: bytes) -> None:
        """Take the manifest; all files are closed."""
        ...

    def spoil(self) -> None:
        """Remove what was written: it may be torn, and is not to be kept as unfinished."""
        ...


def staged(
    out: str | os.PathLike[str],
    *,
    is_dataset: bool,
    private: bool = False,
    manifest: bool = True,
    unfinished: str | os.PathLike[str] | None = None,
) -> AbstractContextManager[Stage]:
    """The stage for an export to a path or address.

    A `private` path is written as it is, without a manifest.  With `unfinished`, what there is when the context is
    left with an error is kept under that name.  An export replaces an earlier one as a whole; it refuses to replace
    a folder that holds anything else, also by what it keeps.

    Raises ExportConfigError, OSError.
    """
    place = place_to_write(os.fspath(out))
    kept = None if unfinished is None else place_of(os.fspath(unfinished))
    if kept is not None:
        _check_kept(kept)
    if is_address(place):
        from absurd.tasks.export.store import store_stage

        return store_stage(place, is_dataset=is_dataset, manifest=manifest, unfinished=kept)
    if is_dataset:
        return _folder(place, kept)
    return _file(place, private=private, manifest=manifest, unfinished=kept)


def discard(unfinished: str | os.PathLike[str] | None) -> None:
    """Remove what was kept of an export that failed, if anything was."""
    if unfinished is None:
        return
    place = place_of(os.fspath(unfinished))
    if is_address(place):
        from absurd.tasks.export.store import remove_there

        remove_there(*located(place))
    else:
        remove(place)


def check_replaced(shown: str, present: set[str], known: set[str]) -> None:
    """Raise ExportConfigError where a dataset would replace a folder that holds what no export has written."""
    strange = present - known
    if strange:
        raise ExportConfigError(
            f"{shown} holds {min(strange)}, which is not of an export that this one may replace: "
            "export to another folder, or empty that one",
            out=shown,
        )


def _check_kept(kept: str) -> None:
    """Raise ExportConfigError where a folder has the name for what is unfinished, and holds more than that may have."""
    from pyarrow import fs

    files, path = located(kept)
    if files.get_file_info(path).type == fs.FileType.Directory:
        present = names_in(files, path)
        check_replaced(kept, present, {each for each in present if each.endswith(".parquet")})


class EarlyFile(io.FileIO):
    """A new file that is on its way to the disk while more of it is written: a sync at its end waits for little.

    Left alone, Linux keeps what is written in memory until a tenth of that is full.
    """

    _told = 0

    def write(self, data: Any) -> int:
        """Write, and maybe not all, as files do."""
        written = super().write(data)
        behind = self.tell() - self._told
        if behind >= _EARLY_BYTES:
            send_to_disk(self.fileno(), self._told, behind)
            self._told += behind
        return written


def _through_no_link(path: str, flags: int) -> int:
    """To open a file by: one that is to be new may be a link that somebody else has put there."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


class _FileStage:
    open_files = 1

    def __init__(self, data: Path, manifest: Path | None) -> None:
        self._data = data
        self._manifest = manifest

    def create(self, name: str) -> Any:
        del name
        return io.BufferedWriter(EarlyFile(self._data, "w", opener=_through_no_link), _BUFFER)

    def conclude(self, manifest: bytes) -> None:
        if self._manifest is not None:
            self._manifest.write_bytes(manifest)

    def spoil(self) -> None:
        self._data.unlink(missing_ok=True)


class _FolderStage:
    open_files = 64

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, name: str) -> Any:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return io.BufferedWriter(EarlyFile(path, "x"), _BUFFER)

    def conclude(self, manifest: bytes) -> None:
        (self._folder / IN_FOLDER).write_bytes(manifest)

    def spoil(self) -> None:
        for each in self._folder.iterdir():
            remove(each)


@contextmanager
def _file(out: str, *, private: bool, manifest: bool, unfinished: str | None) -> Iterator[Stage]:
    path = Path(out) if private else file_to_write(out)
    beside = file_to_write(f"{path}{SUFFIX}")
    with ExitStack() as stack:
        # left in reverse: the file gets its name before its manifest does, and no other export does meanwhile
        names = stack.enter_context(ExitStack())
        described = stack.enter_context(write_aside(beside)) if manifest and not private else None
        data = stack.enter_context(write_aside(path, private=private, unfinished=unfinished))
        yield _FileStage(data, described)
        if not private:
            sync(data)  # which takes the longest
            names.enter_context(naming(path.parent))
            if described is not None:
                take_after(beside, described)
            beside.unlink(missing_ok=True)  # that of an earlier file must not be taken for this one's


def file_to_write(out: str) -> Path:
    """The path of a file to write: `out`, or what it points to as a symbolic link.

    Raises ExportConfigError where a folder, a device or a pipe is in the way; OSError.
    """
    try:
        return file_at(out)
    except IsADirectoryError:
        raise ExportConfigError(f"{out} is a folder; a file is to be written: give it another name", out=out) from None
    except FileExistsError:
        raise ExportConfigError(
            f"{out} is a device or a pipe, which no file can replace: give the file another name", out=out
        ) from None


@contextmanager
def _folder(out: str, unfinished: str | None) -> Iterator[Stage]:
    try:
        path = folder_at(out)
    except FileExistsError:
        what = "file" if os.path.isfile(out) else "device or a pipe"
        raise ExportConfigError(f"{out} is a {what}; a dataset is a folder: give it another name", out=out) from None
    with fill_aside(path, check_older=_check_folder, unfinished=unfinished) as aside:
        yield _FolderStage(aside)


def _check_folder(path: Path) -> None:
    from pyarrow import fs

    present = names_in(fs.LocalFileSystem(), str(path))
    try:
        known = {each.path for each in read_manifest(path / IN_FOLDER).files} | {IN_FOLDER} if present else set()
    except ManifestError:
        known = set()
    check_replaced(str(path), present, known)
