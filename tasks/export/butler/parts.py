"""Datasets that are done already: a folder beside the file, from which an extraction that was killed goes on."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from absurd.errors import ConflictError

_PLAN = "plan"
_LOCK = "lock"


class Parts:
    """A table for each dataset, by number, of one plan.  Iterating over runs of one plan gives the same bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.found = 0
        """How many tables an earlier run had left."""

    def load(self, number: int) -> Any:
        """The table of a dataset as it was kept, in one chunk; None if there is none that is whole."""
        try:
            with pa.memory_map(str(self._path(number))) as file:
                return pa.ipc.open_file(file).read_all().combine_chunks()
        except (FileNotFoundError, pa.ArrowInvalid):  # or cut short by a loss of power
            return None

    def save(self, number: int, table: Any) -> None:
        """Keep the table of a dataset."""
        path = self._path(number)
        aside = path.with_suffix(".unfinished")
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_file(file, table.schema, options=options) as writer:
            writer.write_table(table)
        aside.replace(path)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:07d}.arrow"


@contextmanager
def kept_parts(folder: Path, plan: str) -> Iterator[Parts]:
    """The parts in a folder of their own, which goes when the block ends well; those of another plan go at once.

    Raises ConflictError while another process is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"another process extracts the same file: it is at work in {folder}", folder=str(folder)
            ) from None
        parts = Parts(folder)
        kept = folder / _PLAN
        if kept.is_file() and kept.read_text(encoding="utf-8") == plan:
            parts.found = sum(each.suffix == ".arrow" for each in folder.iterdir())
        else:
            for each in folder.iterdir():
                if each.name != _LOCK:
                    each.unlink()
            kept.write_text(plan, encoding="utf-8")
        yield parts
        shutil.rmtree(folder)
    finally:
        with suppress(OSError):
            os.close(descriptor)
