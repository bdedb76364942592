"""A clock that tests set: the one function that tells the database its time is replaced meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Self

from absurd.config import Settings
from absurd.database_sync import SyncDatabase, SyncSession
from absurd.errors import InvalidOptionError
from absurd.queue import move_task_ids
from absurd.testing.place import HasSettings, settings_of

FUNCTIONS = ("clock_time", "new_task_id")


class FakeClock:
    """Freezes and moves the time of a test's database, for all sessions and processes that use it.

    A context manager; the true time runs again after it.  Workers at work are not taken for dead by a jump:
    their last sign of life moves along.  Task ids carry their time: those made in this process, and by the
    database, follow the clock; another process can spawn only while the clock is less than a day off.
    Never for a database that holds anything but tests: it is changed for all.
    """

    def __init__(self, source: Settings | HasSettings | str | None = None) -> None:
        settings = None if isinstance(source, str) else settings_of(source)
        url = settings.database_url if settings is not None else source
        self._database = SyncDatabase(str(url), schema=settings.schema if settings else "absurd")
        self._originals: list[str] = []
        self._frozen = False

    def __enter__(self) -> Self:
        self._database.open()
        self._originals = [
            str(
                self._one(
                    "select pg_get_functiondef(($1::text || $2::text)::regprocedure) as it", self._prefix, f"{name}()"
                )
            )
            for name in FUNCTIONS
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()
        self._database.close()

    def now(self) -> datetime:
        """What time it is in the database."""
        moment: datetime = self._one("select {schema}.clock_time() as it")
        return moment.astimezone(UTC)

    def freeze(self, at: datetime | None = None) -> datetime:
        """Stop the clock, at an aware time or now; gives the time at which it stands."""
        self._frozen = True
        return self._set(self.now() if at is None else _aware(at))

    def resume(self) -> datetime:
        """Let a frozen clock run on from where it stands."""
        self._frozen = False
        return self._set(self.now())

    def set(self, moment: datetime) -> datetime:
        """Jump to an aware time; a frozen clock stays frozen, a running one runs on from there."""
        return self._set(_aware(moment))

    def advance(self, by: float | timedelta) -> datetime:
        """Jump ahead by seconds or a timedelta; gives the new time."""
        return self._set(self.now() + (by if isinstance(by, timedelta) else timedelta(seconds=by)))

    def restore(self) -> None:
        """Let the true time hold again."""
        if not self._originals:
            return
        with self._database.transaction() as session:
            before = self.now()
            for definition in self._originals:
                session.fetch(definition)
            self._keep_alive(before)
            self._wake(session)
        self._frozen = False
        move_task_ids(0)

    # Inside -------------------------------------------------------------------------------------

    def _set(self, moment: datetime) -> datetime:
        now: datetime = self._one("select clock_timestamp() as it")
        ahead = (moment - now).total_seconds()
        told = (
            f"timestamptz '{moment.isoformat()}'" if self._frozen else f"clock_timestamp() + interval '{ahead} seconds'"
        )
        before = self.now()
        with self._database.transaction() as session:
            session.fetch(
                "create or replace function {schema}.clock_time() returns timestamptz"
                f" language sql stable as $clock$ select {told} $clock$"
            )
            session.fetch(self._originals[1].replace("clock_timestamp()", "clock_time()"))
            self._keep_alive(before)
            self._wake(session)
        move_task_ids(ahead)
        return moment.astimezone(UTC)

    def _keep_alive(self, before: datetime) -> None:
        self._database.fetch(
            "update {schema}.worker set last_seen = last_seen + ({schema}.clock_time() - $1::timestamptz)"
            " where state in ('running', 'stopping')",
            before,
        )

    def _wake(self, session: SyncSession) -> None:
        """Let those who rest until something is due look at the clock, with the commit."""
        for topic in ("schedule", "due"):
            session.fetch("select pg_notify($1::text || '_' || $2::text, '')::text", self._database.schema, topic)

    @property
    def _prefix(self) -> str:
        return f'"{self._database.schema}".'

    def _one(self, sql: str, *args: Any) -> Any:
        return self._database.fetch(sql, *args)[0]["it"]


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise InvalidOptionError(f"{moment!r} has no zone; a clock is set to an aware time", option="moment")
    return moment
