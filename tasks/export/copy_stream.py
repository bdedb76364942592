"""The rows of a COPY BINARY stream as the server sends them."""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import pq

from absurd.tasks.export.errors import ExportFailedError

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

SIGNATURE = b"PGCOPY\n\xff\r\n\0"
HEADER_BYTES = len(SIGNATURE) + 8
END_BYTES = 2
"""Length of the end mark; a row of one column or more is longer."""


class CopyStream:
    """A running ``COPY ... TO STDOUT (FORMAT BINARY)``; iterate over it for its rows.

    Leaving the context before the end cancels the statement in the server.  Reads through libpq without the
    driver's own loop, which takes longer over a row than the server does.  Raises `psycopg.Error`.
    """

    def __init__(self, connection: psycopg.Connection[Any], statement: bytes) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._statement = statement
        self._running = False
        self._readable = select.poll()  # select() cannot wait for a descriptor past 1023
        self._readable.register(self._pgconn.socket, select.POLLIN)

    def __enter__(self) -> Self:
        with self._connection.lock:
            _expect(self._pgconn.exec_(self._statement), pq.ExecStatus.COPY_OUT)
        self._running = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._running:
            self._cancel()

    def __iter__(self) -> Iterator[bytes | memoryview]:
        receive, end = self._receive, END_BYTES  # once for each row: a million times
        header = bytes(receive() or b"")
        length = HEADER_BYTES + int.from_bytes(header[HEADER_BYTES - 4 : HEADER_BYTES], "big")
        if not header.startswith(SIGNATURE) or len(header) < length:
            raise ExportFailedError("the stream from the database is damaged: it does not begin as COPY BINARY does")
        message: bytes | memoryview | None = header[length:]  # servers send the header together with the first row
        while message is not None:
            if len(message) > end:
                yield message
            message = receive()

    def _receive(self) -> bytes | memoryview | None:
        """The next message; None at the end, which may be that the query failed."""
        while True:
            size, message = self._pgconn.get_copy_data(1)
            if size > 0:
                return message
            if size < 0:
                self._finish()
                return None
            self._readable.poll()
            self._pgconn.consume_input()

    def _finish(self) -> None:
        """Take what the server says at the end; it may be that the query failed."""
        self._running = False
        result = self._pgconn.get_result()
        while (more := self._pgconn.get_result()) is not None:
            result = result or more
        if result is not None:
            _expect(result, pq.ExecStatus.COMMAND_OK)

    def _cancel(self) -> None:
        """End a statement that is not wanted any more, and leave the connection fit for others."""
        self._running = False
        if self._pgconn.status != pq.ConnStatus.OK:
            return
        with self._connection.lock:
            self._pgconn.get_cancel().cancel()
            while self._pgconn.get_copy_data(0)[0] > 0:
                pass
            while self._pgconn.get_result() is not None:
                pass


def _expect(result: PGresult, status: pq.ExecStatus) -> None:
    if result.status != status:
        raise psycopg.errors.error_from_result(result)
