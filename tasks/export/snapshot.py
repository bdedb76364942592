"""One snapshot of the database for several connections: held open by one, looked at by the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from absurd.tasks.export import reader, statement
from absurd.tasks.export.errors import SnapshotGoneError

if TYPE_CHECKING:
    Connection = psycopg.Connection[Any]

LONG_SECONDS = 300.0
"""Who holds a snapshot for longer is warned of what that costs."""

_BEGIN = "begin isolation level repeatable read, read only"
_GONE = ("22023", "42704", "55000", "58P01")
"""What PostgreSQL says of a snapshot that it does not hold any more, by version."""


@dataclass(frozen=True, slots=True)
class HeldSnapshot:
    """A snapshot that a transaction keeps for others."""

    id: str
    """For SET TRANSACTION SNAPSHOT, as pg_export_snapshot() gives it."""
    snapshot: str
    """``xmin:xmax:xip_list`` as pg_current_snapshot() gives it."""
    taken_at: str
    """Start of the transaction that took it first, ISO 8601 in UTC."""


class HoldWatch:
    """Warns, once, that a snapshot is held for long; it is held from when this is made."""

    def __init__(self, warn: Callable[[str], None] | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._warn = warn
        self._clock = clock
        self._since = clock()

    def look(self) -> None:
        """To be called now and then."""
        if self._warn is not None and self._clock() - self._since > LONG_SECONDS:
            self._warn(
                f"the snapshot of this export is held for more than {LONG_SECONDS / 60:.0f} minutes: "
                "until its end, vacuum removes no row that others delete or update meanwhile"
            )
            self._warn = None


@contextmanager
def connected(database: str) -> Iterator[Connection]:
    """A connection in autocommit mode to that URL or DSN.

    Raises DatabaseUnavailableError, whose message holds no password.
    """
    with reader.connected(database) as connection:
        connection.autocommit = True
        yield connection


@contextmanager
def hold_snapshot(connection: Connection, earlier: Sequence[HeldSnapshot] = ()) -> Iterator[HeldSnapshot]:
    """Take a snapshot and keep it for others until the block ends; rows that die meanwhile cannot be vacuumed.

    The connection must be in autocommit mode and in no transaction.  The first of `earlier` that is still kept by
    somebody else is taken over: the same snapshot under another id is held.  Raises DatabaseUnavailableError.
    """
    try:
        yield _hold(connection, earlier)
    finally:
        _end(connection)


@contextmanager
def at_snapshot(connection: Connection, held: HeldSnapshot) -> Iterator[None]:
    """A read-only transaction on `connection` (in autocommit mode) that sees what `held` does.

    Raises SnapshotGoneError once nobody holds it any more, DatabaseUnavailableError.
    """
    try:
        if not _take_over(connection, held):
            raise SnapshotGoneError(
                f"the snapshot {held.id} of {held.taken_at} is gone: the transaction that held it has ended",
                snapshot=held.snapshot,
            )
        yield
    finally:
        _end(connection)


def keep_too(connection: Connection, held: HeldSnapshot) -> HeldSnapshot:
    """What the transaction of `at_snapshot` keeps as well: the same under an id of its own.

    That lasts as long as this transaction, where the id of who held it first dies with him.  Raises
    DatabaseUnavailableError.
    """
    try:
        with connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute("select pg_export_snapshot()")
            (name,) = cursor.fetchone() or ("",)
    except psycopg.Error as error:
        raise reader.explain(error) from error
    return replace(held, id=name)


def _hold(connection: Connection, earlier: Sequence[HeldSnapshot]) -> HeldSnapshot:
    taken_over = next((each for each in earlier if _take_over(connection, each)), None)
    try:
        if taken_over is None:
            connection.execute(_BEGIN)
        connection.execute(reader.PATIENCE)
        connection.execute("select set_config('TimeZone', 'UTC', true)")
        with connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute("select pg_export_snapshot(), pg_current_snapshot()::text, now()::text")
            name, snapshot, now = cursor.fetchone() or ("", "", "")
    except psycopg.Error as error:
        raise reader.explain(error) from error
    return HeldSnapshot(name, snapshot, now if taken_over is None else taken_over.taken_at)


def _take_over(connection: Connection, held: HeldSnapshot) -> bool:
    """Begin a transaction at that snapshot; False, and no transaction, if it is gone.

    A server that was restarted gives ids anew, so the snapshot itself is compared.
    """
    try:
        connection.execute(_BEGIN)
        connection.execute(sql.SQL("set transaction snapshot {}").format(held.id))
        with connection.cursor(row_factory=tuple_row) as cursor:
            cursor.execute("select pg_current_snapshot()::text")
            if cursor.fetchone() == (held.snapshot,):
                return True
    except psycopg.Error as error:
        if error.sqlstate not in _GONE:
            raise reader.explain(error) from error
    connection.rollback()
    return False


def _end(connection: Connection) -> None:
    statement.end(connection)
    if not connection.closed:
        with suppress(psycopg.Error):  # the connection died meanwhile: nothing is left to end
            connection.rollback()
