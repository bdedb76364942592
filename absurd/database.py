"""The database for asyncio, on asyncpg: a pool, transactions, and errors in the words of absurd."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Self, TypeVar

from absurd.call import Call, Calls, Row, in_schema
from absurd.database_errors import (
    MEETINGS,
    check_server,
    is_driver_error,
    is_lost,
    met_another,
    pause_before,
    translate,
)
from absurd.database_url import describe, for_asyncpg
from absurd.errors import ConflictError, DatabaseUnavailableError, InvalidOptionError
from absurd.schema import quoted
from absurd.schema.migrate import Installed

if TYPE_CHECKING:
    import asyncpg

T = TypeVar("T")

SPARE_SECONDS = 60.0
"""How long a connection may be idle and still be taken without asking the pool, which closes what is idle for long."""


class AsyncSession:
    """Runs calls on one asyncpg connection, ours or the caller's."""

    def __init__(self, connection: Any, *, schema: str, address: str = "", prepared_statements: bool = True) -> None:
        self.connection = connection
        self.schema = schema
        self._quoted = quoted(schema)
        self._address = address
        self._prepared_statements = prepared_statements

    async def run(self, call: Call[T]) -> T:
        """Make `call` and return its value."""
        return call.decode(await self.fetch(call.sql, *call.args))

    async def run_all(self, calls: Iterable[Call[T]]) -> list[T]:
        """Make all `calls` or none, in the open transaction if there is one.

        Each is made ready while the database works on the one before.
        """
        answers: list[T] = []
        async with self.atomic():
            underway: asyncio.Task[T] | None = None
            try:
                for call in calls:
                    if underway is not None:
                        answers.append(await underway)
                    underway = asyncio.ensure_future(self.run(call))
                    await asyncio.sleep(0)  # now it is on its way
                if underway is not None:
                    answers.append(await underway)
            except BaseException:
                if underway is not None:  # the connection must be free for the rollback
                    underway.cancel()
                    await asyncio.gather(underway, return_exceptions=True)
                raise
        return answers

    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        """All rows of `sql`, in which ``{schema}`` stands for the schema of the queue."""
        try:
            return await self._fetch(in_schema(sql, self._quoted), args)
        except Exception as error:
            if isinstance(error, OSError) or is_driver_error(error):
                raise translate(error, address=self._address, schema=self.schema) from error
            raise

    @asynccontextmanager
    async def atomic(self) -> AsyncIterator[None]:
        """Make the calls within all or nothing: in the open transaction, else in one of their own."""
        try:
            async with self._transaction():
                yield
        except Exception as error:  # of BEGIN or COMMIT: those from within are translated already
            if is_driver_error(error):
                raise translate(error, address=self._address, schema=self.schema) from error
            raise

    def _transaction(self) -> AbstractAsyncContextManager[Any]:
        if self.connection.is_in_transaction():
            return nullcontext()
        transaction: AbstractAsyncContextManager[Any] = self.connection.transaction()
        return transaction

    async def _fetch(self, sql: str, args: tuple[Any, ...]) -> Sequence[Row]:
        if self._prepared_statements:
            return await self.connection.fetch(sql, *args)  # type: ignore[no-any-return]
        # asyncpg parses and executes in two round trips.  A pooler in transaction mode may send the
        # second to another server, unless both are in one transaction.
        async with self._transaction():
            return await self.connection.fetch(sql, *args)  # type: ignore[no-any-return]


class PsycopgSession(AsyncSession):
    """Runs calls on a caller's psycopg AsyncConnection."""

    async def _fetch(self, sql: str, args: tuple[Any, ...]) -> Sequence[Row]:
        from psycopg import AsyncRawCursor
        from psycopg.rows import dict_row

        async with AsyncRawCursor(self.connection, row_factory=dict_row) as cursor:
            await cursor.execute(sql, args)
            return await cursor.fetchall() if cursor.description else []

    def _transaction(self) -> AbstractAsyncContextManager[Any]:
        if not begins_transaction(self.connection):
            return nullcontext()
        transaction: AbstractAsyncContextManager[Any] = self.connection.transaction()
        return transaction


