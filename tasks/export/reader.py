"""A query's description and its rows, both from one snapshot of the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq, sql
from psycopg.rows import TupleRow, tuple_row

from absurd.errors import AbsurdError, DatabaseUnavailableError
from absurd.tasks.export.arrow_types import Column, Described, column_for
from absurd.tasks.export.copy_stream import CopyStream
from absurd.tasks.export.errors import ExportFailedError, ExportQueryError
from absurd.tasks.export.wire import Batch

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

BATCH_BYTES = 8 << 20
"""Bytes of the stream that are decoded at once, unless one row alone is longer."""
BATCH_ROWS = 65_536

_SESSION = """
    select set_config('extra_float_digits', '3', true), set_config('DateStyle', 'ISO, YMD', true),
           set_config('IntervalStyle', 'postgres', true), set_config('TimeZone', 'UTC', true),
           set_config('bytea_output', 'hex', true), set_config('client_encoding', 'UTF8', true)
"""
"""What the text of a value depends on, for this transaction only: the same export gives the same text anywhere."""

_TYPES = """
    select c.place, format_type(c.oid, nullif(c.typmod, -1)), t.typtype = 'e',
           case when e.oid is not null and t.typlen = -1 and t.typcategory = 'A'
                     and t.oid not in ('int2vector'::regtype, 'oidvector'::regtype) then e.oid else 0 end::int8,
           coalesce(e.typtype = 'e', false)
    from unnest(%s::oid[], %s::int4[]) with ordinality as c (oid, typmod, place)
         join pg_catalog.pg_type t on t.oid = c.oid
         left join pg_catalog.pg_type e on e.oid = t.typelem
    order by c.place
"""

_NOT_A_QUERY = ("42", "25006", "0A")  # syntax, names, rights; writes in a read-only transaction; unsupported
_LOST = ("08", "57P")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the rows of an export were read from."""

    server_version: str
    snapshot: str
    """``xmin:xmax:xip_list`` as pg_current_snapshot() gives it."""
    taken_at: str
    """Start of the transaction, ISO 8601 in UTC."""


@contextmanager
def connected(database: str | Connection) -> Iterator[Connection]:
    """A connection to export from: the one given, or one of its own to that URL or DSN.

    Raises DatabaseUnavailableError, whose message holds no password.
    """
    if not isinstance(database, str):
        yield database
        return
    try:
        connection = psycopg.connect(database, fallback_application_name="absurd export")
    except psycopg.Error as error:
        raise DatabaseUnavailableError(f"the database to export from cannot be reached: {_first_line(error)}") from None
    with connection:
        yield connection


@contextmanager
def one_snapshot(connection: Connection) -> Iterator[Snapshot]:
    """A read-only transaction in which everything is seen as of one moment.

    Within a transaction that the caller has begun, that one is used as it is; so several exports share one
    snapshot if it is REPEATABLE READ.
    """
    ours = connection.info.transaction_status == pq.TransactionStatus.IDLE
    try:
        if ours:
            with connection.cursor() as cursor:
                begin = "set transaction isolation level repeatable read, read only"
                cursor.execute(f"begin; {begin}" if connection.autocommit else begin)
        with connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(_SESSION)
            cursor.execute("select current_setting('server_version'), pg_current_snapshot()::text, now()::text")
            version, snapshot, taken_at = cursor.fetchone() or ("", "", "")
        yield Snapshot(version, snapshot, taken_at)
    except psycopg.Error as error:
        raise explain(error) from error
    finally:
        if ours and not connection.closed:
            with suppress(psycopg.OperationalError):  # the connection died meanwhile: nothing is left to end
                connection.rollback()


def describe(connection: Connection, query: str) -> list[Column]:
    """The columns that `query` gives; the server plans it and runs nothing.

    Raises ExportQueryError if PostgreSQL refuses the query, if it is several or none, if it gives no columns, or
    two of one name.
    """
    described = _describe(connection, query)
    if not described:
        raise ExportQueryError("the query gives no columns: an export needs a SELECT, a VALUES or a TABLE")
    names = [name for name, _, _ in described]
    double = [name for name, times in Counter(names).items() if times > 1]
    if double:
        raise ExportQueryError(
            f"several columns of the query are called {' and '.join(map(repr, double))}: "
            "name each one differently, as in `select a.id as a_id`",
            columns=double,
        )
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(_TYPES, ([oid for _, oid, _ in described], [typmod for _, _, typmod in described]))
        types: list[TupleRow] = cursor.fetchall()
    return [
        column_for(Described(name, oid, typmod, postgres_type, is_enum, element_oid, element_is_enum))
        for (name, oid, typmod), (_, postgres_type, is_enum, element_oid, element_is_enum) in zip(
            described, types, strict=True
        )
    ]


