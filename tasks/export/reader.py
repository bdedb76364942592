"""A query's description and its rows, both from one snapshot of the database."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq, sql
from psycopg.rows import TupleRow, tuple_row

from absurd.errors import AbsurdError, DatabaseUnavailableError
from absurd.tasks.export import statement
from absurd.tasks.export.address import check_address
from absurd.tasks.export.arrow_types import (
    NAME_TO_ARROW,
    Column,
    Described,
    Wishes,
    arrow_type,
    column_for,
    registered_types,
)
from absurd.tasks.export.destination import is_plain_text
from absurd.tasks.export.errors import ExportConfigError, ExportFailedError, ExportQueryError
from absurd.tasks.said import first_line

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

_SETTINGS = {
    "extra_float_digits": "3",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "client_encoding": "UTF8",
    "array_nulls": "on",
    "synchronize_seqscans": "off",
    "max_parallel_workers_per_gather": "0",
    "idle_in_transaction_session_timeout": "0",
}
SESSION = f"""
    select {", ".join(f"set_config('{name}', '{value}', true)" for name, value in _SETTINGS.items())},
           (select set_config(name, '1s', true) from pg_catalog.pg_settings
            where name = 'client_connection_check_interval' and version() ~ 'linux')
"""
"""What the text of a value depends on, and the order of a table's rows, for this transaction only.

So the same export gives the same anywhere.  While the last rows are written nothing is asked of the server, which must
not take that for idleness.  The last one ends the statement of an export that was killed, which the server would
notice with its next row only; servers elsewhere than on Linux may refuse it.
"""

PATIENCE = """
    select set_config(name, '0', true) from pg_catalog.pg_settings
    where name in ('idle_in_transaction_session_timeout', 'transaction_timeout')
"""
"""For transactions of our own: no limit of the server may end one while others export, or while rows are written."""

_TYPES = """
    select c.place, format_type(c.oid, nullif(c.typmod, -1)), t.typtype = 'e',
           case when e.oid is not null and t.typlen = -1 and t.typcategory = 'A' and t.typdelim = ','
                     and t.oid not in ('int2vector'::regtype, 'oidvector'::regtype) then e.oid else 0 end::int8,
           coalesce(e.typtype = 'e', false), coalesce(e.typmod, c.typmod),
           (select format('%%I.%%I', n.nspname, p.proname)
            from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
            where p.oid = t.typoutput),
           coalesce(x.extname::text, '')
    from unnest(%s::oid[], %s::int4[]) with ordinality as c (oid, typmod, place)
         join pg_catalog.pg_type t on t.oid = c.oid
         left join lateral (
             with recursive base (oid, typtype, typbasetype, typmod) as (
                 select oid, typtype, typbasetype, null::int4 from pg_catalog.pg_type where oid = t.typelem
                 union all
                 select n.oid, n.typtype, n.typbasetype, b.typtypmod
                 from base join pg_catalog.pg_type b on b.oid = base.oid
                      join pg_catalog.pg_type n on n.oid = base.typbasetype
                 where base.typtype = 'd'
             )
             select oid, typtype, nullif(typmod, -1) as typmod from base where typtype <> 'd'
         ) e on true
         left join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_type'::regclass and d.deptype = 'e'
                   and d.objid = coalesce(nullif(t.typelem, 0), t.oid)
         left join pg_catalog.pg_extension x on x.oid = d.refobjid
    order by c.place
"""
"""Domains of columns are resolved by the server already, those of the elements of arrays are here.

