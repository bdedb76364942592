"""What a cached value is found by: its kind and the parts that made it, told apart whatever they are."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import PurePath
from typing import Any, Self

import numpy as np

from absurd.tasks.cutout.cache_value import plain_copy

Version = tuple[int, int, int] | None
"""Size in bytes, times in ns of the last change of content and of status; None: there is no such file."""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """Kind and parts of a cached value; equal keys are equal in kind and parts, type by type.

    Made by `of`.  What it depends on (`files`, `tags`) is no part of it.
    """

    kind: str
    digest: str
    """64 hexadecimal digits: BLAKE2b-256 of `encode`'s bytes, from which kind and parts could be read back."""
    files: tuple[str, ...] = field(default=(), compare=False)
    """Absolute paths of local files; the value counts as long as these are what they were.  They are tags too."""
    tags: tuple[str, ...] = field(default=(), compare=False)
    """Words under which the value can be invalidated together with others."""

    @classmethod
    def of(cls, kind: str, *parts: Any, files: Iterable[str | os.PathLike[str]] = (), tags: Iterable[str] = ()) -> Self:
        """The key of `parts`: None, numbers, text, bytes, paths, arrays; tuples, lists, mappings, dataclasses of them.

        Arrays count by dtype, shape and bytes.  1, 1.0 and True are three keys, a tuple and a list are one.
        Raises TypeError for anything else, as what tells it from others is not known.
        """
        digest = hashlib.blake2b(encode((kind, *parts)), digest_size=32).hexdigest()
        return cls(kind, digest, tuple(os.path.abspath(each) for each in files), tuple(tags))

    def versions(self) -> tuple[Version, ...]:
        """The versions of its files as they are now.  Take them before the files are read, never after."""
        return tuple(version_of(path) for path in self.files)


def version_of(path: str) -> Version:
    """What changes when the file does.

    The time of status too: whoever sets the time of content back, as copying programs do, cannot set that.
    """
    try:
        found = os.stat(path)
    except OSError:  # gone or out of reach: whatever was known of it counts no longer
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def encode(value: Any) -> bytes:
    """`value` as bytes that no other value has: each piece with its type and its length before it."""
    return b"".join(_pieces(value))


def _pieces(value: Any) -> Iterator[bytes]:
    if value is None:
        yield b"N"
    elif isinstance(value, bool | np.bool_):
        yield b"T" if value else b"F"
    elif isinstance(value, int | np.integer):
        yield from _counted(b"i", str(int(value)).encode())
    elif isinstance(value, float | np.float32 | np.float16):  # np.float64 is a float; np.longdouble would lose digits
        yield b"f" + struct.pack(">d", float(value))
    elif isinstance(value, str):
        yield from _counted(b"s", value.encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes):
        yield from _counted(b"b", value)
    elif isinstance(value, PurePath):
        yield from _counted(b"p", os.fsencode(value))
    elif isinstance(value, np.ndarray):
        yield from _array(value)
    elif isinstance(value, tuple | list):
        yield b"l" + struct.pack(">q", len(value))
        for each in value:
            yield from _pieces(each)
    elif isinstance(value, Mapping):
        yield b"m" + struct.pack(">q", len(value))
        for pair in sorted((encode(name), encode(inner)) for name, inner in value.items()):
            yield from pair
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _counted(b"d", f"{type(value).__module__}.{type(value).__qualname__}".encode())
        yield from _pieces({each.name: getattr(value, each.name) for each in fields(value)})
    else:
        raise TypeError(f"a {type(value).__qualname__} cannot be part of a cache key: {value!r}")


def _array(value: np.ndarray[Any, Any]) -> Iterator[bytes]:
    yield from _counted(b"a", repr(np.lib.format.dtype_to_descr(value.dtype)).encode())
    yield from _pieces(value.shape)
    yield from _counted(b"", plain_copy(value).tobytes())


def _counted(kind: bytes, content: bytes) -> Iterator[bytes]:
    yield kind + struct.pack(">q", len(content))
    yield content
