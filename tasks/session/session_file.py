"""A session's file, written from its journal and frames as they are read: memory stays as it is."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from absurd.tasks.session import journal
from absurd.tasks.session.asdf_form import FIRST, LAST, array_text, block_head, block_index, flow
from absurd.tasks.session.compression import Compression
from absurd.tasks.session.errors import SessionDamagedError
from absurd.tasks.session.frames import Stored, read
from absurd.tasks.session.outline import Outline, arrays
from absurd.tasks.session.values import moment

SCHEMA_VERSION = "1.1.0"
META_TAG = f"asdf://absurd/tags/session_meta-{SCHEMA_VERSION}"


class SessionFile:
    """One file to be written."""

    def __init__(
        self, outline: Outline, source: Path, frames: Path, beside: str | None, md5: Mapping[str, str]
    ) -> None:
        """Of the journal at `source`, with frames that lie in `frames` now.

        `beside` is the folder by which the file names them, relative to itself; None: they become part of it.  `md5` is
        of the bytes of each, by its file's name; what is not among them is lost.
        """
        self._outline = outline
        self._source = source
        self._frames = frames
        self._beside = beside
        self._md5 = md5
        self._blocks = 0

    def write(self, out: BinaryIO, provenance: dict[str, Any], compression: Compression | None) -> str:
        """Write all of it; gives the SHA-256 of what was written.

        Raises SessionDamagedError for a frame that is not what arrived, OSError.
        """
        digest = hashlib.sha256()
        place = 0

        def put(data: bytes) -> None:
            nonlocal place
            out.write(data)
            digest.update(data)
            place += len(data)

        for text in self._tree(provenance):
            put(text.encode())
        offsets = []
        for data, told in self._block_data():
            packed = data if compression is None else compression.compress(data)
            md5 = hashlib.md5(packed, usedforsecurity=False).digest()
            label = b"\0\0\0\0" if compression is None else compression.label
            offsets.append(place)
            put(block_head(len(packed), told.bytes, md5, label))
            put(packed)
        if offsets:
            put(block_index(offsets))
        return digest.hexdigest()

    def _tree(self, provenance: dict[str, Any]) -> Iterator[str]:
        """The tree in YAML; what a catalogue reads stands first."""
        yield FIRST
        yield f"meta: !<{META_TAG}>\n"
        yield from _fields({"schema_version": SCHEMA_VERSION} | self._outline.meta())
        yield "provenance:\n"
        yield from _fields(provenance)
        with self._source.open("rb") as file:
            yield "observability:\n"
            yield f"  metrics: {flow(self._outline.metrics())}\n"
            yield from _listed("  events", self._outline.events, lambda offset: _entry(file, offset))
            yield from _listed("  logs", self._outline.logs, lambda offset: _entry(file, offset))
            yield from self._cameras(file)
            yield from self._named(file, "telemetry", self._outline.telemetry)
            yield from self._named(file, "calibration", self._outline.calibration)
        yield LAST

    def _cameras(self, file: BinaryIO) -> Iterator[str]:
        yield "cameras:\n" if self._outline.cameras else "cameras: {}\n"
        for name, camera in self._outline.cameras.items():
            yield f"  {flow(name)}:\n    info: {flow(camera.info)}\n    settings: {flow(camera.settings)}\n"
            yield from _listed("    frames", camera.frames, lambda offset: self._array(_value(file, offset)))
            yield from _listed("    frame_info", camera.frames, lambda offset: flow(self._frame_info(file, offset)))

    def _named(self, file: BinaryIO, section: str, lists: dict[str, Any]) -> Iterator[str]:
        yield f"{section}:\n" if lists else f"{section}: {{}}\n"
        for name, offsets in lists.items():
            yield from _listed(f"  {flow(name)}", offsets, lambda offset: self._item(file, offset))

    def _item(self, file: BinaryIO, offset: int) -> str:
        found = journal.read_at(file, offset)
        if found.kind == journal.FRAME:
            return self._array(found.value)
        if found.kind == journal.CALIBRATION:
            return flow(found.value["value"])
        told = found.value
        return flow({"time": told.get("time", moment(found.time_ns)), **told["values"]})

    def _array(self, told: dict[str, Any]) -> str:
        stored = Stored(**told["stored"])
        if self._is_lost(stored):
            return "null"
        if self._beside is not None:
            return array_text(stored, f"{self._beside}/{stored.file}")
        self._blocks += 1
        return array_text(stored, self._blocks - 1)

    def _frame_info(self, file: BinaryIO, offset: int) -> dict[str, Any]:
        found = journal.read_at(file, offset)
        told, stored = found.value, Stored(**found.value["stored"])
        info = {name: told[name] for name in ("time", "exposure_us", "settings") if name in told}
        kept = {"md5": None, "lost": True} if self._is_lost(stored) else {"md5": self._md5[stored.file]}
        return {"number": found.number, **info, **kept, **told["fields"]}

    def _is_lost(self, stored: Stored) -> bool:
        """Whether somebody has removed the file of a frame: the session is whole without it, and says so."""
        return stored.file not in self._md5

    def _block_data(self) -> Iterator[tuple[bytes, Stored]]:
        if self._beside is not None:
            return
        for _, stored in arrays(self._outline, self._source):
            if self._is_lost(stored):
                continue
            data = read(self._frames / stored.file, stored)
            if zlib.crc32(data) != stored.crc32:
                raise SessionDamagedError(f"{self._frames / stored.file} is not the frame that arrived")
            yield data, stored


def _fields(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        yield f"  {flow(name)}: {flow(value)}\n"


def _listed(name: str, offsets: Any, text: Any) -> Iterator[str]:
    """A list under its name, an item in each line."""
    indent = " " * (len(name) - len(name.lstrip()))
    yield f"{name}:\n" if len(offsets) else f"{name}: []\n"
    for offset in offsets:
        yield f"{indent}- {text(offset)}\n"


def _value(file: BinaryIO, offset: int) -> dict[str, Any]:
    value: dict[str, Any] = journal.read_at(file, offset).value
    return value


def _entry(file: BinaryIO, offset: int) -> str:
    """A line of a log, or an event, with its place in the order of all that was told."""
    found = journal.read_at(file, offset)
    return flow({"number": found.number, "time": moment(found.time_ns), **found.value})
