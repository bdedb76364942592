"""How arrays are compressed in a session's file: by zlib, or by zstd where a plugin of asdf brings it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from absurd.tasks.session.errors import SessionValueError

NAMES = ("zlib", "zstd")


@dataclass(frozen=True, slots=True)
class Compression:
    """A way to compress blocks."""

    label: bytes
    """Its name in the head of a block, of 4 bytes."""
    compress: Callable[[bytes], bytes]


def compression_of(name: str | None) -> Compression | None:
    """The compression of that name; None for none.

    Raises SessionValueError for an unknown one, and for zstd where no plugin of asdf, such as asdf-compression, has it.
    """
    if name is None:
        return None
    if name == "zlib":
        return Compression(b"zlib", zlib.compress)
    if name != "zstd":
        raise SessionValueError(f"{name!r} is no compression; there are {', '.join(NAMES)}")
    try:
        import asdf
    except ImportError:
        raise SessionValueError("zstd needs asdf and a plugin of it: pip install 'absurd[session]'") from None
    for extension in asdf.get_config().extensions:
        for each in extension.compressors:
            if each.label == b"zstd":
                return Compression(b"zstd", partial(_by_plugin, each))
    raise SessionValueError("no plugin of asdf brings zstd: pip install 'absurd[session]'")


def _by_plugin(compressor: Any, data: bytes) -> bytes:
    return b"".join(compressor.compress(memoryview(data)))
