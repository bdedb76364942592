"""Other connections that see what a connection sees, down to its settings: or none, where that is not sure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from absurd.tasks.export import reader, statement
from absurd.tasks.export.arrow_types import Column
from absurd.tasks.export.splitting import Plan, nodes_of, plan_of

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

_IS_SHARED = """
    select current_setting('transaction_isolation') in ('repeatable read', 'serializable')
           and pg_current_xact_id_if_assigned() is null
           and not exists (select from pg_catalog.pg_locks
                           where pid = pg_backend_pid() and locktype = 'relation' and mode = 'AccessExclusiveLock')
"""
"""Whether others can have the snapshot of a transaction, see all in it that it sees itself, and is not locked out."""

_STATE = """
    select session_user::text, current_user::text, current_database()::text, pg_postmaster_start_time()::text,
           pg_current_snapshot()::text
"""
_SETTINGS = """
    select name, setting from pg_catalog.pg_settings
    where name not in ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')
"""
_LOCK_TIMEOUT = "1s"
"""Another connection waits for a lock behind one who waits for ours, that is for ever."""

_COLUMN = re.compile(r'((?:[a-z_][a-z0-9_]*|"(?:[^"]|"")+")\.)?(?:[a-z_][a-z0-9_]*|"(?:[^"]|"")+")')
_FIRST_OWN_OID = 16384
"""All types below are built in."""


@contextmanager
def shared_connections(
    connection: Connection, wanted: int, query: str, columns: Sequence[Column]
) -> Iterator[list[Connection]]:
    """The connection, and others that see its snapshot: as many in all as wanted, or as the server has left.

    Alone if its transaction has changes of its own or sees a new snapshot with each statement, and where another
    could see anything else: as another user, with another plan, or with other settings.  Who made the connection may
    have given it settings that nobody can list (``set my.tenant = 7``), so such a one is shared only for queries that
    look at nothing but stored values, and at no temporary table.
    """
    found = [connection]
    with ExitStack() as opened:
        if wanted > 1:
            plan = plan_of(connection, reader.without_semicolon(query))
            snapshot = _exported(connection, plan, columns)
            while snapshot and plan and len(found) < wanted:
                another = _beside(connection, snapshot, query, plan)
                if another is None:
                    break
                opened.callback(another.close)  # no commit: it may be gone meanwhile, and nothing hangs on it
                found.append(another)
        yield found


def _exported(connection: Connection, plan: Plan | None, columns: Sequence[Column]) -> str:
    """The name of the snapshot for others; empty if nobody is to have it."""
    if plan is None or not (isinstance(connection, reader.OwnConnection) or _is_stored(plan, columns)):
        return ""
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(_IS_SHARED)
        if cursor.fetchone() != (True,):
            return ""
        cursor.execute("select pg_export_snapshot()")
        (snapshot,) = cursor.fetchone() or ("",)
    return str(snapshot)


def _is_stored(plan: Plan, columns: Sequence[Column]) -> bool:
    """Whether a query gives stored values of built-in types, all there are, of tables that others can see too.

    No function runs then that could read a setting, be it one of a condition, of an operator or of row security.
    """
    return all(column.oid < _FIRST_OWN_OID for column in columns) and all(
        "Filter" not in node
        and not node.get("Schema", "").startswith("pg_temp")
        and all(_COLUMN.fullmatch(each) for each in node.get("Output", ()))
        for node in nodes_of(plan)
    )


def _beside(connection: Connection, snapshot: str, query: str, plan: Plan) -> Connection | None:
    """Another connection that sees the same; None if the server refuses one more, or it would see anything else."""
    try:
        another = psycopg.connect(**_address(connection), autocommit=True)
    except psycopg.Error:
        return None
    try:
        another.execute("begin isolation level repeatable read, read only")
        another.execute(sql.SQL("set transaction snapshot {}").format(snapshot))
        another.execute(reader.SESSION)
        if _is_made_equal(another, connection, query, plan):
            another.execute(reader.PATIENCE)
            return another
    except psycopg.Error:  # the snapshot is of another server, a setting may not be made, a table is locked, ...
        if connection.broken:
            raise
    except BaseException:
        statement.end(another)
        another.close()
        raise
    with suppress(psycopg.Error):
        another.close()
    return None


def _is_made_equal(another: Connection, connection: Connection, query: str, plan: Plan) -> bool:
    """Give another connection the settings of the first; whether it then is the same in all that can be seen."""
    if _rows(another, _STATE) != _rows(connection, _STATE):
        return False
    wanted = dict(_rows(connection, _SETTINGS))
    had = dict(_rows(another, _SETTINGS))
    reader.set_locally(another, {name: value for name, value in wanted.items() if had.get(name) != value})
    if dict(_rows(another, _SETTINGS)) != wanted:
        return False
    reader.set_locally(another, {"lock_timeout": _LOCK_TIMEOUT})
    is_same = plan_of(another, reader.without_semicolon(query)) == plan  # which also takes the locks
    reader.set_locally(another, {"lock_timeout": wanted["lock_timeout"]})
    return is_same


def _rows(connection: Connection, query: str) -> list[Any]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query).fetchall()


def _address(connection: Connection) -> dict[str, Any]:
    """Where the connection leads, to that one server even if its address names several."""
    info = connection.info
    given: dict[str, Any] = {**info.get_parameters(), "host": info.host, "port": str(info.port)}
    given.pop("hostaddr", None)
    if info.hostaddr and not info.host.startswith(("/", "@")):
        given["hostaddr"] = info.hostaddr
    if info.password:
        given["password"] = info.password
    return given