class AsyncDatabase:
    """A pool of connections, made on `open` and bound to its event loop.

    `prepared_statements=False` is for poolers in transaction mode that do not keep them.  Who has a
    connection of the pool for longer than `patience` seconds loses it: the server failed over, and nothing says so.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "absurd",
        prepared_statements: bool = True,
        max_connections: int = 8,
        patience: float | None = None,
    ) -> None:
        self.schema = schema
        self.address = describe(url)
        self.prepared_statements = prepared_statements
        self._quoted = quoted(schema)
        self._arguments = for_asyncpg(url)
        self._max_connections = max_connections
        self._patience = patience
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._spare: AsyncSession | None = None
        """A connection kept out of the pool between two calls: to get it from there takes as long as a small call."""
        self._spared_at = 0.0
        self._awaited = 0
        """How many wait for a connection of the pool: they come before a spare one."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_open(self) -> bool:
        """Whether `open` has succeeded and `close` was not called."""
        return self._pool is not None

    async def open(self) -> None:
        """Connect, and check that server and schema are such that this program can work with them."""
        import asyncpg

        if self._pool is not None:
            return
        pool = asyncpg.create_pool(
            **self._connect_arguments(), min_size=0, max_size=self._max_connections, reset=_keep_as_it_is
        )
        try:
            await pool
            self._pool = pool
            async with self.session() as session:
                await self._check(session)
        except BaseException as error:
            self._pool = None
            pool.terminate()
            raise self._translated(error) from error

    async def close(self) -> None:
        """Close all connections; those in use are waited for, for ten seconds at most."""
        pool, self._pool = self._pool, None
        spare, self._spare = self._spare, None
        if pool is not None:
            try:
                async with asyncio.timeout(10):
                    if spare is not None:
                        await pool.release(spare.connection)
                    await pool.close()
            except (TimeoutError, OSError):
                pool.terminate()
            except BaseException:  # cancelled
                pool.terminate()
                raise

    def hang_up(self) -> None:
        """Drop all connections of the pool at once; calls that wait for an answer raise DatabaseUnavailableError."""
        if self._pool is not None:
            self._pool.terminate()

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection of its own, outside the pool; for a listener or a worker."""
        import asyncpg

        try:
            return await asyncpg.connect(**self._connect_arguments())
        except Exception as error:
            raise self._translated(error) from error

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """A connection of the pool to run calls on."""
        pool = self._pool
        if pool is None:
            raise DatabaseUnavailableError(f"the connection to {self.address} is not open", address=self.address)
        session = await self._acquire(pool)
        timer = None
        if self._patience is not None:
            timer = asyncio.get_running_loop().call_later(self._patience, session.connection.terminate)
        try:
            yield session
        except BaseException:
            await pool.release(session.connection)
            raise
        else:
            if self._spare is None and not self._awaited and pool is self._pool:
                self._spare, self._spared_at = session, time.monotonic()
            else:
                await pool.release(session.connection)
        finally:
            if timer is not None:  # only now: to be released it waits for what was cancelled
                timer.cancel()

    async def _acquire(self, pool: asyncpg.Pool[asyncpg.Record]) -> AsyncSession:
        """The spare connection, or one of the pool.  One that was long idle may be dead without a sign of it."""
        spare, self._spare = self._spare, None
        try:
            if spare is not None:
                if not _is_over(spare.connection):
                    if time.monotonic() < self._spared_at + SPARE_SECONDS:
                        return spare
                    spare.connection.terminate()
                await pool.release(spare.connection)
            self._awaited += 1
            try:
                connection = await pool.acquire()
            finally:
                self._awaited -= 1
        except Exception as error:
            raise self._translated(error) from error
        return AsyncSession(
            connection, schema=self.schema, address=self.address, prepared_statements=self.prepared_statements
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A connection of the pool in a transaction that commits unless an error leaves the block."""
        async with self.session() as session, session.atomic():
            yield session

    async def run(self, call: Call[T]) -> T:
        """Make `call`; once more on another connection if the first was lost and that does no harm."""
        return await self._insist(lambda session: session.run(call), lambda: call.repeatable)

    async def run_all(self, calls: Iterable[Call[T]]) -> list[T]:
        """Make all `calls` or none; once more if the connection was lost and that does no harm.

        A deadlock or a serialization failure has rolled everything back, so it is tried again a few times.
        """
        kept = Calls(calls)

        async def make(session: AsyncSession) -> list[T]:
            if kept.at_most_one():  # its statement is a transaction
                return [await session.run(call) for call in kept]
            return await session.run_all(kept)

        return await self._insist(make, kept.repeatable)

    async def _insist(self, make: Callable[[AsyncSession], Awaitable[T]], repeatable: Callable[[], bool]) -> T:
        """The value of `make`, called again when it met another, and once more when its connection was lost."""
        meetings, lost = 0, False
        while True:
            try:
                async with self.session() as session:
                    return await make(session)
            except DatabaseUnavailableError as error:
                if lost or not (is_lost(error.__cause__) and repeatable()):
                    raise
                lost = True
            except ConflictError as error:
                meetings += 1
                if not met_another(error) or meetings == MEETINGS:
                    raise
                await asyncio.sleep(pause_before(meetings - 1))

    async def fetch(self, sql: str, *args: Any) -> Sequence[Row]:
        """All rows of `sql`, in which ``{schema}`` stands for the schema of the queue."""
        async with self.session() as session:
            return await session.fetch(sql, *args)

    def _connect_arguments(self) -> dict[str, Any]:
        cache = {} if self.prepared_statements else {"statement_cache_size": 0}
        return self._arguments | cache

    async def _check(self, session: AsyncSession) -> None:
        version = session.connection.get_server_version()
        check_server(version.major * 10_000 + version.minor, self.address)
        rows = await session.fetch("select key, value from {schema}.meta")
        Installed.read({row["key"]: row["value"] for row in rows}, self.schema).check(self.schema)

    def _translated(self, error: BaseException) -> BaseException:
        if isinstance(error, OSError) or is_driver_error(error):
            return translate(error, address=self.address, schema=self.schema)
        return error


