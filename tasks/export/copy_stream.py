"""A running COPY BINARY, and its rows as the server sends them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import psycopg

from absurd.tasks.export import statement
from absurd.tasks.export.errors import ExportFailedError
from absurd.tasks.export.meter import Meter

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(4)
"""With the flags behind it: none is in use."""
HEADER_BYTES = len(SIGNATURE) + 4
END = b"\xff\xff"
"""The end mark; a row of one column or more is longer."""


class CopyStream:
    """A running ``COPY ... TO STDOUT (FORMAT BINARY)``; iterate over `rows`, or read it from `pgconn` and `finish`.

    Entering the context waits until the first row can be sent, which may take the server as long as the query does,
    and raises StoppedError when the meter is halted meanwhile.  Leaving it before the end cancels the statement in
    the server.  Reads through libpq without the driver's own loop, which takes longer over a row than the server
    does.  Raises `psycopg.Error`.
    """

    def __init__(self, connection: psycopg.Connection[Any], copy: bytes, meter: Meter) -> None:
        self._connection = connection
        self.pgconn: PGconn = connection.pgconn
        self._copy = copy
        self._check = meter.check

    def __enter__(self) -> Self:
        try:
            with self._connection.lock:
                self.pgconn.send_query(self._copy)
                statement.outcome_of(self.pgconn, self._check)
        except BaseException:
            statement.end(self._connection)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        statement.end(self._connection)

    def rows(self) -> Iterator[bytes | memoryview]:
        """The rows, one after the other.  Raises StoppedError, and ExportFailedError for what is no row."""
        end = len(END)  # once for each row: a million times
        header = bytes(self._receive() or b"")
        length = HEADER_BYTES + int.from_bytes(header[HEADER_BYTES - 4 : HEADER_BYTES], "big")
        if not header.startswith(SIGNATURE) or len(header) < length:
            raise ExportFailedError("the stream from the database is damaged: it does not begin as COPY BINARY does")
        message: bytes | memoryview | None = header[length:]  # servers send the header together with the first row
        while message is not None:
            if len(message) > end:
                yield message
            elif message and message != END:
                raise ExportFailedError("the stream from the database is damaged: a message is too short for a row")
            message = self._receive()

    def finish(self) -> None:
        """Take what the server says at the end; it may be that the query failed."""
        statement.outcome_of(self.pgconn, self._check)

    def _receive(self) -> bytes | memoryview | None:
        """The next message; None at the end, which may be that the query failed."""
        while True:
            size, message = self.pgconn.get_copy_data(1)
            if size > 0:
                return message
            if size < 0:
                self.finish()
                return None
            statement.wait_readable(self.pgconn, self._check)
