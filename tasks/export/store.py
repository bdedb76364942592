"""Exports to file systems that one has by an address: written under another name, then moved.

An object of a store appears when its stream is closed, and pyarrow offers no way to give up a stream without closing
it: half a file would get the name that the stream was opened for.  So all is written under a hidden name first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from absurd.tasks.artifact import is_left, own_name
from absurd.tasks.export.destination import filesystem_of, located
from absurd.tasks.export.errors import ExportConfigError, ManifestError
from absurd.tasks.export.manifest import IN_FOLDER, SUFFIX, names_in, read_manifest
from absurd.tasks.export.stage import Stage, check_replaced

UNDER_WAY = "_replacing.json"
"""In a dataset while its files are being replaced: what may lie there, whoever looks after a crash."""
_FLAT = ("s3", "gcs", "abfs")
"""pyarrow's file systems without folders: to make one would make an object."""


class _StoreStage:
    open_files = 8
    """The stream of an object holds some 10 MiB."""

    def __init__(self, files: Any, path: str, *, is_dataset: bool) -> None:
        self.manifest = b""
        self.names: list[str] = []
        self._files = files
        self._path = path
        self._is_dataset = is_dataset

    def create(self, name: str) -> Any:
        self.names.append(name)
        return _create(self._files, f"{self._path}/{name}" if self._is_dataset else self._path)

    def conclude(self, manifest: bytes) -> None:
        self.manifest = manifest

    def spoil(self) -> None:
        self.names.clear()  # so that none is kept; all goes with the hidden name


@contextmanager
def store_stage(address: str, *, is_dataset: bool, manifest: bool, unfinished: str | None) -> Iterator[Stage]:
    """A stage for an export to an address; see `absurd.tasks.export.stage.staged`.

    A file replaces an older one in one step, if the store moves in one, as object stores do.  No store replaces all
    files of a dataset in one step: they are moved one by one, without a manifest for as long as that takes.
    """
    files, path = filesystem_of(address)
    folder, _, name = path.rpartition("/")
    aside = f"{folder}/{own_name(name, 'part')}" if folder or path.startswith("/") else own_name(name, "part")
    _sweep(files, folder, name)
    if is_dataset:
        _check(files, path, address)
    stage = _StoreStage(files, aside, is_dataset=is_dataset)
    try:
        yield stage
        if is_dataset:
            _check(files, path, address)
            _publish_dataset(files, aside, path, stage)
        else:
            _publish_file(files, aside, path, stage.manifest if manifest else None)
    except BaseException:
        if unfinished is not None:
            _keep(files, aside, located(unfinished)[1], stage, is_dataset=is_dataset)
        raise
    finally:
        remove_there(files, aside)


def _publish_file(files: Any, aside: str, path: str, manifest: bytes | None) -> None:
    _delete(files, path + SUFFIX)  # that of an earlier file must not be taken for this one's
    _move(files, aside, path)
    if manifest is not None:
        _write(files, path + SUFFIX, manifest)


def _publish_dataset(files: Any, aside: str, path: str, stage: _StoreStage) -> None:
    older = names_in(files, path) - {UNDER_WAY}
    marked = json.dumps({"files": sorted({*older, *stage.names, IN_FOLDER})}).encode()
    _write(files, f"{path}/{UNDER_WAY}", marked)
    for name in sorted(older, key=lambda name: (name != IN_FOLDER, name)):  # no manifest may tell of what is gone
        _delete(files, f"{path}/{name}")
    for name in stage.names:
        _move(files, f"{aside}/{name}", f"{path}/{name}")
    _write(files, f"{path}/{IN_FOLDER}", stage.manifest)
    _delete(files, f"{path}/{UNDER_WAY}")


def _check(files: Any, path: str, address: str) -> None:
    """Raise ExportConfigError where the folder holds what no export has written."""
    present = names_in(files, path)
    known = {IN_FOLDER, UNDER_WAY} & present
    if UNDER_WAY in present:
        with files.open_input_stream(f"{path}/{UNDER_WAY}") as file, suppress(ValueError, KeyError, TypeError):
            known |= set(json.loads(file.read())["files"])
    if IN_FOLDER in present:
        with suppress(ManifestError):
            known |= {each.path for each in read_manifest(address).files}
    check_replaced(address, present, known)


def _keep(files: Any, aside: str, path: str, stage: _StoreStage, *, is_dataset: bool) -> None:
    remove_there(files, path)
    for name in stage.names:
        one, other = (f"{aside}/{name}", f"{path}/{name}") if is_dataset else (aside, path)
        if files.get_file_info(one).is_file:
            _move(files, one, other)


def _sweep(files: Any, folder: str, name: str) -> None:
    """Remove what killed processes of this machine left beside the target."""
    from pyarrow import fs

    for entry in files.get_file_info(fs.FileSelector(folder or "/", allow_not_found=True)):
        if is_left(entry.base_name, name, "part"):
            remove_there(files, entry.path)


def _create(files: Any, path: str) -> Any:
    folder = path.rpartition("/")[0]
    if folder and files.type_name not in _FLAT:
        files.create_dir(folder, recursive=True)
    try:
        return files.open_output_stream(path)
    except NotImplementedError:
        raise ExportConfigError(f"{path} cannot be written: {files.type_name} is only to be read", out=path) from None


def _write(files: Any, path: str, data: bytes) -> None:
    with _create(files, path) as file:
        file.write(data)


def _move(files: Any, path: str, to: str) -> None:
    folder = to.rpartition("/")[0]
    if folder and files.type_name not in _FLAT:
        files.create_dir(folder, recursive=True)
    try:
        files.move(path, to)
    except NotImplementedError:  # as Azure without a hierarchy
        files.copy_file(path, to)
        files.delete_file(path)


def _delete(files: Any, path: str) -> None:
    with suppress(FileNotFoundError):
        files.delete_file(path)


def remove_there(files: Any, path: str) -> None:
    """Remove a file, or a folder with all in it; one that is not there does no harm."""
    info = files.get_file_info(path)
    with suppress(FileNotFoundError):
        if info.is_file:
            files.delete_file(path)
        elif str(info.type) != "FileType.NotFound":
            files.delete_dir(path)