An array whose elements are parted by anything but a comma (box has it so) is no list here: `_sent` has no use for it.
"""

_TOKEN = re.compile(
    r"""(?P<nothing>[\s;]+ | --[^\r\n]* | /\*.*?(?:\*/|\Z))
      | [eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) | '[^']*(?:'|\Z) | "[^"]*(?:"|\Z)
      | (?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?:(?P=tag)|\Z) | \w[\w$]* | .""",
    re.DOTALL | re.VERBOSE,
)
"""A piece of a query.  Of a comment in a comment the end is left over, as something that is no comment."""

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
    is_checked: bool = True
    """Whether the server knows how its text is encoded; with SQL_ASCII it does not."""


class OwnConnection(psycopg.Connection[Any]):
    """A connection that was made here: its session is as its address and the server make it, and nobody else's."""


@contextmanager
def connected(database: str | Connection) -> Iterator[Connection]:
    """A connection to export from: the one given, or one of its own to that URL or DSN.

    Raises DatabaseUnavailableError, or ExportConfigError for an address that cannot be used; neither holds a password.
    """
    if not isinstance(database, str):
        yield database
        return
    check_address(database)
    try:
        connection = OwnConnection.connect(database, fallback_application_name="absurd export")
    except psycopg.Error as error:
        raise DatabaseUnavailableError(f"the database to export from cannot be reached: {_message(error)}") from None
    with connection:
        yield connection


@contextmanager
def one_snapshot(connection: Connection, taken_at: str | None = None) -> Iterator[Snapshot]:
    """A read-only transaction in which everything is seen as of one moment.

    Within a transaction that the caller has begun, that one is used as it is; so several exports share one
    snapshot if it is REPEATABLE READ.  `taken_at` is when another transaction took it, if one did.
    """
    ours = connection.info.transaction_status == pq.TransactionStatus.IDLE
    before: dict[str, str] = {}
    try:
        if ours:
            with connection.cursor() as cursor:
                begin = "set transaction isolation level repeatable read, read only"
                cursor.execute(f"begin; {begin}" if connection.autocommit else begin)
        else:
            before = _settings(connection)
        with connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute(SESSION)
            if ours or isinstance(connection, OwnConnection):
                cursor.execute(PATIENCE)
            cursor.execute(
                "select current_setting('server_version'), pg_current_snapshot()::text, now()::text,"
                " current_setting('server_encoding') <> 'SQL_ASCII'"
            )
            version, snapshot, begun, is_checked = cursor.fetchone() or ("", "", "", True)
        yield Snapshot(version, snapshot, taken_at or begun, is_checked)
    except psycopg.Error as error:
        raise explain(error) from error
    finally:
        statement.end(connection)
        with suppress(psycopg.Error):  # the connection died meanwhile: nothing is left to end, and the rows are here
            if ours and not connection.closed:
                connection.rollback()
            elif connection.info.transaction_status == pq.TransactionStatus.INTRANS:
                set_locally(connection, before)


def set_locally(connection: Connection, settings: Mapping[str, str]) -> None:
    """Set these for the rest of the transaction."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(
            "select set_config(name, value, true) from unnest(%s::text[], %s::text[]) as s (name, value)",
            (list(settings), list(settings.values())),
        )


def _settings(connection: Connection) -> dict[str, str]:
    """What the transaction has, of all that is to be set for an export."""
    encoding = connection.info.parameter_status("client_encoding") or "UTF8"
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("select set_config('client_encoding', 'UTF8', true)")  # in some others, text is bytes here
        cursor.execute(
            "select name, setting from pg_catalog.pg_settings where name = any(%s) and name <> 'client_encoding'",
            ([*_SETTINGS, "client_connection_check_interval"],),
        )
        return dict(cursor.fetchall()) | {"client_encoding": encoding}


def describe(connection: Connection, query: str, wishes: Wishes) -> list[Column]:
    """The columns that `query` gives, kept as wished; the server plans it and runs nothing.

    Raises ExportQueryError if PostgreSQL refuses the query, if it is several or none, if it gives no columns, or
    two of one name.
    """
    described = names_and_types(connection, query)
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
        column_for(Described(name, oid, typmod, *told), wishes, as_text=place in wishes.as_text)
        for place, ((name, oid, typmod), (_, *told)) in enumerate(zip(described, types, strict=True))
    ]


def types_by_oid(connection: Connection, named: Mapping[int | str, Any]) -> dict[int, Any]:
    """Arrow types by OID, from those that are wanted by OID or by the name of a type in SQL, and the registered ones.

    Raises ExportConfigError for a name that the server does not know, and for a type that is named twice, as `numeric`
    and 1700 or `int4` and `integer`, and is to be kept as one thing and as another.
    """
    registered = registered_types()
    names = [str(each) for each in (*registered, *named) if not str(each).isdecimal()]
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("select name, to_regtype(name)::oid::int8 from unnest(%s::text[]) as n (name)", (names,))
        known = {name: oid for name, oid in cursor.fetchall() if oid is not None}
    unknown = [str(each) for each in named if not str(each).isdecimal() and str(each) not in known]
    if unknown:
        raise ExportConfigError(
            f"the database has no type {unknown[0]!r}: name it as in SQL, with its schema, or by OID"
        )
    of_process = _agreed("what is registered", registered, known)
    by_name = {known[name] for name in NAME_TO_ARROW if name in known}
    return {oid: of_process[oid] for oid in by_name} | _agreed("type_map", named, known)


def _agreed(where: str, named: Mapping[int | str, Any], known: Mapping[str, int]) -> dict[int, Any]:
    """Arrow types by OID; names that the database does not have are left out."""
    found: dict[int, tuple[int | str, Any]] = {}
    for key, wanted in named.items():
        oid = int(key) if str(key).isdecimal() else known.get(str(key))
        if oid is not None:
            arrow = arrow_type(wanted)
            first, before = found.setdefault(oid, (key, arrow))
            if before != arrow:
                raise ExportConfigError(
                    f"{where} names one type twice, {first} as {before} and {key} as {arrow}: keep one of the two"
                )
    return {oid: arrow for oid, (_, arrow) in found.items()}


def copy_statement(query: str, columns: Sequence[Column]) -> sql.Composed:
    """COPY of the query, in which the columns that come as text are made text."""
    body = sql.SQL(without_semicolon(query))
    inner = sql.SQL("({}\n)").format(body)  # on a line of its own: the query may end in a comment
    if any(column.text_function for column in columns):
        names = [sql.Identifier(f"c{number}") for number in range(len(columns))]
        picked = [_sent(name, column) for name, column in zip(names, columns, strict=True)]
        inner = sql.SQL("(select {} from {} as q ({}))").format(
            sql.SQL(", ").join(picked), inner, sql.SQL(", ").join(names)
        )
    return sql.SQL("copy {} to stdout (format binary)").format(inner)


def _sent(name: sql.Identifier, column: Column) -> sql.Composable:
    """What to send of a column.

    Text comes from the type's output function, as COPY has it in its text form.  A cast to text would do for most
    types, but not for all: it takes the blanks off character(n), adds ``/32`` to an inet, and whoever makes a type
    may make a cast for it that says anything.
    """
    if not column.text_function:
        return name
    text = sql.SQL("pg_catalog.textin({}({}))").format(sql.SQL(column.text_function), name)
    return sql.SQL("{}::pg_catalog.text[]").format(text) if column.is_list else text


def explain(error: psycopg.Error, rows: int = 0, *, planning: bool = False) -> AbsurdError:
    """What PostgreSQL or its driver said, in one sentence, as the error that tells whose fault it is.

    `rows` were sent before; while `planning`, nothing has run yet and the query itself is at fault.
    """
    state = error.sqlstate
    said = _message(error, placed=planning)
    details: dict[str, Any] = {"sqlstate": state} if state else {}
    after = f" after {rows} rows" if rows else ""
    if state is None or state.startswith(_LOST):
        return DatabaseUnavailableError(f"the database went away during the export{after}: {said}", **details)
    if planning or state.startswith(_NOT_A_QUERY):
        return ExportQueryError(f"PostgreSQL refuses the query: {said}", **details)
    return ExportFailedError(f"the query failed{after}: {said}", rows=rows, **details)


def names_and_types(connection: Connection, query: str) -> list[tuple[str, int, int]]:
    """Name, type OID and type modifier of each column, by the extended protocol, which takes one statement only."""
    if not is_plain_text(query):  # libpq would send what stands before the NUL
        raise ExportQueryError("the query holds a NUL, or is not UTF-8: as it is, it cannot be sent whole")
    pgconn = connection.pgconn
    try:
        with connection.lock:
            pgconn.send_prepare(b"", query.encode())
            statement.outcome_of(pgconn)
            pgconn.send_describe_prepared(b"")
            prepared = statement.outcome_of(pgconn)
    except psycopg.Error as error:
        raise explain(error, planning=True) from error
    return [
        ((prepared.fname(place) or b"").decode(), prepared.ftype(place), prepared.fmod(place))
        for place in range(prepared.nfields)
    ]


def without_semicolon(query: str) -> str:
    """The query without the semicolons at its end, and the blanks and comments among them.

    Were a quote taken wrongly, what is left would have one without its end, which the server refuses.
    """
    body = query.rstrip("; \t\r\n\f")
    if ";" not in body:
        return body
    end = 0
    for found in _TOKEN.finditer(query):
        if found["nothing"] is None:
            end = found.end()
    return query[:end] if ";" in query[end:] else query


def _message(error: psycopg.Error, *, placed: bool = False) -> str:
    """PostgreSQL's own message, and its hint; with the place in the statement, if `placed` and known."""
    diagnosis = error.diag
    if not diagnosis.message_primary:
        return first_line(error)
    told = diagnosis.message_primary
    if placed and diagnosis.statement_position:
        told += f" (at character {diagnosis.statement_position})"
    return f"{told}; {diagnosis.message_hint}" if diagnosis.message_hint else told
