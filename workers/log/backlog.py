"""What a run has written and nobody has stored yet: bounded, and made into lines when it is stored (pure).

Reading must keep up with a run that writes a gigabyte in seconds, so bytes are looked at only when they are
taken: what was dropped meanwhile was never decoded.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

Piece = tuple[str, float, str]
"""Stream, when it was read, and text."""

JOIN_SECONDS = 0.05
"""What is read of one stream within this time counts as read at once."""
ENTRY_BYTES = 64
"""What an entry takes beside its text: else a run that writes byte by byte would be counted too cheaply."""
SLACK_BYTES = 256 * 1024
"""How far the last half may outgrow itself before it is cut: cutting at each read would cost more than the reads."""
PARTIAL_SECONDS = 0.3
"""How long the beginning of a line is waited upon for its end before it is taken as it is."""
REDRAWN_SECONDS = 5.0
"""How often a line that is drawn again and again (a progress bar) is taken."""
LINE_BYTES = 16 * 1024
"""How long a line without end may grow before a piece is taken off it."""
LARGEST_PART = 32 * 1024
"""Most characters of a part."""
REST_DROPPED = "The rest was dropped.\n"


@dataclass(slots=True)
class Part:
    """Some lines, as they are stored, and what was dropped before them."""

    pieces: list[Piece] = field(default_factory=list)
    bytes: int = 0
    breaks: int = 0
    dropped_bytes: int = 0
    dropped_lines: int = 0

    def replaced(self, note: str) -> Part:
        """A part that says `note` in place of this one's lines, and counts them as dropped."""
        at = self.pieces[0][1] if self.pieces else 0.0
        dropped = self.dropped_bytes + self.bytes, self.dropped_lines + self.breaks
        return Part([("worker", at, note)], len(note), 1, *dropped)


@dataclass(slots=True)
class _Entry:
    stream: str
    at: float
    data: bytearray


@dataclass(slots=True)
class Raw:
    """What was taken from a backlog, as it was written."""

    first: list[_Entry]
    dropped: Part
    """What was dropped between the two."""
    last: list[_Entry]

    @property
    def size(self) -> int:
        """Bytes of text."""
        return sum(len(each.data) for entries in (self.first, self.last) for each in entries)


