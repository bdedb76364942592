"""Arrays of a session: each one an ASDF file with one block, written as it arrives."""

from __future__ import annotations

import hashlib
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absurd.tasks.artifact import send_to_disk, sync
from absurd.tasks.session.asdf_form import array_text, block_head, document
from absurd.tasks.session.errors import SessionDamagedError, SessionValueError

if TYPE_CHECKING:
    import numpy as np

    from absurd.tasks.session.compression import Compression

CHUNK = 1 << 20
_MD5_BYTES = 16  # at the end of a block's head
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
    crc32: int
    """Of its bytes."""
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

    `facts` stand in the file beside it.  Its block has no MD5 until `mark`: that takes longer than the disk does.
    Raises OSError; then nothing is there under that name.
    """
    data = memoryview(array.data).cast("B")
    told = Stored(
        file=f"{name}.asdf",
        shape=list(array.shape),
        datatype=_datatype(array.dtype),
        byteorder=_byteorder(array.dtype),
        crc32=0,
        start=0,
        bytes=len(data),
    )
    head = frame_head(told, facts) + block_head(len(data), len(data), bytes(_MD5_BYTES))
    return replace(told, crc32=_store(folder, told.file, head, data), start=len(head))


def _store(folder: Path, name: str, head: bytes, data: memoryview) -> int:
    """Write a file; gives the CRC-32 of `data`."""
    part = folder / f".{name}.part"
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        _write(file, memoryview(head), 0)
        for start in range(0, len(data), CHUNK):  # the disk is at work on the first piece while the next is handed over
            _write(file, data[start : start + CHUNK], len(head) + start)
            send_to_disk(file, start, CHUNK)
        send_to_disk(file, 0, len(head) + len(data))
        crc32 = zlib.crc32(data)  # while the disk is at work
        part.rename(folder / name)  # before it is on the disk: the journal tells which frames count, and is told last
        os.fsync(file)
        sync(folder)
    except OSError:
        part.unlink(missing_ok=True)
        (folder / name).unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
    return crc32


def md5_of(source: Path, told: Stored) -> str:
    """The MD5 of an array's bytes, as 32 hexadecimal digits.

    Raises SessionDamagedError if they are not those that arrived, FileNotFoundError, OSError.
    """
    digest, crc32, rest = hashlib.md5(usedforsecurity=False), 0, told.bytes
    with source.open("rb") as file:
        file.seek(told.start)
        while piece := file.read(min(rest, CHUNK)):
            digest.update(piece)
            crc32 = zlib.crc32(piece, crc32)
            rest -= len(piece)
    if rest or crc32 != told.crc32:
        raise SessionDamagedError(
            f"{source} is not the frame that arrived; taken away from there, it is told as lost", path=str(source)
        )
    return digest.hexdigest()


def mark(source: Path, told: Stored, md5: str) -> None:
    """Give the block of an array's file its checksum.  Raises OSError."""
    with source.open("r+b", buffering=0) as file:
        file.seek(told.start - _MD5_BYTES)
        file.write(bytes.fromhex(md5))


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
