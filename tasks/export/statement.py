"""Waiting for the server such that a signal, or the end of an export, is heard at once; and ending what it does.

libpq's own waits return when the server answers and not before: a handler of a signal runs after them only, and a
thread in one of them cannot be told to stop.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

POLL_MILLISECONDS = 100
"""How long to wait for the server before looking whether to stop."""
END_SECONDS = 2.0
"""What the server gets to hear that it should end a statement, and again to end it, before the connection is closed."""


def wait_readable(pgconn: PGconn, check: Callable[[], None]) -> None:
    """Wait until there is something to read, and take it in; `check` is called meanwhile, and may raise.

    Raises `psycopg.Error` when the connection is lost.
    """
    _wait(pgconn, select.POLLIN, check)
    pgconn.consume_input()


def result_of(pgconn: PGconn, check: Callable[[], None]) -> PGresult | None:
    """The next result of what was sent, as PQgetResult gives it; `check` as in `wait_readable`."""
    while pgconn.flush():
        if _wait(pgconn, select.POLLIN | select.POLLOUT, check) & ~select.POLLOUT:
            pgconn.consume_input()  # a server that waits to be read reads no more itself
    while pgconn.is_busy():
        wait_readable(pgconn, check)
    return pgconn.get_result()


def outcome_of(pgconn: PGconn, check: Callable[[], None] = lambda: None) -> PGresult:
    """What came of a command: its last result, or that its rows can be read (COPY_OUT).

    Raises `psycopg.Error` where it failed; `check` as in `wait_readable`.
    """
    last = None
    while (more := result_of(pgconn, check)) is not None:
        last = more
        if more.status == pq.ExecStatus.COPY_OUT:
            return more
    if last is None:
        raise psycopg.OperationalError("the server gave no answer")
    if last.status == pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(last)
    return last


def end(connection: psycopg.Connection[Any]) -> None:
    """End what the server does for a connection, and leave it fit for a rollback; close it if the server is deaf.

    Nothing is done where nothing runs.
    """
    pgconn = connection.pgconn
    if pgconn.status != pq.ConnStatus.OK or pgconn.transaction_status != pq.TransactionStatus.ACTIVE:
        return
    try:
        connection.cancel_safe(timeout=END_SECONDS)
        _drain(pgconn)
    except (psycopg.Error, TimeoutError):
        connection.close()  # which the server hears, if it hears anything
    except BaseException:
        connection.close()
        raise


def _drain(pgconn: PGconn) -> None:
    """Read what is still to come, and throw it away.  Raises TimeoutError."""
    deadline = time.monotonic() + END_SECONDS

    def check() -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    while (result := result_of(pgconn, check)) is not None:
        while result.status == pq.ExecStatus.COPY_OUT and (size := pgconn.get_copy_data(1)[0]) >= 0:
            check()
            if size == 0:
                wait_readable(pgconn, check)


def _wait(pgconn: PGconn, wanted: int, check: Callable[[], None]) -> int:
    """The events that have come."""
    ready = select.poll()  # select() cannot wait for a descriptor past 1023
    ready.register(pgconn.socket, wanted)
    while not (found := ready.poll(POLL_MILLISECONDS)):
        check()
    return found[0][1]
