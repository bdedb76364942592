"""What is sent to databases, so that a test can count it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy


@contextmanager
def statements() -> Iterator[list[str]]:
    """Collects what is sent to databases by SQLAlchemy, transactions aside."""
    sent: list[str] = []

    def collect(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement != "BEGIN":
            sent.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", collect)
    try:
        yield sent
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", collect)
