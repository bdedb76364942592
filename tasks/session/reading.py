"""A session's file read as a stream: its tree item by item, then its blocks, whatever their number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from absurd.tasks.session.asdf_form import BLOCK_HEAD, INDEX_MAGIC, parse_block_head

CHUNK = 1 << 20
_END = b"\n...\n"
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_ARRAY = "tag:stsci.edu:asdf/core/ndarray-"
_FLOATS = {".nan": "nan", ".inf": "inf", "+.inf": "inf", "-.inf": "-inf"}

Path = tuple[str | int, ...]


class Array(dict[str, Any]):
    """What the tree tells of an array: source, datatype, byteorder, shape."""


class Block(NamedTuple):
    """A block, the MD5 of its bytes, and whether that is its checksum, if it has one."""

    label: bytes
    used: int
    md5: str
    is_whole: bool


class Head:
    """The tree of an open file as a stream of its own, which ends where the tree does."""

    def __init__(self, file: BinaryIO, chunk: int = CHUNK) -> None:
        self._file = file
        self._chunk = chunk
        self._kept = b""
        self.end: int | None = None
        """Where the blocks begin, once all was read; None before, and if the tree does not end."""
        self._place = 0

    def read(self, size: int = -1) -> bytes:
        """Some bytes; none at the end."""
        while self.end is None:
            chunk = self._file.read(self._chunk)
            data = self._kept + chunk
            at = data.find(_END)
            if at >= 0:
                self.end = self._place + at + len(_END)
                return data[: at + len(_END)]
            if not chunk:
                return b""
            keep = len(_END) - 1
            given, self._kept = data[:-keep], data[-keep:]
            self._place += len(given)
            if given:
                return given
        return b""


def items(head: Head) -> Iterator[tuple[Path, Any]]:
    """The values of a tree, each with the keys and places that lead to it.

    Collections that are written over several lines come item by item, those in one line (in braces) as one value.
    Raises yaml.YAMLError for what is no YAML.
    """
    yield from _Tree(head).items()


class _Tree:
    """The events of a YAML document, gone through once."""

    def __init__(self, head: Head) -> None:
        import yaml

        self._next = getattr(yaml, "CLoader", yaml.Loader)(head).get_event
        self._scalar = yaml.ScalarEvent
        self._collection = yaml.CollectionStartEvent
        self._mapping = yaml.MappingStartEvent
        self._end = yaml.CollectionEndEvent
        self._stream_end = yaml.StreamEndEvent

    def items(self) -> Iterator[tuple[Path, Any]]:
        while not isinstance(event := self._next(), self._stream_end):
            if isinstance(event, self._collection):
                yield from self._walk(event, ())
                return

    def _walk(self, event: Any, path: Path) -> Iterator[tuple[Path, Any]]:
        if not isinstance(event, self._collection) or event.flow_style:
            yield path, self._value(event)
        elif isinstance(event, self._mapping):
            while not isinstance(key := self._next(), self._end):
                yield from self._walk(self._next(), (*path, key.value))
        else:
            place = 0
            while not isinstance(each := self._next(), self._end):
                yield from self._walk(each, (*path, place))
                place += 1

    def _value(self, event: Any) -> Any:
        if isinstance(event, self._scalar):
            return event.value if event.style else _plain(event.value)
        if isinstance(event, self._mapping):
            made: dict[str, Any] = Array() if (event.tag or "").startswith(_ARRAY) else {}
            while not isinstance(key := self._next(), self._end):
                made[key.value] = self._value(self._next())
            return made
        if not isinstance(event, self._collection):  # an alias, as only others write them
            return None
        listed = []
        while not isinstance(each := self._next(), self._end):
            listed.append(self._value(each))
        return listed


def _plain(text: str) -> Any:
    """A word without quotes, as YAML 1.1 takes it."""
    if text in _WORDS:
        return _WORDS[text]
    for kind in (int, float):
        try:
            return kind(_FLOATS.get(text, text))
        except ValueError:
            continue
    return text


def blocks(file: BinaryIO, start: int) -> Iterator[Block]:
    """The blocks of a file from where its tree ends; read through, in pieces of 1 MiB.

    Raises EOFError where the file ends within a block, or something else follows.
    """
    file.seek(start)
    while head := file.read(BLOCK_HEAD):
        told = parse_block_head(head)
        if told is None:
            if head.startswith(INDEX_MAGIC):
                return
            raise EOFError("what follows a block is none")
        allocated, label, used, _, md5 = told
        digest = hashlib.md5(usedforsecurity=False)
        rest = used
        while rest:
            piece = file.read(min(rest, CHUNK))
            if not piece:
                raise EOFError(f"a block of {used:,} bytes lacks {rest:,}")
            digest.update(piece)
            rest -= len(piece)
        file.seek(allocated - used, 1)
        yield Block(label, used, digest.hexdigest(), md5 in {bytes(16), digest.digest()})
