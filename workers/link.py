"""A worker's own connection: calls that are made until they are answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import structlog

from absurd.call import Call
from absurd.database import AsyncDatabase, AsyncSession
from absurd.errors import AbsurdError, AuthenticationError, DatabaseUnavailableError, InvalidInputError

T = TypeVar("T")

CANCEL_SECONDS = 1.0
"""How long a server gets to hear that a call is cancelled."""

log = structlog.get_logger("absurd.worker")


_PASSING = frozenset({"40001", "40P01", "55P03", "57014"})
"""SQLSTATEs of a statement that was sacrificed, not refused: deadlock, serialization, lock or statement time-out."""


_REFUSED = frozenset({"22", "23", "54", "AB"})
"""Classes of SQLSTATEs that tell of values which will never be taken."""
_OF_THE_CALL = frozenset({"AB002", "AB006"})
"""Of these classes, but no value's fault: a stale claim, a transaction that does not fit."""


def is_refused(error: AbsurdError) -> bool:
    """Whether the values of a call are at fault, so that making it again is useless."""
    state = getattr(error.__cause__, "sqlstate", None)
    return state[:2] in _REFUSED and state not in _OF_THE_CALL if state else isinstance(error, InvalidInputError)


def is_passing(error: AbsurdError) -> bool:
    """Whether the same call may succeed if it is made again."""
    return getattr(error.__cause__, "sqlstate", None) in _PASSING


class Link:
    """One connection outside the pool, made anew when it is lost.

    All calls of the worker's side may be repeated, so an answer that was lost is asked for again,
    for as long as `patient` says, after pauses that double up to `longest_pause` seconds.
    """

    def __init__(self, database: AsyncDatabase, patient: Callable[[], bool], *, longest_pause: float = 5.0) -> None:
        self._database = database
        self._patient = patient
        self._longest_pause = longest_pause
        self._session: AsyncSession | None = None
        self._turn = asyncio.Lock()  # one call at a time: a connection has no more
        self._asked: float | None = None
        self.away = False
        """Whether the last try of a call that is still to be answered found no database."""

    def silent_seconds(self) -> float:
        """How long a call has been waiting for its answer; 0 while none is."""
        return 0.0 if self._asked is None else time.monotonic() - self._asked

    async def run(self, call: Call[T]) -> T:
        """Make `call`.  Raises DatabaseUnavailableError once patience is at its end."""
        async with self._turn:
            return await self._run(call)

    async def _run(self, call: Call[T]) -> T:
        failures = 0
        while True:
            self._asked = time.monotonic()
            try:
                if self._session is None:
                    self._session = await self._connect()
                answer = await self._session.run(call)
            except AbsurdError as error:
                if isinstance(error, AuthenticationError) or not (
                    isinstance(error, DatabaseUnavailableError) or is_passing(error)
                ):
                    raise
                if isinstance(error, DatabaseUnavailableError):
                    self.away = True
                    await self.close()
                if not self._patient():
                    raise
                if failures == 0:
                    log.warning("database_away", error=error.message)
                failures += 1
                await asyncio.sleep(min(self._longest_pause, 0.05 * 2 ** min(failures, 8)) * random.uniform(0.5, 1.0))
            else:
                self.away = False
                self._asked = None
                if failures:
                    log.info("database_back", failures=failures)
                return answer

    async def _connect(self) -> AsyncSession:
        database = self._database
        return AsyncSession(
            await database.connect(),
            schema=database.schema,
            address=database.address,
            prepared_statements=database.prepared_statements,
        )

    async def close(self) -> None:
        """Drop the connection; a call that waits on it is made again on another."""
        self._asked = None
        session, self._session = self._session, None
        if session is not None:
            session.connection.terminate()

    async def call_off(self) -> None:
        """Have the server end a call that was cancelled, so that it does nothing later, and drop the connection."""
        session = self._session
        if session is not None and not session.connection.is_closed():
            with suppress(TimeoutError, OSError):
                await session.connection.close(timeout=CANCEL_SECONDS)
        await self.close()
