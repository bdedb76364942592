"""The rows of a query over one connection or several, all from one snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

import psycopg
from psycopg import pq, sql
from psycopg.rows import tuple_row

from absurd.tasks.export import reader, statement
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

_IS_SHARED = """
    select current_setting('transaction_isolation') in ('repeatable read', 'serializable')
           and pg_current_xact_id_if_assigned() is null and not pg_is_in_recovery()
"""
"""Whether others can have the snapshot of this transaction, and see all in it that it sees itself."""


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


@contextmanager
def shared_connections(connection: Connection, wanted: int) -> Iterator[list[Connection]]:
    """The connection, and others that see its snapshot: as many in all as wanted, or as the server has left.

    Alone if its transaction has changes of its own, or sees a new snapshot with each statement, or the server is a
    standby, which exports none.
    """
    found = [connection]
    with ExitStack() as opened:
        if wanted > 1:
            with connection.cursor(row_factory=tuple_row) as cursor:
                cursor.execute(_IS_SHARED)
                (is_shared,) = cursor.fetchone() or (False,)
                if is_shared:
                    cursor.execute("select pg_export_snapshot()")
                    (snapshot,) = cursor.fetchone() or ("",)
            while is_shared and len(found) < wanted:
                another = _beside(connection, snapshot)
                if another is None:
                    break
                found.append(opened.enter_context(another))
        yield found


def _beside(connection: Connection, snapshot: str) -> Connection | None:
    """Another connection to the same database as the same user; None if the server refuses one more."""
    given = connection.info.get_parameters()
    if connection.info.password:
        given["password"] = connection.info.password
    try:
        another: Connection = psycopg.connect(**given, autocommit=True)  # type: ignore[arg-type]
    except psycopg.Error:
        return None
    try:
        another.execute("begin isolation level repeatable read, read only")
        another.execute(sql.SQL("set transaction snapshot {}").format(snapshot))
        another.execute(reader.SESSION)
    except BaseException:
        statement.end(another)
        another.close()
        raise
    return another


def is_idle(connection: Connection) -> bool:
    """Whether no transaction is open."""
    return connection.info.transaction_status == pq.TransactionStatus.IDLE
