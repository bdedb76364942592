"""A session that can hold a transaction open, or hang in a lock without hanging its test."""

from __future__ import annotations

import threading
from typing import Any

import psycopg


class Session:
    """One connection that can hold a transaction open, or hang in a lock without hanging the test."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True, options="-c search_path=absurd,public")
        self.thread: threading.Thread | None = None
        self.outcome: Any = None

    def call(self, sql: str, *args: Any) -> Any:
        row = self.connection.execute(f"select {sql}", args).fetchone()
        return row[0] if row else None

    def begin(self) -> None:
        self.connection.execute("begin")

    def commit(self) -> None:
        self.connection.execute("commit")

    def call_later(self, sql: str, *args: Any) -> None:
        """Start a call that may have to wait for another session."""

        def run() -> None:
            try:
                self.outcome = self.call(sql, *args)
            except psycopg.Error as error:
                self.outcome = error

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def waits(self, observer: Session) -> bool:
        """Whether the call hangs in a lock (or is over already); looks for half a millisecond at least."""
        assert self.thread is not None
        self.thread.join(0.0005)  # most are over by then
        return not self.thread.is_alive() or bool(
            observer.call("wait_event_type = 'Lock' from pg_stat_get_activity(%s)", self.connection.info.backend_pid)
        )

    def result(self) -> Any:
        assert self.thread is not None
        self.thread.join(30)
        assert not self.thread.is_alive(), "the call still waits"
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome
