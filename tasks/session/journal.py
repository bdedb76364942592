"""The form of a journal: records one after the other, each with its length and checksum.

A file begins with `MAGIC`.  A record is the length of what follows (4 bytes), its CRC-32 (4 bytes), a letter for its
kind, its number, the time in nanoseconds since 1970 UTC, the nanoseconds since the session began on a clock that
nobody sets, and a value as JSON; all numbers little-endian.  The order of records is the order of what happened,
whatever the clocks say.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from absurd.tasks.session.errors import SessionDamagedError

MAGIC = b"absurd session journal 1\n"

START, END, LEFT = "S", "E", "X"
LOG, EVENT, TELEMETRY, CALIBRATION, CAMERA, FRAME = "L", "V", "T", "C", "A", "F"

_HEAD = struct.Struct("<II")
_STAMP = struct.Struct("<cQqQ")
KIND = _HEAD.size
"""Where in a record its kind stands."""
_LONGEST = 64 << 20  # what claims to be longer is no record
_WINDOW = 1 << 20
_STAMPED = re.compile(rb"(?=[SEXLVTCAF].{5}\0\0\0)", re.DOTALL)  # a letter, and a number of less than 40 bits
_STAMPED_BYTES = 9


class Record(NamedTuple):
    """One record, and where it lies in the file."""

    kind: str
    number: int
    time_ns: int
    elapsed_ns: int
    body: bytes
    offset: int

    @property
    def value(self) -> Any:
        """What was told."""
        return json.loads(self.body)

    @property
    def end(self) -> int:
        """Where the next record begins."""
        return self.offset + _HEAD.size + _STAMP.size + len(self.body)


def record(kind: str, number: int, time_ns: int, elapsed_ns: int, body: bytes) -> bytes:
    """A record as it is written."""
    content = _STAMP.pack(kind.encode(), number, time_ns, elapsed_ns) + body
    return _HEAD.pack(len(content), zlib.crc32(content)) + content


def unpack(data: bytes) -> Record:
    """The record that `record` has made.  Raises SessionDamagedError."""
    return read_at(BytesIO(data), 0)


def read(path: Path) -> Iterator[Record]:
    """The records of a journal up to the last that is whole: the one before a power cut may be torn.

    What a bad disk has spoilt between two of them is left out, and hides none behind it.
    Raises SessionDamagedError for a file that is no journal, OSError.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise SessionDamagedError(f"{path} is no journal of a session", path=str(path))
        number = 0
        while True:
            for each in read_on(file):
                number = each.number
                yield each
            if not _seek_next(file, number):
                return


def has_records(path: Path) -> bool:
    """Whether a file holds any record, be it a journal or what is left of one.  Raises OSError."""
    with path.open("rb") as file:
        return _seek_next(file, 0)


def read_on(file: BinaryIO) -> Iterator[Record]:
    """The records from where a file stands, which is then where the first is that is not whole yet."""
    while True:
        place = file.tell()
        found = _next(file)
        if found is None:
            file.seek(place)
            return
        yield found


def read_at(file: BinaryIO, offset: int) -> Record:
    """The record at an offset that `read` told.  Raises SessionDamagedError if it is not there any more."""
    file.seek(offset)
    found = _next(file)
    if found is None:
        raise SessionDamagedError(f"the journal has no record at byte {offset:,} any more", offset=offset)
    return found


def _seek_next(file: BinaryIO, number: int) -> bool:
    """Go to the next record behind where a file stands, whatever lies between; false if there is none.

    Its number is above `number`: what a full disk did not let be cut off may stand there still.
    """
    place = file.tell() + 1
    while True:
        file.seek(place)
        window = file.read(_WINDOW)
        for found in _STAMPED.finditer(window, _HEAD.size):
            file.seek(place + found.start() - _HEAD.size)
            made = _next(file)
            if made is not None and made.number > number:
                file.seek(made.offset)
                return True
        if len(window) < _WINDOW:
            return False
        place += _WINDOW - _HEAD.size - _STAMPED_BYTES + 1  # one that begins in this window may end in the next


def _next(file: BinaryIO) -> Record | None:
    offset = file.tell()
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack(head)
    if not _STAMP.size <= length <= _LONGEST:
        return None
    content = file.read(length)
    if len(content) < length or zlib.crc32(content) != checksum:
        return None
    kind, number, time_ns, elapsed_ns = _STAMP.unpack_from(content)
    return Record(kind.decode("latin-1"), number, time_ns, elapsed_ns, content[_STAMP.size :], offset)