def read(
    connection: Connection, query: str, columns: Sequence[Column], sizes: Iterator[int]
) -> Generator[Any, None, None]:
    """The rows of `query` as `pyarrow.RecordBatch`; none is empty.

    `sizes` tells before each batch how many rows it may have at most; a batch has less where `BATCH_ROWS` or
    `BATCH_BYTES` are reached first, so that memory stays bounded however many rows there are.
    """
    rows: list[bytes | memoryview] = []
    first_row = 1
    held = 0
    limit = min(next(sizes), BATCH_ROWS)
    try:
        with CopyStream(connection, copy_statement(query, columns).as_bytes(connection)) as stream:
            for row in stream:
                rows.append(row)
                held += len(row)
                if len(rows) >= limit or held >= BATCH_BYTES:
                    yield Batch(rows, first_row).decode(columns)
                    first_row += len(rows)
                    rows, held, limit = [], 0, min(next(sizes), BATCH_ROWS)
    except psycopg.Error as error:
        raise explain(error, rows=first_row - 1 + len(rows)) from error
    if rows:
        yield Batch(rows, first_row).decode(columns)


def copy_statement(query: str, columns: Sequence[Column]) -> sql.Composed:
    """COPY of the query, with casts around those columns that need one."""
    body = sql.SQL(_without_semicolon(query))
    inner = sql.SQL("({}\n)").format(body)  # on a line of its own: the query may end in a comment
    if any(column.cast for column in columns):
        names = [sql.Identifier(f"c{number}") for number in range(len(columns))]
        picked = [
            sql.SQL("{}::{}").format(name, sql.SQL(column.cast)) if column.cast else name
            for name, column in zip(names, columns, strict=True)
        ]
        inner = sql.SQL("(select {} from {} as q ({}))").format(
            sql.SQL(", ").join(picked), inner, sql.SQL(", ").join(names)
        )
    return sql.SQL("copy {} to stdout (format binary)").format(inner)


def explain(error: psycopg.Error, rows: int = 0, *, planning: bool = False) -> AbsurdError:
    """What PostgreSQL or its driver said, in one sentence, as the error that tells whose fault it is.

    `rows` were sent before; while `planning`, nothing has run yet and the query itself is at fault.
    """
    state = error.sqlstate
    said = _first_line(error, placed=planning)
    details: dict[str, Any] = {"sqlstate": state} if state else {}
    after = f" after {rows} rows" if rows else ""
    if state is None or state.startswith(_LOST):
        return DatabaseUnavailableError(f"the database went away during the export{after}: {said}", **details)
    if planning or state.startswith(_NOT_A_QUERY):
        return ExportQueryError(f"PostgreSQL refuses the query: {said}", **details)
    return ExportFailedError(f"the query failed{after}: {said}", rows=rows, **details)


def _describe(connection: Connection, query: str) -> list[tuple[str, int, int]]:
    """Name, type OID and type modifier of each column, by the extended protocol, which takes one statement only."""
    with connection.lock:
        prepared = connection.pgconn.prepare(b"", query.encode())
        if prepared.status == pq.ExecStatus.COMMAND_OK:
            prepared = connection.pgconn.describe_prepared(b"")
    if prepared.status != pq.ExecStatus.COMMAND_OK:
        raise explain(psycopg.errors.error_from_result(prepared), planning=True)
    return [
        ((prepared.fname(place) or b"").decode(), prepared.ftype(place), prepared.fmod(place))
        for place in range(prepared.nfields)
    ]


def _without_semicolon(query: str) -> str:
    """The query without the semicolons and blanks at its end."""
    return query.rstrip().rstrip("; \t\r\n\f")


def _first_line(error: psycopg.Error, *, placed: bool = False) -> str:
    """PostgreSQL's own message, and its hint; with the place in the statement, if `placed` and known."""
    diagnosis = error.diag
    if not diagnosis.message_primary:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else type(error).__name__
    told = diagnosis.message_primary
    if placed and diagnosis.statement_position:
        told += f" (at character {diagnosis.statement_position})"
    return f"{told}; {diagnosis.message_hint}" if diagnosis.message_hint else told
