"""The bytes of an ASDF file, which are written as they come: no tree stands in memory.

Of the ASDF Standard 1.5.0, which all readers in use know.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from absurd.tasks.session.frames import Stored

FIRST = "#ASDF 1.0.0\n#ASDF_STANDARD 1.5.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n--- !core/asdf-1.1.0\n"
LAST = "...\n"

BLOCK_MAGIC = b"\xd3BLK"
_BLOCK = struct.Struct(">4sHI4sQQQ16s")
BLOCK_HEAD = _BLOCK.size
_BLOCK_FIELDS = BLOCK_HEAD - 6
INDEX_MAGIC = b"#ASDF BLOCK INDEX\n"

_WORDS = {None: "null", True: "true", False: "false"}

# JSON leaves these as they are; YAML takes them for ends of lines, or refuses them.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


def flow(value: Any) -> str:
    """A value of what JSON holds, or NaN or an infinity, as YAML in one line."""
    if type(value) is str:
        text = encode_basestring(value)
        return text if text.isascii() and "\x7f" not in text else _UNSAFE.sub(_escaped, text)
    if type(value) is float:
        return _number(value)
    if type(value) is dict:
        return "{" + ", ".join(f"{flow(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if type(value) is list:
        return "[" + ", ".join(map(flow, value)) + "]"
    return str(value) if type(value) is int else _WORDS[value]


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _number(value: float) -> str:
    """A float that YAML 1.1 reads as one: it needs a point, and NaN and infinities have names of their own."""
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")


def array_text(told: Stored, source: int | str) -> str:
    """An array that stands in a block of this file, by its number, or in a file of its own, by its relative path."""
    shape = ", ".join(map(str, told.shape))
    return (
        f"!core/ndarray-1.0.0 {{source: {flow(source)}, datatype: {told.datatype}, byteorder: {told.byteorder}, "
        f"shape: [{shape}]}}"
    )


def document(made: Mapping[str, str], facts: Mapping[str, Any]) -> bytes:
    """A small file's whole tree: `made` stands in YAML already."""
    lines = [f"{name}: {text}\n" for name, text in made.items()]
    lines += [f"{flow(name)}: {flow(value)}\n" for name, value in facts.items()]
    return (FIRST + "".join(lines) + LAST).encode()


def block_head(used: int, bytes: int, md5: bytes, label: bytes = b"\0\0\0\0") -> bytes:
    """What stands before the `used` bytes of a block, which are `bytes` before compression; `md5` is of those used."""
    return _BLOCK.pack(BLOCK_MAGIC, _BLOCK_FIELDS, 0, label, used, used, bytes, md5)


def parse_block_head(data: bytes) -> tuple[int, bytes, int, int, bytes] | None:
    """Of a block: room taken, label of compression, bytes used, bytes when expanded, MD5; None if it is none."""
    if len(data) < BLOCK_HEAD:
        return None
    magic, fields, _, label, allocated, used, expanded, md5 = _BLOCK.unpack(data)
    return (allocated, label, used, expanded, md5) if magic == BLOCK_MAGIC and fields == _BLOCK_FIELDS else None


def block_index(offsets: list[int]) -> bytes:
    """What stands after the last block: where each begins."""
    listed = "".join(f"- {each}\n" for each in offsets)
    return INDEX_MAGIC + f"%YAML 1.1\n---\n{listed}...\n".encode()
