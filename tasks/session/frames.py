"""Arrays of a session: each one an ASDF file with one block, written as it arrives."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absurd.tasks.artifact import sync
from absurd.tasks.session.asdf_form import BLOCK_HEAD, array_text, block_head, document
from absurd.tasks.session.errors import SessionValueError

if TYPE_CHECKING:
    import numpy as np

    from absurd.tasks.session.compression import Compression

DATATYPES = frozenset(
    ["bool8", "complex64", "complex128", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)


@dataclass(frozen=True, slots=True)
class Stored:
    """An array as the journal tells of it."""

    file: str
    shape: list[int]
    datatype: str
    byteorder: str
    md5: str
    """Of its bytes, as 32 hexadecimal digits."""
    start: int
    """Where its bytes begin in the file."""
    bytes: int


def check(array: Any, name: str) -> np.ndarray[Any, Any]:
    """An array as one piece of memory, of a type that ASDF has.  Raises SessionValueError."""
    import numpy as np

    if np.ma.isMaskedArray(array) or hasattr(array, "unit"):
        raise SessionValueError(f"{name} has a mask or a unit, which would be lost: give its bare values", name=name)
    try:
        made = np.ascontiguousarray(array)
    except (TypeError, ValueError) as error:
        raise SessionValueError(f"{name} is no array: {error}", name=name) from error
    if _datatype(made.dtype) not in DATATYPES:
        raise SessionValueError(f"{name} is an array of {made.dtype}, which ASDF has no type for", name=name)
    if made.size == 0 or np.ndim(array) == 0:
        raise SessionValueError(f"{name} is an array of shape {np.shape(array)}, which holds nothing", name=name)
    return made


def store(folder: Path, name: str, array: np.ndarray[Any, Any], facts: dict[str, Any]) -> Stored:
    """Write an array that was checked under ``<name>.asdf``, to stay whatever happens once this returns.

    `facts` stand in the file beside it.  Raises OSError; then nothing is there under that name.
    """
    data = memoryview(array.data).cast("B")
    told = Stored(
        file=f"{name}.asdf",
        shape=list(array.shape),
        datatype=_datatype(array.dtype),
        byteorder=_byteorder(array.dtype),
        md5="",
        start=0,
        bytes=len(data),
    )
    head = frame_head(told, facts)
    digest = hashlib.md5(usedforsecurity=False)
    counting = threading.Thread(target=digest.update, args=(data,))  # while the disk is at work
    counting.start()
    try:
        _store(folder, told.file, head + block_head(len(data), len(data), bytes(16)), data, counting, digest)
    finally:
        counting.join()
    return replace(told, md5=digest.hexdigest(), start=len(head) + BLOCK_HEAD)


def _store(folder: Path, name: str, head: bytes, data: memoryview, counting: threading.Thread, digest: Any) -> None:
    part = folder / f".{name}.part"
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        _write(file, memoryview(head), 0)
        _write(file, data, len(head))
        part.rename(folder / name)  # before it is on the disk: the journal tells which frames count, and is told last
        os.fsync(file)
        sync(folder)
        counting.join()
        # Whether this is on the disk before a power cut matters not: without it the block has no checksum, and the
        # journal has.
        _write(file, memoryview(digest.digest()), len(head) - 16)
    except OSError:
        part.unlink(missing_ok=True)
        (folder / name).unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def store_compressed(source: Path, target: Path, told: Stored, facts: dict[str, Any], compression: Compression) -> None:
    """Write the array of one frame's file as another file, compressed.  Raises OSError."""
    data = compression.compress(read(source, told))
    head = frame_head(told, facts)
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    with target.open("wb") as file:
        file.write(head + block_head(len(data), told.bytes, digest, compression.label))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def facts_of(session_id: str, told: dict[str, Any]) -> dict[str, Any]:
    """What stands in a frame's file beside the frame, of what the journal tells of it."""
    names = ("camera", "calibration", "time", "exposure_us", "settings")
    return {"session_id": session_id, **{name: told[name] for name in names if name in told}, **told["fields"]}


def frame_head(told: Stored, facts: dict[str, Any]) -> bytes:
    """What stands in a frame's file before its block."""
    return document({"frame": array_text(told, 0)}, facts)


def read(source: Path, told: Stored) -> bytes:
    """The bytes of an array as it arrived.  Raises OSError."""
    with source.open("rb") as file:
        file.seek(told.start)
        return file.read(told.bytes)


def _write(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def _datatype(dtype: np.dtype[Any]) -> str:
    return "bool8" if dtype.kind == "b" else dtype.name


def _byteorder(dtype: np.dtype[Any]) -> str:
    import sys

    return {"<": "little", ">": "big"}.get(dtype.byteorder, sys.byteorder)
