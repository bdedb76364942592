"""A file of products: the product tables as SQLite, to be looked at where there is no database."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from absurd.errors import InvalidInputError
from absurd.product_rows import TABLES, Document, Operator, Query, Table

APPLICATION_ID = 0x41425344
"""By which SQLite files of ours are known: ABSD."""
FORMAT = 1
"""Of the tables in the file; another one is refused."""
PAGE = 5000
"""How many rows are read at once."""
_TYPES = {"integer": "integer", "real": "real", "boolean": "integer"}
Read = Callable[[Query], list[Document]]


def write_product_file(
    path: Path, read: Read, *, since: datetime | None = None, until: datetime | None = None
) -> dict[str, int]:
    """Write all that `read` gives into a file that appears when it is whole; gives how many rows of each table.

    With `since` and `until`, only what was observed from then on and before.  Sources are those that something is told
    of then.  Raises InvalidInputError for a file that is there and none of products, OSError.
    """
    if path.exists():
        open_product_file(path).close()
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        with closing(sqlite3.connect(part)) as connection:
            connection.executescript(
                f"pragma application_id = {APPLICATION_ID}; pragma user_version = {FORMAT}; pragma journal_mode = off;"
                "create table about (version text not null)"
            )
            with connection:
                connection.execute("insert into about values (?)", [version("absurd")])
                for name, table in TABLES.items():
                    _create(connection, name, table)
                    _fill(connection, name, table, _pages(name, table, read, since, until))
                if since is not None or until is not None:
                    _drop_strangers(connection)
                counts = {name: connection.execute(f"select count(*) from {name}").fetchone()[0] for name in TABLES}
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return counts


def open_product_file(path: Path) -> sqlite3.Connection:
    """A file of products, to be read alone; for threads that take turns.

    Raises InvalidInputError for what is none, or of another format.
    """
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", uri=True, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise InvalidInputError(f"{path} cannot be opened: {error}", path=str(path)) from None
    try:
        found = [connection.execute(f"pragma {name}").fetchone()[0] for name in ("application_id", "user_version")]
    except sqlite3.Error as error:
        connection.close()
        raise InvalidInputError(f"{path} is no file of products: {error}", path=str(path)) from None
    if found != [APPLICATION_ID, FORMAT]:
        connection.close()
        raise InvalidInputError(
            f"{path} is no file of products that this version reads; write it with `absurd export --products`",
            path=str(path),
        )
    connection.row_factory = sqlite3.Row
    return connection


def document(table: Table, row: sqlite3.Row) -> Document:
    """A row as the database of the queue has it."""
    return {name: _value(kind, row[name]) for name, kind in table.columns.items()}


def _value(kind: str, value: Any) -> Any:
    if value is None:
        return None
    return json.loads(value) if kind == "json" else bool(value) if kind == "boolean" else value


def _pages(
    name: str, table: Table, read: Read, since: datetime | None, until: datetime | None
) -> Iterator[list[Document]]:
    where: list[tuple[str, Operator, Any]] = []
    if table.observed is not None:
        where += [(table.observed, ">=", since)] if since is not None else []
        where += [(table.observed, "<", until)] if until is not None else []
    after: tuple[Any, ...] | None = None
    while rows := read(Query(name, tuple(where), after, limit=PAGE)):
        yield rows
        after = tuple(rows[-1][column] for column in table.key)


def _create(connection: sqlite3.Connection, name: str, table: Table) -> None:
    columns = ", ".join(f"{column} {_TYPES.get(kind, 'text')}" for column, kind in table.columns.items())
    connection.execute(f"create table {name} ({columns}, primary key ({', '.join(table.key)})) without rowid")
    for index in table.indexes:
        connection.execute(f"create index {name}_{'_'.join(index)} on {name} ({', '.join(index)})")


def _fill(connection: sqlite3.Connection, name: str, table: Table, pages: Iterator[list[Document]]) -> None:
    insert = f"insert into {name} ({', '.join(table.columns)}) values ({', '.join('?' * len(table.columns))})"
    for rows in pages:
        connection.executemany(insert, [[_stored(kind, row[c]) for c, kind in table.columns.items()] for row in rows])


def _stored(kind: str, value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if kind == "json" and value is not None else value


def _drop_strangers(connection: sqlite3.Connection) -> None:
    """Rows of what is not in the file."""
    for name in ("product_input", "qa_result"):
        connection.execute(f"delete from {name} where product_id not in (select id from product)")
    connection.execute(
        "delete from variability where product_id not in (select id from product)"
        " and source_id not in (select source_id from photometry)"
    )
    connection.execute(
        "delete from source where id not in (select source_id from photometry union select source_id from variability)"
    )