def session_on(connection: Any, *, schema: str, address: str = "the caller's connection") -> AsyncSession:
    """Run calls on a caller's connection.  Raises InvalidOptionError for what is none of the known kinds."""
    psycopg = sys.modules.get("psycopg")  # who has a connection has the module
    if psycopg is not None and isinstance(connection, psycopg.AsyncConnection):
        return PsycopgSession(connection, schema=schema, address=address)
    if hasattr(connection, "fetch") and hasattr(connection, "is_in_transaction"):
        return AsyncSession(connection, schema=schema, address=address)
    raise InvalidOptionError(
        f"connection is a {type(connection).__module__}.{type(connection).__qualname__}; "
        "it must be an asyncpg connection or a psycopg AsyncConnection",
        option="connection",
    )


def begins_transaction(connection: Any) -> bool:
    """Whether several statements on a psycopg connection need a transaction begun for them.

    Not in one that is open; nor without autocommit, where the first statement begins one that its
    owner commits: ``connection.transaction()`` would commit it for him.
    """
    return bool(connection.autocommit) and connection.info.transaction_status == 0


def _is_over(connection: Any) -> bool:
    """Whether a connection of a pool has ended.  One whose end was heard of is the pool's again and says nothing."""
    try:
        return bool(connection.is_closed())
    except Exception as error:
        if not is_driver_error(error):
            raise
        return True


async def _keep_as_it_is(connection: object) -> None:
    """Nothing to reset: no call leaves anything behind in its session."""
