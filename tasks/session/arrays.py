"""Arrays of sealed sessions: frames and calibration arrays, each read when it is asked for."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from absurd.tasks.session.asdf_form import BLOCK_HEAD, parse_block_head
from absurd.tasks.session.errors import SessionDamagedError
from absurd.tasks.session.reading import Array, Head, items

if TYPE_CHECKING:
    import numpy as np

_PLAIN = b"\0\0\0\0"


@dataclass(frozen=True)
class Kept:
    """One array of a session's file."""

    section: str
    """``cameras`` or ``calibration``."""
    name: str
    """Of the camera, or of the list."""
    index: int
    """Place in its list."""
    array: Array | None
    """source, datatype, byteorder, shape; None for a frame whose file was lost before the session was sealed."""
    info: dict[str, Any]
    """Of a frame: number, time, exposure_us, settings, md5, …"""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of its axes."""
        return tuple(map(int, self.array["shape"])) if self.array else ()

    @property
    def datatype(self) -> str | None:
        """Its type as ASDF has it, such as ``uint16``."""
        return str(self.array["datatype"]) if self.array else None


class SessionArrays:
    """The arrays of one session's file."""

    def __init__(self, path: Path) -> None:
        """Read the tree.  Raises SessionDamagedError, OSError."""
        import yaml

        self.path = path
        self.meta: dict[str, Any] = {}
        self.kept: list[Kept] = []
        with path.open("rb") as file:
            head = Head(file)
            try:
                self._note(items(head))
            except (yaml.YAMLError, RuntimeError, KeyError, TypeError) as error:
                raise _damaged(path, f"its tree cannot be read: {error}") from error
            if head.end is None:
                raise _damaged(path, "its tree does not end")
            self._first_block = head.end

    def of(self, section: str, name: str) -> list[Kept]:
        """The arrays of a camera or a list, in order; those that were lost are left out."""
        return [each for each in self.kept if (each.section, each.name) == (section, name) and each.array is not None]

    def load(self, kept: Kept) -> np.ndarray[Any, Any]:
        """One array, as it arrived.  Raises SessionDamagedError, also if its file is not there; OSError."""
        import numpy as np

        array = kept.array
        if array is None:
            raise SessionDamagedError(f"frame {kept.index} of {kept.name} was lost", path=str(self.path))
        source = array["source"]
        path = self.path if isinstance(source, int) else self.path.parent / source
        try:
            with path.open("rb") as file:
                data = _block(path, file, self._start(source, file))
        except FileNotFoundError as error:
            raise _damaged(path, "it is not there") from error
        name = "bool" if array["datatype"] == "bool8" else str(array["datatype"])
        dtype = np.dtype(name).newbyteorder("<" if array["byteorder"] == "little" else ">")
        made = np.frombuffer(data, dtype)
        try:
            return made.reshape(kept.shape)
        except ValueError as error:
            raise _damaged(path, f"its array is not of the shape that it tells: {error}") from error

    def _start(self, source: int | str, file: BinaryIO) -> int:
        if isinstance(source, int):
            try:
                return self._places[source]
            except IndexError:
                raise _damaged(self.path, f"it has no block {source}") from None
        head = Head(file)
        while head.read():
            pass
        if head.end is None:
            raise _damaged(self.path.parent / source, "its tree does not end")
        return head.end

    @cached_property
    def _places(self) -> list[int]:
        """Where each block begins."""
        found: list[int] = []
        at = self._first_block
        with self.path.open("rb") as file:
            while True:
                file.seek(at)
                told = parse_block_head(file.read(BLOCK_HEAD))
                if told is None:
                    return found
                found.append(at)
                at += BLOCK_HEAD + told[0]

    def _note(self, tree: Iterator[tuple[tuple[str | int, ...], Any]]) -> None:
        frames: list[Any] = []
        for where, value in tree:
            match where:
                case ("meta", str() as name):
                    self.meta[name] = value
                case ("cameras", _, "frames", int()):
                    frames.append(value)
                case ("cameras", str() as name, "frame_info", int() as at):
                    array = frames[at] if isinstance(frames[at], Array) else None
                    self.kept.append(Kept("cameras", name, at, array, value))
                    if at == len(frames) - 1:
                        frames.clear()
                case ("calibration", str() as name, int() as at) if isinstance(value, Array):
                    self.kept.append(Kept("calibration", name, at, value, {}))


def _block(path: Path, file: BinaryIO, start: int) -> bytes:
    """The bytes of a block, decompressed."""
    file.seek(start)
    told = parse_block_head(file.read(BLOCK_HEAD))
    if told is None:
        raise _damaged(path, "a block is not where it should be")
    _, label, used, expanded, _ = told
    data = file.read(used)
    if len(data) < used:
        raise _damaged(path, f"a block of {used:,} bytes lacks {used - len(data):,}")
    if label == _PLAIN:
        return data
    try:
        return zlib.decompress(data) if label == b"zlib" else _by_plugin(label, data, expanded)
    except (zlib.error, ValueError) as error:
        raise _damaged(path, f"a block cannot be decompressed: {error}") from error


def _by_plugin(label: bytes, data: bytes, expanded: int) -> bytes:
    import asdf

    for extension in asdf.get_config().extensions:
        for each in extension.compressors:
            if each.label == label:
                out = bytearray(expanded)
                each.decompress(iter([data]), out)
                return bytes(out)
    raise ValueError(f"no plugin of asdf knows {label!r}")


def _damaged(path: Path, reason: str) -> SessionDamagedError:
    return SessionDamagedError(f"{path} is damaged: {reason}", path=str(path), reason=reason)
