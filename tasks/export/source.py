"""The rows of the parts of a query over a connection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import psycopg

from absurd.tasks.export import reader
from absurd.tasks.export.arrow_types import Column
from absurd.tasks.export.block import Block
from absurd.tasks.export.compiled import CompiledDecoder, library
from absurd.tasks.export.copy_stream import CopyStream
from absurd.tasks.export.errors import ExportConfigError
from absurd.tasks.export.meter import Meter
from absurd.tasks.export.splitting import Part

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

DecoderName = Literal["auto", "compiled", "numpy"]

_WIDEN = b"select repeat(' ', 200000)"
"""libpq reads as much at once as its buffer holds: 16 KiB, or more after a longer message."""


class Decoder(Protocol):
    """Makes blocks of a stream."""

    def read(self, stream: CopyStream, meter: Meter) -> Iterator[Block]:
        """The rows of a running stream."""
        ...


class PartReader:
    """Reads parts of a query over one connection."""

    def __init__(self, connection: Connection, statements: Sequence[bytes], decoder: Decoder, meter: Meter) -> None:
        self._connection = connection
        with connection.lock:
            connection.pgconn.exec_(_WIDEN)
        self._statements = statements
        self._decoder = decoder
        self._meter = meter

    def read(self, part: int) -> Iterator[Block]:
        """The rows of a part."""
        with CopyStream(self._connection, self._statements[part], self._meter) as stream:
            yield from self._decoder.read(stream, self._meter)


def make_decoder(
    name: DecoderName, columns: Sequence[Column], *, refuse: bool, check_text: bool, block_bytes: int
) -> Decoder:
    """The compiled decoder, or that in numpy where there is none; both give the same.

    Raises ExportConfigError if the compiled one is asked for and was not built.
    """
    if name != "numpy" and library() is not None:
        return CompiledDecoder(columns, refuse=refuse, check_text=check_text, block_bytes=block_bytes)
    if name == "compiled":
        raise ExportConfigError(
            "decoder is 'compiled', which was not built: install a C compiler and then absurd again, or leave it out"
        )
    from absurd.tasks.export.wire import NumpyDecoder

    return NumpyDecoder(columns, refuse=refuse, check_text=check_text, block_bytes=block_bytes)


def statements_for(connection: Connection, parts: Sequence[Part], columns: Sequence[Column]) -> list[bytes]:
    """What to send for each part."""
    return [reader.copy_statement(part.query, columns).as_bytes(connection) for part in parts]
