"""Who sees to it that sessions that have ended are sealed: by tasks where there is a client, else here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from absurd.errors import AbsurdError, DatabaseUnavailableError
from absurd.tasks.session.errors import SessionStorageError
from absurd.tasks.session.place import Place
from absurd.tasks.session.sealed import seal
from absurd.tasks.session.writer import refused

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
PATIENCE = 15.0
"""Seconds for which the end of a manager waits for a database that neither answers nor refuses."""

_log = logging.getLogger("absurd.session")


class Client(Protocol):
    """What is needed of a client: `SyncAbsurdClient` is one."""

    @property
    def spawn(self) -> Callable[..., UUID]: ...

    @property
    def wait(self) -> Callable[..., Any]: ...

    @property
    def tell_session(self) -> Callable[..., bool]: ...


class Sealer:
    """Seals sessions, now or as soon as it can be done."""

    def __init__(self, data_dir: Path, client: Client | None, queue: str | None) -> None:
        self._data_dir = data_dir
        self._client = client
        self._queue = queue
        self._owed: dict[str, Place] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def seal(self, place: Place, timeout: float | None) -> Path:
        """Seal a session and wait for that; gives its path, at once if the database is away.

        Raises what `absurd.tasks.session.sealed.seal` raises, TaskFailed if that was on a worker, WaitTimeoutError; the
        journal stays then.
        """
        if self._client is None:
            try:
                seal(self._data_dir, place.id)
            except SessionStorageError:
                self.owe(place)
                raise
            return place.path
        try:
            task_id = self._spawn(self._client, place)
        except DatabaseUnavailableError as error:
            _log.warning("session %s is sealed when the database is back: %s", place.id, error)
            self.owe(place)
            return place.path
        try:
            self._client.wait(task_id, timeout)
        except DatabaseUnavailableError as error:
            _log.warning("session %s is being sealed by task %s; the database is away: %s", place.id, task_id, error)
        return place.path

    def catalog(self, full: bool, timeout: float | None) -> Path:
        """Bring the catalogue up to date, by a task that is waited for, or here; gives its path."""
        from absurd.tasks.session.catalog import PARQUET, rebuild

        path = self._data_dir / PARQUET
        if self._client is not None:
            params = {"data_dir": str(self._data_dir), "full": full}
            try:
                self._client.wait(self._client.spawn("session.catalog", params, queue=self._queue), timeout)
            except DatabaseUnavailableError as error:
                _log.warning("the database is not told of the catalogue of %s: %s", self._data_dir, error)
            else:
                return path
        try:
            rebuild(self._data_dir, full=full)
        except OSError as error:
            raise refused(path, error) from error
        return path

    def owe(self, place: Place) -> None:
        """Have a session sealed as soon as it can be done."""
        with self._changed:
            self._owed[place.id] = place
            if self._thread is None and not self._stopping:
                self._thread = threading.Thread(target=self._run, name="absurd-sealer", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Try once more what is owed; the next manager of the folder does what cannot be done now."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(None if self._client is None else PATIENCE)
            if self._thread.is_alive():
                _log.warning(
                    "the database does not answer: what has ended in %s is sealed by its next manager", self._data_dir
                )

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._owed or self._stopping)
                owed, last = list(self._owed.values()), self._stopping
            settled = [self._settle(each) for each in owed]
            if all(settled):
                pause = FIRST_PAUSE
            elif not last:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            if last:
                return

    def _settle(self, place: Place) -> bool:
        """Seal one, or spawn that; false if it has to be tried again."""
        try:
            if self._client is None:
                seal(self._data_dir, place.id)
            else:
                self._spawn(self._client, place)
        except (DatabaseUnavailableError, SessionStorageError) as error:
            _log.warning("session %s could not be sealed yet: %s", place.id, error)
            return False
        except AbsurdError as error:
            _log.error("session %s is not sealed, and its journal stays: %s", place.id, error)
        with self._changed:
            self._owed.pop(place.id, None)
        return True

    def _spawn(self, client: Client, place: Place) -> UUID:
        options = {"key": f"session.seal:{place.id}", "key_scope": "unfinished", "queue": self._queue}
        params = {"data_dir": str(self._data_dir), "session_id": place.id}
        return client.spawn("session.seal", params, **options)
