"""SQL on the catalogue: by DuckDB on its Parquet, or by SQLite on its index."""

from __future__ import annotations

import os
import re
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from absurd.tasks.session.catalog import PARQUET, SQLITE
from absurd.tasks.session.errors import SessionNotFoundError, SessionQueryError

_WHOLE = re.compile(r"\s*(select|with|from|values|describe|summarize)\b", re.IGNORECASE)
_BARE = re.compile(r"\s*(order\s+by|limit|group\s+by)\b", re.IGNORECASE)


class Answer(NamedTuple):
    """What a query gave."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


def statement(text: str) -> str:
    """The whole statement of a query, which may be no more than a condition: then all columns are asked for.

    ``target LIKE 'M%' ORDER BY start_time DESC`` is ``SELECT * FROM sessions WHERE target LIKE 'M%' ORDER BY …``.
    """
    if not text.strip():
        return "SELECT * FROM sessions"
    if _WHOLE.match(text):
        return text
    return f"SELECT * FROM sessions {'' if _BARE.match(text) else 'WHERE '}{text}"


def query(data_dir: str | os.PathLike[str], text: str, *, sqlite: bool = False) -> Answer:
    """Answer a query of the table ``sessions``, see `statement`; with `sqlite` from the index of that kind.

    A query reads the catalogue alone, and changes nothing.  LIKE tells capitals from others.
    Raises SessionNotFoundError if the folder has no catalogue, SessionQueryError for what cannot be answered.
    """
    path = Path(data_dir) / (SQLITE if sqlite else PARQUET)
    if not path.exists():
        option = " --sqlite" if sqlite else ""
        raise SessionNotFoundError(
            f"there is no {path}: absurd session rebuild-catalog{option} makes it", path=str(path)
        )
    return _by_sqlite(path, statement(text)) if sqlite else _by_duckdb(path, statement(text))


def _by_duckdb(path: Path, sql: str) -> Answer:
    try:
        import duckdb
    except ImportError:
        raise SessionQueryError("queries need DuckDB: pip install 'absurd[session]', or take --sqlite") from None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        sessions = pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise SessionQueryError(
            f"{path} is damaged ({error}): absurd session rebuild-catalog makes it again"
        ) from error
    with duckdb.connect(":memory:", config={"enable_external_access": "false", "threads": "1"}) as connection:
        try:
            connection.register("sessions", sessions)
            connection.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")
            relation: Any = connection.sql(sql)
            if relation is None:
                return Answer([], [])
            table = relation.to_arrow_table()
        except duckdb.Error as error:
            raise SessionQueryError(f"{sql!r} cannot be answered: {error}", query=sql) from error
    columns = table.column_names
    return Answer(columns, list(zip(*(each.to_pylist() for each in table.columns), strict=True)))


def _by_sqlite(path: Path, sql: str) -> Answer:
    import sqlite3

    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            connection.execute("PRAGMA case_sensitive_like = true")
            connection.execute("PRAGMA query_only = true")
            cursor = connection.execute(sql)
            return Answer([each[0] for each in cursor.description or ()], cursor.fetchall())
        except sqlite3.Error as error:
            raise SessionQueryError(f"{sql!r} cannot be answered: {error}", query=sql) from error
