"""The database for plain programs, on psycopg: one connection, and the same calls as `database`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self, TypeVar

import psycopg
from psycopg import RawCursor
from psycopg.rows import dict_row

from absurd.call import Call, Calls, Row, in_schema
from absurd.database import begins_transaction
from absurd.database_errors import (
    MEETINGS,
    check_server,
    is_driver_error,
    is_lost,
    met_another,
    pause_before,
    translate,
)
from absurd.database_url import describe, for_psycopg
from absurd.errors import ConflictError, DatabaseUnavailableError, InvalidOptionError
from absurd.schema import quoted
from absurd.schema.grants import Profile
from absurd.schema.migrate import Installed, Migration, busy, dependent, grant, migrate, schema_version

T = TypeVar("T")


class SyncSession:
    """Runs calls on one psycopg connection, ours or the caller's."""

    def __init__(self, connection: psycopg.Connection[Any], *, schema: str, address: str = "") -> None:
        self.connection = connection
        self.schema = schema
        self._quoted = quoted(schema)
        self._address = address

    def run(self, call: Call[T]) -> T:
        """Make `call` and return its value."""
        return call.decode(self.fetch(call.sql, *call.args))

    def run_all(self, calls: Iterable[Call[T]]) -> list[T]:
        """Make all `calls` or none, in the open transaction if there is one."""
        with self.atomic():
            return [self.run(call) for call in calls]

    def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        """All rows of `sql`, in which ``{schema}`` stands for the schema of the queue."""
        try:
            with RawCursor(self.connection, row_factory=dict_row) as cursor:
                cursor.execute(in_schema(sql, self._quoted), args)
                return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise translate(error, address=self._address, schema=self.schema) from error

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Make the calls within all or nothing: in the open transaction, else in one of their own."""
        transaction: AbstractContextManager[Any] = nullcontext()
        if begins_transaction(self.connection):
            transaction = self.connection.transaction()
        try:
            with transaction:
                yield
        except Exception as error:  # of BEGIN or COMMIT: those from within are translated already
            if is_driver_error(error):
                raise translate(error, address=self._address, schema=self.schema) from error
            raise


class SyncDatabase:
    """One connection, shared by the threads of the process in turn and made anew when it is lost."""

    def __init__(self, url: str, *, schema: str = "absurd", prepared_statements: bool = True) -> None:
        self.schema = schema
        self.address = describe(url)
        self.prepared_statements = prepared_statements
        self._url = for_psycopg(url)
        self._quoted = quoted(schema)
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[Any] | None = None
        self._open = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether `open` has succeeded and `close` was not called."""
        return self._open

    def open(self) -> None:
        """Connect, and check that server and schema are such that this program can work with them."""
        with self._lock:
            if self._open:
                return
            self._connection = self.connect()
            self._open = True
            try:
                rows = self.fetch("select key, value from {schema}.meta")
                Installed.read({row["key"]: row["value"] for row in rows}, self.schema).check(self.schema)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            connection, self._connection, self._open = self._connection, None, False
            if connection is not None:
                connection.close()

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of its own, in autocommit mode; for a listener."""
        connection = connect(self._url, address=self.address)
        connection.prepare_threshold = 5 if self.prepared_statements else None
        return connection

    @contextmanager
    def session(self) -> Iterator[SyncSession]:
        """The connection, to run calls on; other threads wait meanwhile."""
        with self._lock:
            if not self._open:
                raise DatabaseUnavailableError(f"the connection to {self.address} is not open", address=self.address)
            if self._connection is None or self._connection.closed:
                self._connection = self.connect()
            yield SyncSession(self._connection, schema=self.schema, address=self.address)

    @contextmanager
    def transaction(self) -> Iterator[SyncSession]:
        """The connection in a transaction that commits unless an error leaves the block."""
        with self.session() as session, session.atomic():
            yield session

    def run(self, call: Call[T]) -> T:
        """Make `call`; once more on another connection if the first was lost and that does no harm."""
        return self._insist(lambda session: session.run(call), lambda: call.repeatable)

    def run_all(self, calls: Iterable[Call[T]]) -> list[T]:
        """Make all `calls` or none; once more if the connection was lost and that does no harm.

        A deadlock or a serialization failure has rolled everything back, so it is tried again a few times.
        """
        kept = Calls(calls)

        def make(session: SyncSession) -> list[T]:
            if kept.at_most_one():  # its statement is a transaction
                return [session.run(call) for call in kept]
            return session.run_all(kept)

        return self._insist(make, kept.repeatable)

    def _insist(self, make: Callable[[SyncSession], T], repeatable: Callable[[], bool]) -> T:
        """The value of `make`, called again when it met another, and once more when its connection was lost."""
        meetings, lost = 0, False
        while True:
            try:
                with self.session() as session:
                    return make(session)
            except DatabaseUnavailableError as error:
                if lost or not (is_lost(error.__cause__) and repeatable()):
                    raise
                lost = True
            except ConflictError as error:
                meetings += 1
                if not met_another(error) or meetings == MEETINGS:
                    raise
                time.sleep(pause_before(meetings - 1))

    def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        """All rows of `sql`, in which ``{schema}`` stands for the schema of the queue."""
        with self.session() as session:
            return session.fetch(sql, *args)

    @contextmanager
    def listening(self, *topics: str) -> Iterator[Callable[[float], str | None]]:
        """Listen on ``<schema>_<topic>`` of each: a function that waits so many seconds at most for the next payload.

        When the connection is lost it only waits, with None for an answer, and the caller polls.
        """
        connection = self.connect()
        try:
            for topic in topics:
                connection.execute(f"listen {quoted(self.schema + '_' + topic)}")

            def heard(seconds: float) -> str | None:
                try:
                    for notice in connection.notifies(timeout=seconds, stop_after=1):
                        return notice.payload
                except psycopg.OperationalError:
                    time.sleep(seconds)
                return None

            yield heard
        except psycopg.Error as error:
            raise translate(error, address=self.address, schema=self.schema) from error
        finally:
            connection.close()


def session_on(connection: Any, *, schema: str, address: str = "the caller's connection") -> SyncSession:
    """Run calls on a caller's connection.  Raises InvalidOptionError for what is none of psycopg's."""
    if not isinstance(connection, psycopg.Connection):
        raise InvalidOptionError(
            f"connection is a {type(connection).__module__}.{type(connection).__qualname__}; "
            "it must be a psycopg Connection",
            option="connection",
        )
    return SyncSession(connection, schema=schema, address=address)


def connect(url: str, *, address: str | None = None) -> psycopg.Connection[Any]:
    """A connection in autocommit mode to a server that is new enough."""
    address = address or describe(url)
    try:
        connection = psycopg.connect(for_psycopg(url), autocommit=True)
    except psycopg.Error as error:
        raise translate(error, address=address) from error
    try:
        check_server(connection.info.server_version, address)
    except BaseException:
        connection.close()
        raise
    return connection


def install(url: str, schema: str = "absurd", *, finish: bool = True) -> Migration:
    """Install the queue in a database or upgrade it; see `absurd.schema.migrate.migrate`.

    Raises SchemaBusyError when an upgrade cannot have the tables to itself, SchemaError when something
    of somebody else's is built on what it has to drop.
    """
    with _administrating(url, schema) as connection:
        try:
            return migrate(connection, schema, finish=finish)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            raise busy(connection, schema) from error
        except psycopg.errors.DependentObjectsStillExist as error:
            raise dependent(schema, error.diag.message_detail or str(error)) from error


def installed_version(url: str, schema: str = "absurd") -> int | None:
    """The schema version of a database, None where the queue is not installed."""
    with _administrating(url, schema) as connection:
        return schema_version(connection, schema)


def grant_role(url: str, role: str, profile: Profile, schema: str = "absurd") -> None:
    """Give a database role what its profile needs; see `absurd.schema.migrate.grant`."""
    with _administrating(url, schema) as connection:
        grant(connection, role, profile, schema)


@contextmanager
def _administrating(url: str, schema: str) -> Iterator[psycopg.Connection[Any]]:
    address = describe(url)
    try:
        with connect(url, address=address) as connection:
            yield connection
    except psycopg.Error as error:
        raise translate(error, address=address, schema=schema) from error