class Backlog:
    """The first half of `limit` bytes, and of all that comes after as much as the other half holds."""

    def __init__(self, limit: int, clean: Callable[[str], str] = str) -> None:
        self._half = limit // 2
        self._part_size = max(1, min(LARGEST_PART, limit // 16))
        self._clean = clean
        self._left = self._half
        self._first: list[_Entry] = []
        self._last: deque[_Entry] = deque()
        self._last_size = 0
        self._dropped = Part()
        self._gap = Part()
        """What was dropped before what comes next, and was taken already."""
        self._streams: dict[str, _Stream] = {}

    @property
    def over(self) -> bool:
        """Whether the first half is full."""
        return self._left <= 0

    @property
    def size(self) -> int:
        """How much memory it takes, in bytes, about."""
        return sum(len(each.data) + ENTRY_BYTES for each in self._first) + self._last_size

    def add(self, stream: str, at: float, data: bytes) -> None:
        """Keep `data`, or drop it, or what it takes the place of."""
        if self._left > 0:
            head, data = data[: self._left], data[self._left :]
            self._left -= len(head) + (0 if _join(self._first, stream, at, head) else ENTRY_BYTES)
            if not data:
                return
        joined = _join(self._last, stream, at, data)
        self._last_size += len(data) + (0 if joined else ENTRY_BYTES)
        if self._last_size > self._half + SLACK_BYTES:
            self._cut()

    def drop_all(self) -> None:
        """Keep nothing of what is here, only how much it was."""
        for entries in (self._first, self._last):
            for each in entries:
                self._drop(each.data)
            entries.clear()
        self._last_size = 0
        self._streams.clear()

    def waits_for(self, now: float) -> float | None:
        """In how many seconds there is something to take; None: not until more is added."""
        if self._first or self._last:
            return 0.0
        waits = [each.waits_for(now) for each in self._streams.values() if each.rest]
        return max(0.0, min(waits)) if waits else None

    def take(self, now: float, *, final: bool = False) -> list[Part]:
        """All lines that have ended, and beginnings that are old enough; with `final` everything."""
        return self.make_parts(self.take_raw(), now, final=final)

    def take_raw(self) -> Raw:
        """What is here, not looked at: quick, while nobody may add anything."""
        self._cut()
        dropped, gap = self._dropped, self._gap
        dropped.dropped_bytes += gap.dropped_bytes
        dropped.dropped_lines += gap.dropped_lines
        raw = Raw(self._first, dropped, [*self._last])
        self._first = []
        self._dropped, self._gap = Part(), Part()
        self._last.clear()
        self._last_size = 0
        return raw

    def make_parts(self, raw: Raw, now: float, *, final: bool = False) -> list[Part]:
        """As `take`, of what `take_raw` gave.  It takes time, and beside it nothing but `add` may be called."""
        taken = _Taken(self._part_size, self._clean)
        for each in raw.first:
            taken.add(each, self._stream(each.stream))
        if raw.dropped.dropped_bytes:
            for name, stream in self._streams.items():
                taken.put(name, stream.at, stream.flush())
            taken.gap(raw.dropped)
        for each in raw.last:
            taken.add(each, self._stream(each.stream))
        for name, stream in self._streams.items():
            taken.put(name, stream.at, stream.flush() if final else stream.take(now))
        *parts, last = taken.parts
        if last.pieces:
            parts.append(last)
        elif last.dropped_bytes and final:
            parts.append(replace(last, pieces=[("worker", now, REST_DROPPED)], bytes=len(REST_DROPPED), breaks=1))
        else:
            self._gap = last
        return parts

    def _stream(self, name: str) -> _Stream:
        return self._streams.setdefault(name, _Stream())

    def _cut(self) -> None:
        """Have the last half be no more than that; it begins with a line."""
        if self._last_size <= self._half:
            return
        while self._last_size > self._half and self._last:
            entry = self._last[0]
            too_much = self._last_size - self._half
            if len(entry.data) + ENTRY_BYTES <= too_much:
                self._last.popleft()
                self._last_size -= len(entry.data) + ENTRY_BYTES
                self._drop(entry.data)
                continue
            end = entry.data.find(b"\n", min(too_much, len(entry.data)) - 1)
            cut = min(too_much, len(entry.data)) if end < 0 else end + 1
            self._drop(entry.data[:cut])
            del entry.data[:cut]
            self._last_size -= cut
            if not entry.data:
                self._last.popleft()
                self._last_size -= ENTRY_BYTES

    def _drop(self, data: bytes | bytearray) -> None:
        self._dropped.dropped_bytes += len(data)
        self._dropped.dropped_lines += data.count(b"\n")


def _join(entries: list[_Entry] | deque[_Entry], stream: str, at: float, data: bytes) -> bool:
    """Put `data` behind what came just before it from the same stream, or into an entry of its own."""
    if entries:
        entry = entries[-1]
        if entry.stream == stream and at - entry.at < JOIN_SECONDS and len(entry.data) < SLACK_BYTES:
            entry.data += data
            return True
    entries.append(_Entry(stream, at, bytearray(data)))
    return False


class _Stream:
    """Bytes of one stream to text, line by line."""

    __slots__ = ("at", "ended", "redrawn_at", "rest")

    def __init__(self) -> None:
        self.rest = b""
        self.at = 0.0
        self.redrawn_at = 0.0
        self.ended = False  # whether the end of the line was given before it came

    def feed(self, at: float, data: bytes | bytearray) -> str:
        """The lines that end in `data`; the beginning of the next one is kept."""
        if self.ended and data:
            self.ended = False
            data = data.removeprefix(b"\n")
        lines, end, rest = (self.rest + data).rpartition(b"\n")
        if not self.rest or end:
            self.redrawn_at = at
        self.at = at
        text = _text(lines + end)
        if b"\r" in rest:  # only what was drawn last can still be seen
            rest = _last_drawn(rest)
        if len(rest) > LINE_BYTES:
            whole = len(rest) - _unfinished(rest)
            text += _text(rest[:whole])
            rest = rest[whole:]
        self.rest = rest
        return text

    def waits_for(self, now: float) -> float:
        if b"\r" in self.rest:
            return self.redrawn_at + REDRAWN_SECONDS - now
        return self.at + PARTIAL_SECONDS - now

    def take(self, now: float) -> str:
        """The beginning of a line, if it is old enough."""
        if not self.rest or self.waits_for(now) > 0:
            return ""
        if b"\r" in self.rest:
            text, self.rest, self.ended = _text(self.rest.strip(b"\r") + b"\n"), b"", True
            return text
        whole = len(self.rest) - _unfinished(self.rest)
        text, self.rest = _text(self.rest[:whole]), self.rest[whole:]
        if self.rest:  # an unfinished character: not looked at again at once
            self.at = now
        return text

    def flush(self) -> str:
        """What is left."""
        text, self.rest = _text(self.rest.strip(b"\r") if b"\r" in self.rest else self.rest), b""
        return text


class _Taken:
    """Pieces put together to parts."""

    def __init__(self, size: int, clean: Callable[[str], str]) -> None:
        self._size = size
        self._clean = clean
        self.parts = [Part()]

    def add(self, entry: _Entry, stream: _Stream) -> None:
        self.put(entry.stream, entry.at, stream.feed(entry.at, entry.data))

    def put(self, name: str, at: float, text: str) -> None:
        if not text:
            return
        text = self._clean(text)
        while text:
            part = self.parts[-1]
            room = self._size - part.bytes
            if len(text) > room and part.pieces:
                self.parts.append(Part())
                continue
            cut = len(text) if len(text) <= room else text.rfind("\n", 0, room) + 1 or max(1, room)
            piece, text = text[:cut], text[cut:]
            part.pieces.append((name, at, piece))
            part.bytes += len(piece.encode())
            part.breaks += piece.count("\n")

    def gap(self, dropped: Part) -> None:
        if self.parts[-1].pieces:
            self.parts.append(Part())
        self.parts[-1].dropped_bytes += dropped.dropped_bytes
        self.parts[-1].dropped_lines += dropped.dropped_lines


# Text --------------------------------------------------------------------------------------------

_DRAWN_OVER = re.compile(r"[^\n\r]*\r+(?=[^\n\r])")


def _text(data: bytes) -> str:
    """Text that can be stored: what is no UTF-8, and NUL, become U+FFFD; of a line drawn again the last is left."""
    text = data.decode("utf-8", "replace")
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if "\r" in text:
        text = _DRAWN_OVER.sub("", text).replace("\r", "")
    return text


def _last_drawn(rest: bytes) -> bytes:
    """The last that was drawn on a line, with a sign that it is drawn over."""
    body = rest.rstrip(b"\r")
    drawn = body.rpartition(b"\r")[2]
    return b"\r" + drawn + rest[len(body) :]


def _unfinished(data: bytes) -> int:
    """How many bytes at the end are the beginning of a character."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        wanted = 2 if byte >> 5 == 0b110 else 3 if byte >> 4 == 0b1110 else 4 if byte >> 3 == 0b11110 else 1
        return back if wanted > back else 0
    return 0
